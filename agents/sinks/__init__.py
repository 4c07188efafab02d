"""Where the pipeline's results go: SQL, InfluxDB, files, memory. Each sink is imported by its own module."""
