"""The sequence operator: all ``seq`` and ``any`` rules of a matcher, run by one kernel."""
