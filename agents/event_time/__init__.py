"""Event time of a domain: watermarks, reordering, deduplication, and the events that are still needed."""
