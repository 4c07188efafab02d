"""What travels through Astrocyte: events, frames, ids, topics and the catalog of event types."""
