"""Database addresses, and the URL and store for one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.schemas.errors import redacted

__all__ = ["database_url", "open_store", "shown_address", "sqlite_path"]

_EXPECTED = "sqlite:///FILE, a path, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def database_url(address: str | Path) -> URL:
    """SQLAlchemy URL of an address, with the driver that Astrocyte uses. Raises SinkError.

    A path means an SQLite file; ``postgres://`` and ``postgresql://`` mean psycopg 3.
    """
    text = str(address)
    if "://" not in text:
        if not text.strip():
            raise SinkError(f"expected {_EXPECTED}, got an empty database address")
        return URL.create("sqlite", database=None if text == ":memory:" else text)
    try:
        url = make_url(text.replace("postgres://", "postgresql://", 1) if text.startswith("postgres://") else text)
    except (ArgumentError, ValueError) as error:
        raise SinkError(f"invalid database address ({error}); expected {_EXPECTED}") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url.set(drivername="sqlite")
    if backend == "postgresql":
        if not url.host and "host" not in url.query and not url.database:
            raise SinkError(f"the address {url.render_as_string()} has no host and no database; expected {_EXPECTED}")
        return url.set(drivername="postgresql+psycopg")
    raise SinkError(f"database {backend!r} is not supported; expected {_EXPECTED}")


def shown_address(address: str | Path) -> str:
    """The address for messages: without passwords. Raises SinkError."""
    return redacted(database_url(address).render_as_string(hide_password=True))


def sqlite_path(url: URL) -> str:
    """Path of the file, or ``:memory:``."""
    return url.database or ":memory:"


def open_store(address: str | Path, *, busy_s: float | None = None, enforces: bool = True) -> Store:
    """The store for an address, not yet connected. Raises SinkError.

    ``busy_s`` is how many seconds a statement may wait for another writer of an SQLite file, and ``enforces`` whether
    SQLite checks foreign keys (PostgreSQL always does).
    """
    url = database_url(address)
    if url.get_backend_name() == "sqlite":
        from astrocyte.agents.sinks.sql.sqlite import BUSY_S, SqliteStore

        return SqliteStore(sqlite_path(url), busy_s=BUSY_S if busy_s is None else busy_s, enforces=enforces)
    from astrocyte.agents.sinks.sql.postgres import PostgresStore

    return PostgresStore(url)
