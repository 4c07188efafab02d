"""Sinks, which store the pipeline's results: SQL, InfluxDB, files, memory. Import each from its own module."""
