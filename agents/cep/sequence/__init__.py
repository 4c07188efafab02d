"""The sequence operator: runs all ``seq`` and ``any`` rules of a matcher in one kernel."""
