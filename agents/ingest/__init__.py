"""From Kafka messages and plain dicts to validated frames."""
