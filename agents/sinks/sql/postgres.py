"""Bulk upserts into PostgreSQL with psycopg: COPY and, where rows exist already, COPY and merge.

Arrow writes the CSV that COPY reads, so no value passes through Python. New rows are copied directly into the table,
which costs half of a merge; on a key collision that is rolled back and the rows are merged from a temporary table. A
batch with two rows of one key is merged with one row per key, since PostgreSQL does not update a row twice in one
statement.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
from sqlalchemy.engine import URL

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.rows import Rows
from astrocyte.agents.sinks.sql.store import Fault
from astrocyte.agents.sinks.sql.targets import Target
from astrocyte.schemas.errors import redacted

__all__ = ["PostgresStore"]

_TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
"""SQLSTATE classes: connection, rollback, resources (a full disk), locks, operator intervention, system error."""
_READ_ONLY: Final = "25006"
"""Of a standby before its promotion, and of a server that its operator has made read-only because its disk is full."""
_ROW_CLASSES: Final = ("22", "23")
_REFUSED: Final = ("authentication failed", "does not exist", "no pg_hba.conf entry")
_TLS: Final = ("certificate", "unknown ca", "private key file", "does not support SSL", "invalid sslmode")
"""Signs of a connection that TLS or its files do not allow. Other errors of SSL may be a lost connection."""
_MERGES_AFTER_COLLISION: Final = 16
_LAST: Final = "(array_agg({0} ORDER BY stage_row DESC) FILTER (WHERE {0} IS NOT NULL))[1]"
"""The last non-null value of a group."""
_COPY_BYTES: Final = 1 << 18


class PostgresStore:
    """One connection to a PostgreSQL database with pgvector."""

    enforces = True

    def __init__(self, url: URL) -> None:
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise SinkError(
                "PostgreSQL needs the driver psycopg, which is not installed; pip install 'astrocyte[postgres]'"
            ) from error
        self._psycopg = psycopg
        self._shown = redacted(url.set(drivername="postgresql").render_as_string(hide_password=True))
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection: Any = None
        self._stages: dict[tuple[str, ...], str] = {}
        self._collided: dict[str, int] = {}
        self._savepoints = itertools.count()

    def connect(self) -> None:
        """Connect. Statements have no time limit; keepalives detect a lost server."""
        if self.connection is not None and not self.connection.closed:
            return
        self.connection = self._psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=5,
            application_name="astrocyte",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        self._stages.clear()

    def disconnect(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction; rolled back if the block raises."""
        with self._restoring_stages(), self._open().transaction():
            yield

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A savepoint: psycopg creates one for a nested transaction."""
        with self._restoring_stages(), self._open().transaction(savepoint_name=f"s{next(self._savepoints)}"):
            yield

    @contextmanager
    def _restoring_stages(self) -> Iterator[None]:
        """If the block raises, drop the records of temporary tables that were created in it and rolled back."""
        before = dict(self._stages)
        try:
            yield
        except BaseException:
            self._stages = before
            raise

    def upsert(self, rows: Rows) -> None:
        """COPY the rows directly into the table; if a row exists already, merge from a temporary table.

        After a collision (most likely a replay) the next batches for the table are merged without trying COPY first.
        """
        if not len(rows):
            return
        target = rows.target
        columns = dict(rows.columns)
        columns |= {name: computed.arrow(rows.columns) for name, computed in target.computed.items()}
        kinds = {name: _kind(target, name, column) for name, column in columns.items() if name in target.table.c}
        names = ", ".join(f'"{name}"' for name in kinds)
        text = _csv({name: _plain(columns[name], kind) for name, kind in kinds.items()}, len(rows))
        table = target.table.name
        if target.conflict == "refuse":
            self._copy(f'"{table}" ({names})', text)
            return
        if target.conflict == "replace" and not self._collided.get(table):
            try:
                with self.savepoint():
                    self._copy(f'"{table}" ({names})', text)
            except self._psycopg.errors.UniqueViolation:
                self._collided[table] = _MERGES_AFTER_COLLISION
            else:
                return
        self._collided[table] = max(0, self._collided.get(table, 0) - 1)
        stage = self._stage(kinds)
        connection = self._open()
        connection.execute(f"TRUNCATE {stage}")
        self._copy(f"{stage} ({names})", text)
        if target.conflict == "fill":
            connection.execute(_merge(target, kinds, stage, "fill"))
            return
        try:
            with self.savepoint():
                connection.execute(_merge(target, kinds, stage, "all"))
        except self._psycopg.errors.CardinalityViolation:
            connection.execute(_merge(target, kinds, stage, "last"))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query whose parameters are question marks."""
        rows: list[tuple[Any, ...]] = self._open().execute(sql.replace("?", "%s"), parameters).fetchall()
        return rows

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Number of rows that a statement, whose parameters are question marks, changed."""
        changed: int = self._open().execute(sql.replace("?", "%s"), parameters).rowcount
        return changed

    def lock(self, name: str) -> None:
        """Take the lock ``name``, waiting for other transactions; it is held until this transaction ends."""
        self._open().execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"astrocyte.{name}",))

    def _copy(self, into: str, text: memoryview) -> None:
        with self._open().cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN (FORMAT csv)") as copy:
            for start in range(0, len(text), _COPY_BYTES):
                copy.write(text[start : start + _COPY_BYTES])

    def fault_of(self, error: Exception) -> Fault:
        """Classify by the server's SQLSTATE; an error without one is a lost connection."""
        if isinstance(error, SinkError):
            return Fault("fatal", str(error))
        state = getattr(error, "sqlstate", None) or ""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if state[:2] in _ROW_CLASSES:
            return Fault("row", f"PostgreSQL rejects the row: {text}")
        if isinstance(error, self._psycopg.DataError | self._psycopg.IntegrityError | UnicodeError | OverflowError):
            return Fault("row", f"the row cannot be passed to PostgreSQL: {text}")
        if state[:2] in _TRANSIENT_CLASSES or state == _READ_ONLY:
            return Fault("transient", f"{self._shown}: {text} ({state})")
        if not state and any(sign in text for sign in _TLS):
            advice = "see sslmode, sslrootcert, sslcert and sslkey in the address"
            return Fault("fatal", f"no TLS connection to {self._shown}: {text}; {advice}")
        refused = any(sign in text for sign in _REFUSED)
        if (
            not state
            and not refused
            and isinstance(error, self._psycopg.OperationalError | self._psycopg.InterfaceError)
        ):
            return Fault("transient", f"{self._shown}: {text}")
        return Fault("fatal", f"{self._shown}: {text}")

    def _open(self) -> Any:
        if self.connection is None:
            raise SinkError(f"the connection to {self._shown} is not open; call connect() first")
        return self.connection

    def _stage(self, kinds: dict[str, str]) -> str:
        """The temporary table for rows of these columns and types; it exists as long as the connection."""
        key = tuple(f'"{name}" {kind}' for name, kind in kinds.items())
        if key not in self._stages:
            name = f"stage_{len(self._stages)}"
            columns = ", ".join(key)
            self._open().execute(f"CREATE TEMPORARY TABLE {name} ({columns}, stage_row bigserial)")
            self._stages[key] = name
        return self._stages[key]


def _kind(target: Target, name: str, column: pa.Array) -> str:
    match target.encoding(name):
        case "vector":
            return f"vector({target.table.c[name].type.size})"  # type: ignore[attr-defined]
        case "strings":
            return "text[]"
        case "json":
            return "json"
        case "datetime":
            return "timestamp"
        case "bytes":
            return "bytea"
    kind = column.type
    if pa.types.is_integer(kind):
        return "bigint"
    if pa.types.is_floating(kind):
        return "double precision"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_null(kind) or column.null_count == len(column):
        return _declared(target, name)
    return "text"


def _declared(target: Target, name: str) -> str:
    """Type of a column of nulls: that of the table, because it cannot be inferred from the values."""
    from sqlalchemy.dialects.postgresql import dialect

    if name not in target.table.c:
        return "text"
    kind: str = target.table.c[name].type.compile(dialect())  # type: ignore[no-untyped-call]
    return kind


def _plain(column: pa.Array, kind: str) -> pa.Array:
    """The column in a type that Arrow writes as CSV readable by COPY."""
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.utf8())
    if kind.startswith("vector"):
        strings = [None if value is None else str(value).replace(" ", "") for value in column.to_pylist()]
        return pa.array(strings, pa.utf8())
    if kind == "text[]":
        return pa.array([None if value is None else _text_array(value) for value in column.to_pylist()], pa.utf8())
    if kind == "timestamp":
        return pc.cast(pc.cast(column, pa.timestamp("us")), pa.utf8())
    if kind == "bytea":
        values = column.to_pylist()
        if pa.types.is_list(column.type):
            values = [None if value is None else np.asarray(value, "<f4").tobytes() for value in values]
        return pa.array([None if value is None else "\\x" + value.hex() for value in values], pa.utf8())
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.utf8())
    if pa.types.is_float32(column.type):
        # Arrow writes the shortest decimal form of a float32, which would be read as a different double.
        return column.cast(pa.float64())
    return column


def _text_array(document: str) -> str:
    import orjson

    items = (str(item).replace("\\", "\\\\").replace('"', '\\"') for item in orjson.loads(document))
    return "{" + ",".join(f'"{item}"' for item in items) + "}"


def _csv(columns: dict[str, pa.Array], count: int) -> memoryview:
    if len(columns) == 1 and next(iter(columns.values())).null_count == count:
        return memoryview(b"\n" * count)
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    pv.write_csv(batch, sink, pv.WriteOptions(include_header=False, batch_size=16384))
    return memoryview(sink.getvalue())


def _last(column: str, kind: str) -> str:
    """The newest value of a group that is not null. An array is compared as text: the first of arrays is an element."""
    return f"{_LAST.format(f'{column}::text')}::{kind}" if kind.endswith("[]") else _LAST.format(column)


def _merge(target: Target, kinds: Mapping[str, str], stage: str, mode: Literal["all", "last", "fill"]) -> str:
    """INSERT ... SELECT from the temporary table: all rows, the last of each key, or merged rows of each key."""
    columns = {name: f'"{name}"' for name in kinds}
    keys = ", ".join(columns[name] for name in target.primary_key)
    chosen = ", ".join(columns.values())
    if mode == "fill":
        merged = (text if name in target.primary_key else _last(text, kinds[name]) for name, text in columns.items())
        source = f"SELECT {', '.join(merged)} FROM {stage} GROUP BY {keys}"  # noqa: S608 - names of our own
    elif mode == "last":
        newest = '"timestamp" DESC, ' if target.conflict == "latest" else ""
        source = f"SELECT DISTINCT ON ({keys}) {chosen} FROM {stage} ORDER BY {keys}, {newest}stage_row DESC"  # noqa: S608
    else:
        source = f"SELECT {chosen} FROM {stage}"  # noqa: S608
    return f'INSERT INTO "{target.table.name}" ({chosen}) {source} {target.on_conflict()}'
