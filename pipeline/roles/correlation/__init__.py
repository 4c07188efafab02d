"""The role correlate: domains of the partitions that a worker has."""
