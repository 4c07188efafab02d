"""The InfluxDB sink: frames as line protocol, to a server or to compressed files."""
