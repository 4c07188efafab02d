"""The correlation engine: frames in, matches and window results out."""
