"""Databases of experiments: simulation contexts, loggers and repositories."""
