"""Base of the SQL sinks: one connection, one thread that uses it, and retries."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.sqlite import SqliteStore
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.agents.sinks.sql.url import open_store
from astrocyte.schemas.errors import AstrocyteError

if TYPE_CHECKING:
    from sqlalchemy import Table

__all__ = ["SqlConnection", "make_tables", "prepare_store"]

T = TypeVar("T")


class SqlConnection:
    """A sink's connection; ``url`` is an SQLAlchemy URL or the path of an SQLite file.

    ``now_us`` returns the wall time for ``recorded_at``, which retention uses. With ``migrate`` an older database is
    upgraded when the sink opens; without it an older database is an error, as a newer one always is. Drivers block, so
    all work runs on one thread of the sink, one task after another.
    """

    def __init__(
        self, url: str, *, now_us: Callable[[], int], name: str, migrate: bool = True, retry: RetryPolicy | None = None
    ) -> None:
        self.name = name
        self.url = url
        self.now_us = now_us
        self._migrate = migrate
        self._retry = retry or RetryPolicy(name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{name}")
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The open store. Raises SinkError before `open`."""
        if self._store is None:
            raise SinkError(f"sink {self.name!r} is not open; await open() first")
        return self._store

    async def open(self) -> None:
        """Connect, and migrate or check the database. Retries while it is unavailable. Raises SinkError."""
        # SQLite need not check foreign keys: a batch contains the rows that its rows refer to.
        store = self._store = open_store(self.url, enforces=False)
        try:
            await self.persist(lambda: prepare_store(store, self.url, migrate=self._migrate))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection and end the sink's thread."""
        if self._store is not None:
            await self.in_thread(self._store.disconnect)
            self._store = None
        self._thread.shutdown(wait=True)

    async def holds_nothing(self) -> bool:
        """Whether the database holds no offsets of this sink: it is new, or was emptied or made anew."""
        store = self.store

        def known() -> bool:
            store.connect()
            return bool(store.query("SELECT 1 FROM sink_positions WHERE sink = ? LIMIT 1", (self.name,)))

        return not await self.persist(known)

    async def persist(self, work: Callable[[], T]) -> T:
        """Result of ``work``, retried for ever while the database is unavailable. Raises SinkError, SinkStopped."""
        store = self.store

        def transient(error: Exception) -> str | None:
            fault = store.fault_of(error)
            if fault.kind != "transient":
                return None
            if not _in_memory(store):
                store.disconnect()
            return fault.reason

        try:
            return await self._retry.persist(lambda: self.in_thread(work), transient)
        except AstrocyteError:
            raise
        except Exception as error:
            raise SinkError(f"sink {self.name!r}: {store.fault_of(error).reason}") from error

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Result of ``work``, run on the sink's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def prepare_store(store: Store, url: str, *, migrate: bool) -> None:
    """Connect ``store`` to a database of this version. Raises SinkError or the driver's error."""
    # Alembic takes 60 ms to import, so it is imported only when a database is opened.
    from astrocyte.agents.sinks.sql.engines import engine_over
    from astrocyte.agents.sinks.sql.migrate import prepare, upgrade_engine

    if _in_memory(store):
        assert isinstance(store, SqliteStore)
        store.connect()
        assert isinstance(store.connection, sqlite3.Connection)
        upgrade_engine(engine_over(store.connection))
        return
    prepare(url, migrate=migrate)
    store.connect()


def make_tables(store: Store, url: str, tables: Sequence[Table]) -> None:
    """Create the tables that are missing. Raises the driver's error."""
    from astrocyte.agents.sinks.sql.engines import engine_of, engine_over

    if _in_memory(store):
        assert isinstance(store, SqliteStore)
        assert isinstance(store.connection, sqlite3.Connection)
        engine = engine_over(store.connection)
    else:
        engine = engine_of(url)
    try:
        with engine.begin() as connection:
            for table in tables:
                table.create(connection, checkfirst=True)
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        if not _in_memory(store):
            engine.dispose()


def _in_memory(store: Store) -> bool:
    return isinstance(store, SqliteStore) and store.path == ":memory:"
