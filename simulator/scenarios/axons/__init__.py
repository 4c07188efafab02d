"""The scenario ``axons``."""
