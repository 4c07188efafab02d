"""The broker's files: logs, segments, indexes, recovery, compaction."""
