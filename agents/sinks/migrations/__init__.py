"""Alembic's scripts; run through `agents.sinks.migrate`, which hands over the connection."""
