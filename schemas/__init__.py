"""The data model of Astrocyte: events, frames, ids, topics, tables and the catalog of event types."""
