"""The conjunction operator: runs all ``all`` rules of a matcher, with events in any order within a window."""
