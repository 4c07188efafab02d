"""The statistics, one a module: what each reads, its settings, and its step from the rows of a window to results."""
