"""Alembic's scripts; run through `agents.stores.migrate`, which hands over the connection."""
