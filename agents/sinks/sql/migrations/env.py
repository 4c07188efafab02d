"""Alembic environment: runs the revisions on the connection that `agents.sinks.sql.migrate` passes."""

from __future__ import annotations

from alembic import context

from astrocyte.schemas.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
context.run_migrations()
