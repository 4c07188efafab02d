"""The conjunction operator: all ``all`` rules of a matcher, events in any order within a window."""
