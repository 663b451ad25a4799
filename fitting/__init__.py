"""The inverse side: from a photograph to the scene that explains it."""
