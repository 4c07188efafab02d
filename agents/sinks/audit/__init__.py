"""The audit log: append-only entries in a hash chain."""
