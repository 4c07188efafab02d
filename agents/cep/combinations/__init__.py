"""The combinations operator: every combination of events of a sequence, made only when one completes."""
