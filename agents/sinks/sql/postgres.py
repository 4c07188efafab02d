"""Bulk upserts into PostgreSQL, on psycopg: COPY, and where rows are there already, COPY and merge.

Arrow writes the CSV that COPY reads, so no value passes through Python. New rows are copied straight into the table,
which costs half of a merge; a collision undoes that and merges from a temporary table. A batch that names a row twice
(PostgreSQL refuses to update it twice in one statement) is merged with one row for each key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
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

__all__ = ["PostgresStore"]

_TRANSIENT_CLASSES: Final = ("08", "40", "53", "55", "57", "58")
"""Connections, rollbacks by the server, resources (a full disk), locks, intervention, the system itself."""
_ROW_CLASSES: Final = ("22", "23")
_MERGES_AFTER_COLLISION: Final = 16
_LAST: Final = "(array_agg({0} ORDER BY stage_row DESC) FILTER (WHERE {0} IS NOT NULL))[1]"
"""The last value of a group that is not null."""
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
        self._shown = url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection: Any = None
        self._stages: dict[tuple[str, ...], str] = {}
        self._collided: dict[str, int] = {}
        self._savepoints = itertools.count()

    def connect(self) -> None:
        """Connect; statements run until they are done, but a lost server is noticed."""
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
        """A transaction of the server."""
        with self._stages_as_before(), self._open().transaction():
            yield

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A savepoint: psycopg makes one of a transaction in a transaction."""
        with self._stages_as_before(), self._open().transaction(savepoint_name=f"s{next(self._savepoints)}"):
            yield

    @contextmanager
    def _stages_as_before(self) -> Iterator[None]:
        """Forget the temporary tables made inside where they are rolled back."""
        before = dict(self._stages)
        try:
            yield
        except BaseException:
            self._stages = before
            raise

    def upsert(self, rows: Rows) -> None:
        """COPY the rows straight into the table; where a row is there already, merge from a temporary table.

        After a collision (a replay, most likely) the next batches for the table are merged at once.
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
        """Wait until no other transaction holds the lock ``name``; held to the end of this one."""
        self._open().execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"astrocyte.{name}",))

    def _copy(self, into: str, text: memoryview) -> None:
        with self._open().cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN (FORMAT csv)") as copy:
            for start in range(0, len(text), _COPY_BYTES):
                copy.write(text[start : start + _COPY_BYTES])

    def fault_of(self, error: Exception) -> Fault:
        """By the server's SQLSTATE; an error without one is a lost connection."""
        if isinstance(error, SinkError):
            return Fault("fatal", str(error))
        state = getattr(error, "sqlstate", None) or ""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if state[:2] in _ROW_CLASSES:
            return Fault("row", f"PostgreSQL refuses the row: {text}")
        if isinstance(error, self._psycopg.DataError | self._psycopg.IntegrityError | UnicodeError | OverflowError):
            return Fault("row", f"the row cannot be handed to PostgreSQL: {text}")
        if state[:2] in _TRANSIENT_CLASSES:
            return Fault("transient", f"{self._shown}: {text} ({state})")
        refused = any(sign in text for sign in ("authentication failed", "does not exist", "no pg_hba.conf entry"))
        if (
            not state
            and not refused
            and isinstance(error, self._psycopg.OperationalError | self._psycopg.InterfaceError)
        ):
            return Fault("transient", f"{self._shown}: {text}")
        return Fault("fatal", f"{self._shown}: {text}")

    def _open(self) -> Any:
        if self.connection is None:
            raise SinkError(f"the store of {self._shown} was used before it was opened; call open() first")
        return self.connection

    def _stage(self, kinds: dict[str, str]) -> str:
        """The temporary table for rows of these columns and types; it lives as long as the connection."""
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
    """Type of a column of nulls: that of the table, so that a merge need not guess."""
    from sqlalchemy.dialects.postgresql import dialect

    if name not in target.table.c:
        return "text"
    kind: str = target.table.c[name].type.compile(dialect())  # type: ignore[no-untyped-call]
    return kind


def _plain(column: pa.Array, kind: str) -> pa.Array:
    """The column in types of which Arrow writes CSV that COPY reads."""
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
        # As text, a float32 is its shortest form and would be read as another double.
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


def _merge(target: Target, names: Iterable[str], stage: str, mode: Literal["all", "last", "fill"]) -> str:
    """INSERT ... SELECT from the stage: all rows, the last of each key, or the rows of each key merged."""
    columns = {name: f'"{name}"' for name in names}
    keys = ", ".join(columns[name] for name in target.primary_key)
    chosen = ", ".join(columns.values())
    if mode == "fill":
        merged = (text if name in target.primary_key else _LAST.format(text) for name, text in columns.items())
        source = f"SELECT {', '.join(merged)} FROM {stage} GROUP BY {keys}"  # noqa: S608 - names of our own
    elif mode == "last":
        newest = '"timestamp" DESC, ' if target.conflict == "latest" else ""
        source = f"SELECT DISTINCT ON ({keys}) {chosen} FROM {stage} ORDER BY {keys}, {newest}stage_row DESC"  # noqa: S608
    else:
        source = f"SELECT {chosen} FROM {stage}"  # noqa: S608
    return f'INSERT INTO "{target.table.name}" ({chosen}) {source} {target.on_conflict()}'
