"""The scenario ``ecology``."""
