"""Rule files and rule objects: the model, its checks, and reading YAML."""
