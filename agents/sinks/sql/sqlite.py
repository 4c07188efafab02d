"""Bulk upserts into SQLite, with the standard library's driver.

One statement inserts up to 256 rows, because a statement (reset, locks of the interpreter, opening cursors) costs as
much as a row: this is a third faster than one row per statement. Integer ids are bound as integers, and SQLite converts
them to text by the column's affinity.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Formatter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.rows import Rows
from astrocyte.agents.sinks.sql.store import Fault
from astrocyte.agents.sinks.sql.targets import Target

__all__ = ["PAGE_BYTES", "SqliteStore", "configure", "make_private"]

PAGE_BYTES: Final = 16384
"""Page size of new files: a third faster to fill than the default 4096, since fewer index pages are rewritten."""

BUSY_S: Final = 0.25
"""Default ``busy_s``: short, because sinks retry and report each attempt; callers without retries pass more."""
_ROWS: Final = 256
_PARAMETERS: Final = 32000
"""Below SQLite's limit of 32,766 parameters per statement."""

_TRANSIENT: Final = {
    sqlite3.SQLITE_BUSY: "the database is locked by another writer",
    sqlite3.SQLITE_LOCKED: "the database is locked by another writer",
    sqlite3.SQLITE_FULL: "the disk is full (or the file has reached its allowed size); free some space",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_NOMEM: "out of memory",
}


class SqliteStore:
    """One connection to an SQLite file, or to a database in memory (path ``:memory:``).

    ``busy_s`` is how many seconds SQLite waits for another writer before it reports a lock. Each commit is synced to
    disk, so that a power failure undoes none. A writer that also writes the rows to which its rows refer may turn
    ``enforces`` (foreign keys) off: the checks take a sixth of the time.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        busy_s: float = BUSY_S,
        enforces: bool = True,
        cache_bytes: int = 64 << 20,
    ) -> None:
        self.path = str(path)
        self.enforces = enforces
        self.connection: sqlite3.Connection | None = None
        self._busy_s = busy_s
        self._cache_bytes = cache_bytes
        self._statements: dict[tuple[int, tuple[str, ...], int], str] = {}
        self._savepoints = itertools.count()
        self._files: dict[Path, tuple[int, int]] = {}
        """Device and inode of the database and of its log, which stay the same while a connection is open."""

    def connect(self) -> None:
        """Open the file, in WAL mode: the writer does not block readers. Raises SinkError if it was deleted since."""
        if self.connection is not None:
            return
        self._check_files(self._paths[:1])
        make_private(self.path)
        connection = sqlite3.connect(
            self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            configure(connection, enforces=self.enforces, cache_bytes=self._cache_bytes)
        except sqlite3.Error:
            connection.close()
            raise
        self.connection = connection
        self._files.clear()
        self._note_files(self._paths[:1])

    def disconnect(self) -> None:
        """Close the file."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that takes the write lock at its start, so that it cannot fail after its reads.

        Raises SinkError where the file was deleted or replaced: SQLite would go on writing to what nobody can open.
        """
        connection = self._open()
        self._check_files(self._paths)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._note_files(self._paths)
        self._check_files(self._paths)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A savepoint with a unique name."""
        connection = self._open()
        name = f"s{next(self._savepoints)}"
        connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            # A full disk rolls back the whole transaction, including the savepoint.
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO {name}")
                connection.execute(f"RELEASE {name}")
            raise
        connection.execute(f"RELEASE {name}")

    def upsert(self, rows: Rows) -> None:
        """Insert or merge the rows with multi-row statements."""
        connection = self._open()
        if rows.target.sort:
            rows = _sorted(rows)
        if not len(rows):
            return
        shared = {
            name: value
            for name, column in rows.columns.items()
            if rows.target.encoding(name) == "plain" and (value := _same_value(column)) is not None
        }
        varying = tuple(name for name in rows.columns if name not in shared)
        columns = [_values(rows.target, name, rows.columns[name]) for name in varying]
        width, count, constants = len(varying), len(rows), list(shared.values())
        flat = list(itertools.chain.from_iterable(zip(*columns, strict=True)))
        chunk = min(_ROWS, (_PARAMETERS - len(shared)) // width) if width else 1
        whole = count - count % chunk
        for size, start, stop in ((chunk, 0, whole), (1, whole, count)):
            if start < stop:
                statement = self._statement(rows.target, (*shared, "", *varying), size)
                places = range(start * width, stop * width, size * width) if width else range(stop - start)
                connection.executemany(statement, (constants + flat[at : at + size * width] for at in places))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query whose parameters are question marks."""
        return self._open().execute(sql, tuple(parameters)).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Number of rows that a statement, whose parameters are question marks, changed."""
        return self._open().execute(sql, tuple(parameters)).rowcount

    def lock(self, name: str) -> None:
        """Does nothing: a transaction locks the whole file."""

    def fault_of(self, error: Exception) -> Fault:
        """Classify by SQLite's error code."""
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
            return Fault("row", f"SQLite rejects the row: {error}")
        if isinstance(error, OverflowError | UnicodeError | ValueError):
            return Fault("row", f"the row cannot be passed to SQLite: {error}")
        if isinstance(error, SinkError):
            return Fault("fatal", str(error))
        code = getattr(error, "sqlite_errorcode", None)
        transient = None if code is None else _TRANSIENT.get(code & 0xFF)
        if transient is not None:
            return Fault("transient", f"{self.path}: {transient} ({error})")
        return Fault("fatal", f"{self.path}: {error}")

    @property
    def _paths(self) -> list[Path]:
        """The database, and its write-ahead log; none in memory."""
        return [] if self.path == ":memory:" else [Path(self.path), Path(self.path + "-wal")]

    def _note_files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path not in self._files and (found := _identity(path)) is not None:
                self._files[path] = found

    def _check_files(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path in self._files and _identity(path) != self._files[path]:
                raise SinkError(
                    f"the database file {path} was deleted or replaced while it was written; what it held of "
                    "acknowledged batches is gone, unless it was renamed. Nothing of this batch was acknowledged: "
                    "restore the file, or start again with a new one (docs/operations.md, Faults)"
                )

    def _open(self) -> sqlite3.Connection:
        if self.connection is None:
            raise SinkError(f"the connection to {self.path} is not open; call connect() first")
        return self.connection

    def _statement(self, target: Target, staged: tuple[str, ...], count: int) -> str:
        key = (id(target), staged, count)
        if key not in self._statements:
            divide = staged.index("")
            self._statements[key] = upsert_statement(target, staged[:divide], staged[divide + 1 :], count)
        return self._statements[key]


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def make_private(path: str) -> None:
    """Create the file of a database that does not exist yet, so that its owner alone can read it."""
    if path != ":memory:":
        # Only one that is not there: closing a file releases the locks that this process has on it through SQLite.
        with suppress(OSError):  # SQLite says what is wrong with the path
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def configure(connection: sqlite3.Connection, *, enforces: bool = True, cache_bytes: int = 64 << 20) -> None:
    """Apply the settings of all Astrocyte connections to SQLite."""
    for pragma in (
        f"page_size={PAGE_BYTES}",
        "journal_mode=WAL",
        "synchronous=FULL",
        f"cache_size={-cache_bytes // 1024}",
        "temp_store=MEMORY",
        "wal_autocheckpoint=4000",
        f"foreign_keys={'ON' if enforces else 'OFF'}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def upsert_statement(target: Target, shared: tuple[str, ...], varying: tuple[str, ...], count: int) -> str:
    """INSERT of ``count`` rows. Its parameters are the shared staged columns once, then the others row by row."""
    values = target.values
    names = ", ".join(f'"{name}"' for name in values)
    rows = []
    for row in range(count):
        numbers = {name: index for index, name in enumerate(shared, 1)}
        numbers |= {name: index for index, name in enumerate(varying, len(shared) + row * len(varying) + 1)}
        rows.append("(" + ", ".join(_numbered(text, numbers) for text in values.values()) + ")")
    return f'INSERT INTO "{target.table.name}" ({names}) VALUES {", ".join(rows)} {target.on_conflict()}'  # noqa: S608 - names of our own tables


def _numbered(expression: str, numbers: Mapping[str, int]) -> str:
    """The expression with each staged column in braces replaced by its numbered parameter."""
    parts = []
    for text, name, _, _ in Formatter().parse(expression):
        parts.append(text)
        if name is not None:
            parts.append(f"?{numbers[name]}")
    return "".join(parts)


def _same_value(column: pa.Array) -> Any:
    """The value that all rows share, if that is cheap to find, else None; it is bound once per statement."""
    if column.null_count:
        return None
    if pa.types.is_dictionary(column.type):
        return column.dictionary[0].as_py() if len(column.dictionary) == 1 else None
    if pa.types.is_int64(column.type):
        values = column.to_numpy(zero_copy_only=False)
        return int(values[0]) if values[0] == values[-1] and (values == values[0]).all() else None
    return None


def _sorted(rows: Rows) -> Rows:
    keys = [rows.columns[name] for name in reversed(rows.target.sort)]
    if any(key.null_count or not pa.types.is_integer(key.type) for key in keys):
        return rows
    return rows.take(np.lexsort([key.to_numpy(zero_copy_only=False) for key in keys]))


def _values(target: Target, name: str, column: pa.Array) -> Any:
    """Python values of a staged column; fast for the common types."""
    kind = column.type
    encoding = target.encoding(name)
    if encoding == "vector" or pa.types.is_list(kind):
        return [None if value is None else np.asarray(value, "<f4").tobytes() for value in column.to_pylist()]
    if encoding == "datetime":
        return pc.cast(pc.cast(column, pa.timestamp("us")), pa.utf8()).to_pylist()
    if pa.types.is_dictionary(kind):
        if len(column.dictionary) == 1 and not column.null_count:
            return itertools.repeat(column.dictionary[0].as_py(), len(column))
        names = np.array([*column.dictionary.to_pylist(), None], dtype=object)
        codes = column.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
        return names[codes].tolist()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        if column.null_count:
            zero: Mapping[str, Any] = {"bool": False}
            plain = column.fill_null(zero.get(str(kind), 0)).to_numpy(zero_copy_only=False).tolist()
            for row in np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False)).tolist():
                plain[row] = None
            return plain
        return column.to_numpy(zero_copy_only=False).tolist()
    return column.to_pylist()
