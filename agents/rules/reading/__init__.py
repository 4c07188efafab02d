"""Rule files: from YAML to rules, with the place of every problem."""
