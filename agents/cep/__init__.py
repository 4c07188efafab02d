"""The matcher: rules compiled to tables, and the kernels that run them over columns of events."""
