"""Event time of a domain: watermarks, reordering, deduplication, and the store of events still in use."""
