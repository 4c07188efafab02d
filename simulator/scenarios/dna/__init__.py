"""The scenario ``dna``."""
