"""Pictures of a world in space: the map of the ecology, and kernels in their basin."""
