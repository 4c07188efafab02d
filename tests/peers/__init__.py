"""``make peers``: other engines and this one over the same events, each with the query that its docs recommend."""
