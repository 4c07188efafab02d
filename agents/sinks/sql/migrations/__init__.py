"""Alembic's scripts; run through `agents.sinks.sql.migrate`, which hands over the connection."""
