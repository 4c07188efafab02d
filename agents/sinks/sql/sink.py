"""The SQL sink: batches of frames and records as bulk upserts, one transaction per batch.

The transaction writes the rows, the simulations to which they belong, and the next offset of every partition read
(``sink_positions``): either all of a batch is stored, with its offsets, or nothing. Ids are deterministic and rows are
upserted, so writing a batch twice has no effect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np

from astrocyte.agents.sinks.base import RecordKind, Rejected, Sourced, SourcedFrame, SourcedRecords, highest_offsets
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.connection import SqlConnection, make_tables
from astrocyte.agents.sinks.sql.records import stage_records
from astrocyte.agents.sinks.sql.rows import Rows, concat_rows, from_mappings, parent_rows, stage_frame, stage_some
from astrocyte.agents.sinks.sql.runs import Runs
from astrocyte.agents.sinks.sql.targets import KIND_TARGETS, POSITIONS, TABLES, registered_tables
from astrocyte.agents.sinks.sql.windows import stage_window
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.topics import metrics_topic

__all__ = ["SqlSink"]


_KNOWN_AT_MOST: Final = 1_000_000


@dataclass(slots=True)
class _Batch:
    """Units (events of one stream, or records of one kind) and their rows; the unit is the granularity of refusals."""

    name: str
    tables: list[Rows]
    items: list[tuple[int, Sourced]]
    """First unit of each item, ascending."""
    units: int
    refused: dict[int, str] = field(default_factory=dict)

    def place_of(self, unit: int) -> tuple[Sourced, int]:
        """Item and row of a unit."""
        first, item = max((entry for entry in self.items if entry[0] <= unit), key=lambda entry: entry[0])
        return item, unit - first


@dataclass(slots=True)
class _Work:
    groups: list[_Batch]
    runs: list[Rows]
    positions: Rows


class SqlSink(SqlConnection):
    """Sink for SQLite and PostgreSQL; see `SqlConnection` for the arguments that it shares with `AuditSink`.

    ``experiment_id`` is the experiment of runs that no record assigns to one.
    """

    def __init__(
        self,
        url: str,
        *,
        now_us: Callable[[], int],
        name: str = "sql",
        experiment_id: str = "default",
        migrate: bool = True,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(url, now_us=now_us, name=name, migrate=migrate, retry=retry)
        self._runs = Runs(experiment_id, now_us)
        self._known: dict[str, set[tuple[Any, Any]]] = defaultdict(set)
        self._learnt: dict[str, set[tuple[Any, Any]]] = defaultdict(set)

    async def open(self) -> None:
        """Connect, upgrade the database to this version, and create registered tables that are missing."""
        await super().open()
        tables = registered_tables()
        if tables:
            await self.persist(lambda: make_tables(self.store, self.url, tables))

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Write a batch in one transaction; see `agents.sinks.base.Sink`."""
        work = await self.in_thread(lambda: self._stage(batch))
        refused = await self.persist(lambda: self._commit(work))
        return await self.in_thread(lambda: [_rejected(group, unit, why) for group, unit, why in refused])

    def _stage(self, batch: Sequence[Sourced]) -> _Work:
        now = self.now_us()
        frames: dict[str, list[SourcedFrame]] = defaultdict(list)
        records: dict[RecordKind, list[SourcedRecords]] = defaultdict(list)
        groups = []
        for item in batch:
            if isinstance(item, SourcedRecords):
                if item.kind in KIND_TARGETS:
                    records[item.kind].append(item)
            elif item.frame.num_rows and item.topic == metrics_topic(item.frame.stream):
                groups.append(_stage_windows(item, now))
            elif item.frame.num_rows and item.frame.stream in TABLES:
                frames[item.frame.stream].append(item)
        groups = [_stage_kind(kind, records[kind], now) for kind in _KIND_ORDER if kind in records] + groups
        groups += [_stage_stream(stream, items, now) for stream, items in _in_order(frames)]
        positions = [
            {"sink": self.name, "topic": topic, "partition_number": part, "next_offset": following, "recorded_at": now}
            for (topic, part), following in highest_offsets(batch).items()
        ]
        if not self.store.enforces:
            self._runs.forget()
        return _Work(groups, self._runs.rows(batch), from_mappings(POSITIONS, positions))

    def _commit(self, work: _Work) -> list[tuple[_Batch, int, str]]:
        """Write the batch. If the database rejects a row, write again with savepoints to find which.

        An open savepoint doubles SQLite's time, and rows that it would reject were already found by `find_problems`.
        """
        self.store.connect()
        try:
            refused = self._transact(work, self._write_at_once)
        except Exception as error:
            if self.store.fault_of(error).kind != "row":
                raise
            # A parent row assumed to be stored may have been deleted: write every parent again.
            self._known.clear()
            refused = self._transact(work, self._write_by_halves)
        self._runs.confirm()
        for name, keys in self._learnt.items():
            if len(self._known[name]) > _KNOWN_AT_MOST:
                self._known[name].clear()
            self._known[name] |= keys
        return refused

    def _transact(self, work: _Work, write: Callable[[_Batch, dict[int, str]], None]) -> list[tuple[_Batch, int, str]]:
        """The whole batch in one transaction; returns what was refused, by group and unit, with the reason."""
        store = self.store
        self._learnt.clear()
        refused: list[tuple[_Batch, int, str]] = []
        with store.transaction():
            for rows in work.runs:
                store.upsert(rows)
            for group in work.groups:
                found = dict(group.refused)
                write(group, found)
                refused += [(group, unit, why) for unit, why in sorted(found.items())]
            store.upsert(work.positions)
        return refused

    def _write_at_once(self, group: _Batch, _refused: dict[int, str]) -> None:
        for rows in group.tables:
            self._write_rows(rows)

    def _write_by_halves(self, group: _Batch, refused: dict[int, str]) -> None:
        """Halve batches that the database rejects until each rejected unit is alone; all others are written."""
        spans = [(0, group.units)]
        while spans:
            start, stop = spans.pop()
            try:
                with self.store.savepoint():
                    for rows in group.tables:
                        self._write_rows(rows.between(start, stop))
            except Exception as error:
                fault = self.store.fault_of(error)
                if fault.kind != "row":
                    raise
                # Parents written in the savepoint are rolled back too.
                self._learnt.clear()
                if stop - start == 1:
                    refused.setdefault(start, fault.reason)
                else:
                    middle = (start + stop) // 2
                    spans += [(middle, stop), (start, middle)]

    def _write_rows(self, rows: Rows) -> None:
        for parents in parent_rows(rows):
            self.store.upsert(self._unknown(parents))
        self.store.upsert(rows)

    def _unknown(self, parents: Rows) -> Rows:
        """The parents that are not known to be stored; all of them if the database does not check foreign keys."""
        target = parents.target
        if target.conflict != "ignore" or not self.store.enforces:
            return parents
        name = target.table.name
        key = next(column for column in target.primary_key if column != "simulation_id")
        pairs = list(zip(parents.columns[key].to_pylist(), parents.columns["simulation_id"].to_pylist(), strict=True))
        known, learnt = self._known[name], self._learnt[name]
        fresh = [row for row, pair in enumerate(pairs) if pair not in known and pair not in learnt]
        learnt.update(pairs[row] for row in fresh)
        return parents if len(fresh) == len(pairs) else parents.take(np.array(fresh, np.int64))


_KIND_ORDER: Final[tuple[RecordKind, ...]] = ("experiments", "simulations", "multi_events", "alerts", "dead_letters")
_FIRST_STREAMS: Final = ("agents", "agent_states", "kernel_geometry", "dna.snapshot_created")
"""Streams to which others refer: writing them first avoids placeholder rows."""


def _in_order(frames: Mapping[str, list[SourcedFrame]]) -> list[tuple[str, list[SourcedFrame]]]:
    first = [stream for stream in _FIRST_STREAMS if stream in frames]
    return [(stream, frames[stream]) for stream in [*first, *(name for name in frames if name not in first)]]


def _stage_stream(stream: str, items: Sequence[SourcedFrame], now: int) -> _Batch:
    target = TABLES.get(stream)
    parts: list[list[Rows]] = [[] for _ in range(1 + len(target.also))]
    placed, refused, unit = [], {}, 0
    for item in items:
        placed.append((unit, cast("Sourced", item)))
        try:
            staged = stage_frame(item.frame, target, now, unit)
            further = [stage_some(item.frame, also, now, unit) for also in target.also]
        except AstrocyteError as error:
            refused.update(dict.fromkeys(range(unit, unit + item.frame.num_rows), str(error)))
        else:
            for part, rows in zip(parts, (staged, *further), strict=True):
                part.append(rows)
        unit += item.frame.num_rows
    group = _group(stream, [concat_rows(part) for part in parts if part], placed, unit)
    group.refused |= refused
    return group


def _stage_kind(kind: RecordKind, items: Sequence[SourcedRecords], now: int) -> _Batch:
    """Records of one kind, all together: they come in many chunks of a few records."""
    placed: list[tuple[int, Sourced]] = []
    units = 0
    for item in items:
        placed.append((units, item))
        units += len(item.records)
    every = items[0].records if len(items) == 1 else [record for item in items for record in item.records]
    return _group(kind, stage_records(kind, every, now), placed, units)


def _stage_windows(item: SourcedFrame, now: int) -> _Batch:
    return _group(item.frame.stream, [stage_window(item.frame, now)], [(0, item)], item.frame.num_rows)


def _group(name: str, tables: list[Rows], items: list[tuple[int, Sourced]], units: int) -> _Batch:
    refused = {unit: reason for rows in tables for unit, reason in rows.bad.items()}
    return _Batch(name, [rows.without(refused) for rows in tables], items, units, refused)


def _rejected(group: _Batch, unit: int, reason: str) -> Rejected:
    item, row = group.place_of(unit)
    return item.rejected(row, reason)
