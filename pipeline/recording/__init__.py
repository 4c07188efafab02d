"""Recorded logs: their format, writing and reading them, replay and live views of topics."""
