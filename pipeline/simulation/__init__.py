"""The simulator as a producer of Kafka topics or recorded logs."""
