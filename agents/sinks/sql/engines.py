"""SQLAlchemy engines with the settings of all Astrocyte connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, Label, create_engine, event, inspect, null
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.sqlite import configure, make_private
from astrocyte.agents.sinks.sql.url import database_url, open_store, report_unverified, sqlite_path

__all__ = ["columns_there", "driver_errors", "engine_of", "engine_over"]

_DRIVERS: Final = frozenset({"psycopg", "sqlite3", "sqlalchemy"})


def engine_of(address: str | Path) -> Engine:
    """Engine for an address; it connects at its first use. Raises SinkError."""
    url = database_url(address)
    if url.get_backend_name() == "sqlite":
        memory = sqlite_path(url) == ":memory:"
        engine = create_engine(
            url,
            poolclass=StaticPool if memory else NullPool,
            connect_args={"check_same_thread": False, "timeout": 5.0},
        )
        event.listen(engine, "do_connect", lambda *_: make_private(sqlite_path(url)))
        return _with_transactions(engine)
    report_unverified(address)
    try:
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    except ModuleNotFoundError as error:
        raise SinkError(
            f"PostgreSQL needs the driver {error.name!r}, which is not installed; pip install 'astrocyte[postgres]'"
        ) from error


def engine_over(connection: sqlite3.Connection, *, transactions: bool = True) -> Engine:
    """Engine on an open SQLite connection, such as one to a database in memory.

    Without ``transactions`` it only reads, and an unfinished query does not block a transaction on the connection.
    """
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    return _with_transactions(engine) if transactions else engine


def columns_there(connection: Connection, table: Any) -> list[Column[Any] | Label[Any]]:
    """The columns of a table; those that a database of an earlier version lacks are null."""
    about = inspect(connection)
    if not about.has_table(table.name):
        return list(table.columns)  # reading them says so
    there = {column["name"] for column in about.get_columns(table.name)}
    return [column if column.name in there else null().label(column.name) for column in table.columns]


@contextmanager
def driver_errors(address: str | Path, what: str = "cannot be used") -> Iterator[None]:
    """Within this context an error of the driver becomes one line: the database ``what``. Raises SinkError."""
    try:
        yield
    except Exception as error:
        cause = (error.orig or error) if isinstance(error, DBAPIError) else error
        if type(cause).__module__.partition(".")[0] not in _DRIVERS:
            raise
        reason = " ".join(open_store(address).fault_of(cause).reason.split())
        raise SinkError(f"the database {what}: {reason}") from None


def _with_transactions(engine: Engine) -> Engine:
    """Enable transactions that include DDL on SQLite: those of the driver begin too late."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        configure(connection)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
