"""Kafka client functions: topics, reading a range of messages, offsets."""
