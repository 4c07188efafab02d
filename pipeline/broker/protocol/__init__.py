"""Kafka's wire protocol: types, messages, record batches, error codes."""
