"""Rule files and rule objects: the model, its validation, and the YAML reader."""
