"""Recorded logs: format, writing and reading, replay, and live views of topics."""
