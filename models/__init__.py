"""The forward side: morphable models, camera, light, and the scene that holds their values."""
