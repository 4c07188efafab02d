"""A Kafka address as a client sees it: topics, reading a stretch, offsets."""
