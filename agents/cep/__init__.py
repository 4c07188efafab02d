"""The matcher: rules compiled to tables, and the kernels that apply them to columns of events."""
