"""Detail finer than a model: displacements and texture offsets on a refinement of its mesh."""
