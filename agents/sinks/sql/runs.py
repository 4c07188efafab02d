"""Rows of ``simulations`` (and of their experiment): inserted when a run is first read, updated when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from astrocyte.agents.sinks.base import Sourced, SourcedRecords
from astrocyte.agents.sinks.sql.rows import Rows, from_mappings, simulation_ids
from astrocyte.agents.sinks.sql.targets import EXPERIMENTS, SIMULATIONS
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import CEILING_US, are_event_times, utc_from_us

__all__ = ["Runs"]


@dataclass(slots=True)
class _Span:
    start_us: int | None = None
    end_us: int | None = None
    ended: bool = False

    def widen(self, start_us: int | None, end_us: int | None, ended: bool) -> None:
        starts = [time for time in (self.start_us, start_us) if time is not None]
        ends = [time for time in (self.end_us, end_us) if time is not None]
        self.start_us = min(starts, default=None)
        self.end_us = max(ends, default=None)
        self.ended = self.ended or ended

    def written(self) -> tuple[int | None, int | None, bool]:
        """(start, end, ended) as stored; the end is None until the run has ended."""
        return self.start_us, self.end_us if self.ended else None, self.ended


@dataclass(slots=True)
class Runs:
    """Simulations read so far, so that the row of a run is written only when it changes."""

    experiment_id: str
    now_us: Callable[[], int]
    _confirmed: dict[str, tuple[int | None, int | None, bool]] = field(default_factory=dict)
    _pending: dict[str, tuple[int | None, int | None, bool]] = field(default_factory=dict)

    def rows(self, batch: Sequence[Sourced]) -> list[Rows]:
        """Rows of ``experiments`` and ``simulations`` for the batch; call `confirm` when they are written."""
        spans: dict[str, _Span] = {}
        for item in batch:
            for name, start_us, end_us, ended in _seen(item):
                spans.setdefault(name, _Span()).widen(start_us, end_us, ended)
        self._pending = {name: span.written() for name, span in spans.items() if self._has_changed(name, span)}
        experiments = _experiments_named(batch) | ({self.experiment_id} if self._pending else set())
        if not experiments:
            return []
        simulations = [
            {
                "simulation_id": name,
                "experiment_id": self.experiment_id,
                "start_time": start_us,
                "end_time": end_us,
                "status": "completed" if ended else "running",
            }
            for name, (start_us, end_us, ended) in self._pending.items()
        ]
        parents = [
            {
                "experiment_id": name,
                "name": name,
                "creation_date": utc_from_us(self.now_us()),
                "status": "active",
            }
            for name in sorted(experiments)
        ]
        made = [from_mappings(EXPERIMENTS, parents)]
        if simulations:
            made.append(from_mappings(SIMULATIONS, simulations))
        # A run whose id cannot be stored has no row; its events are refused by the same check.
        return [rows.without(rows.bad) for rows in made]

    def confirm(self) -> None:
        """Record that the rows of the last call are stored."""
        self._confirmed |= self._pending
        self._pending = {}

    def forget(self) -> None:
        """Write every run's row again when it is next read, in case another program deleted it."""
        self._confirmed.clear()

    def _has_changed(self, name: str, span: _Span) -> bool:
        known = self._confirmed.get(name)
        if known is None:
            return True
        start_us, end_us, ended = span.written()
        earlier = start_us is not None and (known[0] is None or start_us < known[0])
        later = end_us is not None and (known[1] is None or end_us > known[1])
        return earlier or later or (ended and not known[2])


def _experiments_named(batch: Sequence[Sourced]) -> set[str]:
    """Experiments that records of simulations name; such a record may arrive before the experiment's own."""
    records = [
        record
        for item in batch
        if isinstance(item, SourcedRecords) and item.kind == "simulations"
        for record in item.records
        if isinstance(record, dict)
    ]
    return {name for record in records if isinstance(name := record.get("experiment_id"), str)}


Seen = tuple[str, int | None, int | None, bool]


def _seen(item: Sourced) -> Iterator[Seen]:
    """Simulations of one item, each with earliest and latest event time and whether the run ended."""
    if isinstance(item, SourcedRecords):
        if item.kind != "simulations":
            names: set[Any] = {record.get("simulation_id") for record in item.records if isinstance(record, dict)}
            for name in sorted(name for name in names if isinstance(name, str)):
                yield name, None, None, False
        return
    yield from _seen_in_frame(item.frame)


def _seen_in_frame(frame: Frame) -> Iterator[Seen]:
    # A run ends with its last frames. Later times in the batch, such as the ends of windows, are not of its events, and
    # what is read together is not the same after a restart.
    mark = frame.watermark_us if frame.end else None
    mark = mark if mark is not None and 0 <= mark < CEILING_US else None
    if not frame.num_rows:
        if frame.run:
            yield frame.run, None, mark, frame.end
        return
    ids = simulation_ids(frame)
    times = frame.timestamps()
    possible = are_event_times(times)  # other times are refused, and a date column cannot hold them
    used = pc.unique(ids.indices).to_pylist()
    codes = ids.indices.to_numpy() if len(used) > 1 else None
    for code in used:
        own = times[possible] if codes is None else times[possible & (codes == code)]
        first, last = (int(own.min()), int(own.max())) if len(own) else (None, None)
        ends = [time for time in (last, mark) if time is not None] if frame.end else []
        yield ids.dictionary[code].as_py(), first, max(ends, default=None), frame.end
