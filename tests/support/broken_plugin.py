"""A plugin that cannot be imported."""

raise ValueError("by design")
