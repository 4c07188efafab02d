"""Alembic scripts; run by `agents.sinks.sql.migrate`, which passes the connection."""
