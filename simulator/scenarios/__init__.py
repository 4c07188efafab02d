"""The shipped scenarios, one folder each."""
