"""Arrays of a fixed size over time, into which any number of events goes."""
