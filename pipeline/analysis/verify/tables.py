"""The tables of a SQL database against those of a database that the same sink has filled anew, row by row.

Both are read in the order of the primary key, as streams, in one transaction that only reads.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import numpy as np
from sqlalchemy import Column, ColumnElement, Connection, Label, String, Table, and_, inspect, or_, select

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.engines import columns_there, driver_errors, engine_of, engine_over
from astrocyte.agents.sinks.sql.targets import registered_tables
from astrocyte.agents.sinks.sql.url import database_url, shown_address, sqlite_path
from astrocyte.pipeline.analysis.verify.bodies import changes
from astrocyte.pipeline.analysis.verify.excuses import Excuses
from astrocyte.pipeline.analysis.verify.outputs import SENT_AGAIN, WITHDRAWN, Span
from astrocyte.pipeline.analysis.verify.report import Difference, Kind, Place
from astrocyte.schemas.tables import Base
from astrocyte.schemas.topics import is_derived

__all__ = ["ReadDatabase", "compare_table", "compared_tables", "read_only"]

_OTHERS: Final = frozenset({"alembic_version", "sink_positions", "audit_log", "experiments"})
"""Tables that the sink of the role ``sql`` does not fill with events or results."""
_OWNED: Final[Mapping[str, frozenset[str]]] = {
    "simulations": frozenset({"experiment_id", "parameters", "results_summary", "simulation_db_path"}),
    "multi_events": frozenset({"status", "provisional"}),
    "alerts": frozenset({"status"}),
}
"""Columns that are not recomputed: programs set them beside the sink, or they say on which way a match became final."""
_OF_MATCHES: Final = {"multi_events": "event_id", "multi_event_sources": "event_id", "alerts": "multi_event_id"}
"""Tables about matches, with the column of their id."""
_WRITTEN: Final = frozenset({"recorded_at", "creation_date", "last_updated"})
"""Columns that say when a row was written."""
_PLACE: Final = ("source_topic", "source_partition", "source_offset")
_TIMES: Final = ("timestamp", "window_end")
"""Columns with the event time of a row."""
_BATCH: Final = 2_000

Row = dict[str, Any]


class ReadDatabase:
    """A database in a transaction that only reads, so that all tables are of one moment."""

    def __init__(self, connection: Connection, address: str) -> None:
        self.connection = connection
        self.name = shown_address(address)
        self.tables = frozenset(inspect(connection).get_table_names())
        self._c_order = connection.dialect.name != "sqlite"

    def positions(self, sink: str) -> dict[tuple[str, int], int]:
        """Next offset of every topic and partition that a sink has written; in one transaction with the rows."""
        if "sink_positions" not in self.tables:
            return {}
        table = Base.metadata.tables["sink_positions"]
        found = self.connection.execute(
            select(table.c.topic, table.c.partition_number, table.c.next_offset).where(table.c.sink == sink)
        )
        return {(topic, partition): following for topic, partition, following in found}

    def runs(self) -> set[str | None]:
        """Simulations that the database holds."""
        return set(self.connection.execute(select(Base.metadata.tables["simulations"].c.simulation_id)).scalars())

    def columns(self, table: Table) -> list[Column[Any] | Label[Any]]:
        """See `columns_there`."""
        return columns_there(self.connection, table)

    def withdrawn(self) -> frozenset[str]:
        """Ids of the matches that are no results: those of eventual rules that are provisional or retracted."""
        table = Base.metadata.tables["multi_events"]
        if table.name not in self.tables or not any(column is table.c.status for column in self.columns(table)):
            return frozenset()
        query = select(table.c.event_id).where(table.c.status.in_(("provisional", "retracted")))
        return frozenset(self.connection.execute(query).scalars())

    def rows(self, table: Table, span: Span) -> Iterator[Row]:
        """Rows of a table in the order of its primary key, of a span of event time if it has one."""
        keys = [self._ordered(column) for column in table.primary_key]
        query = select(*self.columns(table)).order_by(*keys)
        time = time_column(table)
        if time is not None:
            inside = [] if span.since_us is None else [time >= span.since_us]
            inside += [] if span.until_us is None else [time < span.until_us]
            query = query.where(or_(time.is_(None), and_(*inside))) if inside else query
        found = self.connection.execution_options(stream_results=True, yield_per=_BATCH).execute(query)
        for row in found.mappings():
            yield dict(row)

    def _ordered(self, column: Column[Any]) -> ColumnElement[Any]:
        return column.collate("C") if self._c_order and isinstance(column.type, String) else column


@contextmanager
def read_only(address: str) -> Iterator[ReadDatabase]:
    """A database for reading alone, which is never changed nor created. Raises SinkError."""
    url = database_url(address)
    with driver_errors(address, "cannot be read"):
        if url.get_backend_name() == "sqlite":
            path = sqlite_path(url)
            try:
                raw = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None)
            except sqlite3.OperationalError as error:
                raise SinkError(f"the database {path} cannot be opened for reading: {error}") from None
            try:
                raw.execute("BEGIN")
                with engine_over(raw, transactions=False).connect() as connection:
                    yield ReadDatabase(connection, address)
            finally:
                raw.close()
            return
        engine = engine_of(address).execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with engine.connect() as connection:
            yield ReadDatabase(connection, address)


def compared_tables(expected: ReadDatabase, found: ReadDatabase) -> list[Table]:
    """Tables that the role ``sql`` fills and that either database has."""
    tables = {table.name: table for table in chain(Base.metadata.sorted_tables, registered_tables())}
    return [
        table
        for name, table in tables.items()
        if name not in _OTHERS and (name in expected.tables or name in found.tables)
    ]


def time_column(table: Table) -> Column[Any] | None:
    """The column with the event time of a row, in microseconds."""
    return next((table.c[name] for name in _TIMES if name in table.c), None)


def compare_table(
    table: Table,
    expected: ReadDatabase,
    found: ReadDatabase,
    *,
    span: Span,
    show: int,
    excuses: Excuses,
    tell: Callable[[Difference], None] | None = None,
) -> Place:
    """Counts and differences of one table."""
    place = Place(f"sql {table.name}", tell=tell)
    key = [column.name for column in table.primary_key]
    time = time_column(table)
    name = None if time is None else time.name

    def time_of(row: Row) -> int | None:
        return None if name is None else row[name]

    def difference(kind: Kind, row: Row, **more: Any) -> Difference:
        identity = ", ".join(f"{column} {row[column]}" for column in key)
        return Difference(kind, place.name, identity, time_of(row), _about(row), f"table {table.name}", **more)

    theirs = found.rows(table, span) if table.name in found.tables else iter(())
    about = _OF_MATCHES.get(table.name)
    withdrawn = frozenset[str]() if about is None else found.withdrawn()
    for wanted, there in _merged(key, expected.rows(table, span), theirs):
        if there is not None and about is not None and there[about] in withdrawn:
            if wanted is None:
                place.notes[WITHDRAWN] += 1
                continue
            there = None if there.get("status") == "retracted" else there
        if there is None:
            assert wanted is not None
            place.expected += 1
            if (why := excuses.lost_row(table.name, wanted, time_of(wanted))) is not None:
                place.leave_out("lost", why)
            else:
                place.add(difference("lost", wanted), show)
        elif wanted is None:
            place.found += 1
            if (why := excuses.unexpected_row(table.name, there, time_of(there))) is not None:
                place.leave_out("unexpected", why)
            else:
                place.add(difference("unexpected", there), show)
        else:
            place.expected += 1
            place.found += 1
            owned = _OWNED.get(table.name, frozenset())
            one, other = _plain(wanted, owned), _plain(there, owned)
            if one == other:
                continue
            if one == _plain(excuses.retries.row_at_first(there), owned):
                place.notes[SENT_AGAIN] += 1
                continue
            if (why := excuses.wrong_row(table.name, wanted, time_of(wanted))) is not None:
                place.leave_out("wrong", why)
            else:
                place.add(difference("wrong", wanted, changes=tuple(changes(one, other))), show)
    return place


def _merged(key: Sequence[str], one: Iterator[Row], other: Iterator[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Rows of two streams in the order of their key, side by side."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        first = None if a is None else tuple(_sortable(a[name]) for name in key)
        second = None if b is None else tuple(_sortable(b[name]) for name in key)
        if second is None or (first is not None and first < second):
            yield a, None
            a = next(one, None)
        elif first is None or second < first:
            yield None, b
            b = next(other, None)
        else:
            yield a, b
            a, b = next(one, None), next(other, None)


def _sortable(value: Any) -> tuple[int, Any]:
    if isinstance(value, str):
        return (2, value.encode(errors="surrogatepass"))
    return (0, 0) if value is None else (1, value)


def _plain(row: Mapping[str, Any], owned: frozenset[str]) -> Row:
    """The values that are compared, the same from every database."""
    plain = {name: _value(value) for name, value in row.items() if name not in _WRITTEN and name not in owned}
    if "source_topic" in plain and (plain["source_topic"] is None or is_derived(str(plain["source_topic"]))):
        for name in _PLACE:  # frames of internal topics are cut by what was fetched together
            plain.pop(name)
    return plain


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value


def _about(row: Mapping[str, Any]) -> str:
    names = {"correlation_rule": "rule", "rule": "rule", "event_key": "key", "stage": "stage", "reason": "reason"}
    return " ".join(f"{label} {row[name]}" for name, label in names.items() if row.get(name) not in (None, ""))


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
