"""What stores should hold: the outputs of ``match`` over the recorded log, written by sinks that nothing disturbs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from astrocyte.agents.domain import DomainOutput
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import Rejected, Sink, Sourced
from astrocyte.agents.sinks.influx.points import PointRules, points_of
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.roles.output_records import producer_records
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.topology.plan import contracts_of
from astrocyte.pipeline.topology.topics import sink_topics
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.tables import Base
from astrocyte.schemas.topics import is_derived
from tests.support.line_protocol import read_points
from tests.support.stored import Messages, by_place, store_messages

__all__ = ["expected_points", "expected_rows", "messages_for_sinks", "rows_of"]

_NOT_COMPARED = {"recorded_at", "creation_date", "source_topic", "source_partition", "source_offset"}
"""Columns of rows: when they were written, and places in internal topics, which depend on how frames were cut."""

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
"""By table: rows by their primary key."""
Points = dict[Any, dict[str, Any]]
"""Fields of each point by its identity in InfluxDB."""


def messages_for_sinks(log: Path, made: Iterable[DomainOutput], partitions: int) -> Messages:
    """What sinks read, by topic and partition: the events of the log, and the outputs that were made of them."""
    messages = by_place(each for each in read_log(log) if not is_derived(each.topic))
    for out in made:
        for place, records in producer_records(out, 0, partitions).items():
            kept = messages.setdefault(place, [])
            kept += [
                RawRecord(len(kept) + number, 0, each.key, each.value, tuple(each.headers))
                for number, each in enumerate(records)
            ]
    return messages


class _Points:
    """A sink that keeps points as InfluxDB does."""

    name = "influx"

    def __init__(self, rules: PointRules) -> None:
        self.points: Points = {}
        self._rules = rules

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        found = points_of(batch, self._rules)
        for each in found.points:
            for point in read_points(each.lines.payload()):
                self.points.setdefault(point.identity, {}).update(point.fields)
        return found.refused


async def _write(sink: Sink, role: str, settings: Settings, ruleset: RuleSet, messages: Messages) -> None:
    topics = sink_topics(settings, SINKS.get(role), contracts_of(ruleset), ruleset.windows)
    wanted = {place: records for place, records in messages.items() if place[0] in topics}
    await store_messages(sink, role, ruleset, wanted, partitions=settings.partitions)


def expected_rows(settings: Settings, ruleset: RuleSet, messages: Messages, database: Path) -> Rows:
    """Rows of a new SQLite file into which the messages are written once."""
    address = f"sqlite:///{database}"
    asyncio.run(_write(SqlSink(address, now_us=lambda: 1), "sql", settings, ruleset, messages))
    return rows_of(address)


def expected_points(settings: Settings, ruleset: RuleSet, messages: Messages) -> Points:
    """Points of the messages."""
    sink = _Points(PointRules(settings.influx_cell_tags, settings.influx_run_tag))
    asyncio.run(_write(sink, "influx", settings, ruleset, messages))
    return sink.points


def rows_of(address: str) -> Rows:
    """Rows of all tables, without what depends on when and how they were written."""
    found: Rows = {}
    engine = engine_of(address)
    try:
        with engine.connect() as connection:
            for name, table in Base.metadata.tables.items():
                if name in ("sink_positions", "alembic_version"):
                    continue
                rows = [dict(row) for row in connection.execute(select(table)).mappings()]
                keys = [column.name for column in table.primary_key]
                found[name] = {
                    tuple(row[key] for key in keys): {
                        column: value for column, value in row.items() if column not in _NOT_COMPARED
                    }
                    for row in rows
                }
    finally:
        engine.dispose()
    return found
