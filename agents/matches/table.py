"""Matches for users: a table of columns, and objects on demand.

A `MatchTable` holds the output of the matcher and the positions of its events. Ids, emitted values, confidence and
alert messages are computed for all matches of a rule at once, at their first use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import Located
from astrocyte.agents.ingest.dicts import column_of
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.matches.grouped import after_pause
from astrocyte.agents.matches.hops import inherited
from astrocyte.agents.matches.outputs import Columns, outputs_of
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.events import Severity
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import Ids, format_ids, match_ids

__all__ = ["CONFIRMED", "FINAL", "PROVISIONAL", "RETRACTED", "STATUSES", "FailedRow", "Match", "MatchAlert",
           "MatchTable", "MatchedEvent", "in_order"]  # fmt: skip

FINAL, PROVISIONAL, CONFIRMED, RETRACTED = 0, 1, 2, 3
STATUSES: Final = ("final", "provisional", "confirmed", "retracted")
"""Status of a match: final or, with `eventual` consistency, provisional and later confirmed or retracted."""
_IDS: Final = ("ids", "event_ids")
"""What is kept of a table, once computed, where a copy has the same matches."""


@dataclass(frozen=True, slots=True)
class MatchedEvent:
    """One event of a match. ``topic``, ``partition`` and ``offset`` are set for events read from Kafka."""

    id: str
    stream: str
    timestamp_us: int
    fields: Mapping[str, Any]
    """``key``, ``type`` and the event's own fields."""
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class MatchAlert:
    """Alert of one match: severity and message."""

    severity: Severity
    message: str
    suppressed: int = 0
    """Alerts of the rule and key that ``cool_down`` suppressed before it."""


@dataclass(frozen=True, slots=True)
class Match:
    """One match of one rule. The same events always give the same ``id``."""

    rule: str
    version: str
    id: str
    key: str | None
    time_us: int
    """Time of its last event; for an absence or a timeout, the time at which it was decided."""
    events: Mapping[str, tuple[MatchedEvent, ...]]
    """Events by step, oldest first; steps without events are omitted."""
    emit: Mapping[str, Any] = field(default_factory=dict)
    confidence: float = 1.0
    integrated_value: float | int | None = None
    alert: MatchAlert | None = None
    """None also where the rule's ``cool_down`` suppresses it, or its ``group`` raises one for several matches."""
    timed_out: bool = False
    """Its time limit passed before the pattern was complete."""
    status: str = "final"
    failure: str | None = None
    """Why its emitted values, or its alert, could not be computed: what raised. None if they were."""

    @property
    def provisional(self) -> bool:
        """Whether it may still be retracted."""
        return self.status == "provisional"


@dataclass(frozen=True, eq=False)
class MatchTable:
    """Matches of several rules, ordered by time, then rule and key.

    Events ``offsets[i]`` to ``offsets[i + 1]`` of ``step`` and ``events`` belong to match i. A table stays valid when
    the engine continues; it keeps the frames of its events in memory.
    """

    rules: tuple[Rule, ...]
    rule: NDArray[np.int32]
    """Index into ``rules``."""
    key: NDArray[Any]
    """Text of the correlation key, None for rules without one."""
    time_us: NDArray[np.int64]
    timed_out: NDArray[np.bool_]
    status: NDArray[np.int8]
    """FINAL, PROVISIONAL, CONFIRMED or RETRACTED."""
    offsets: NDArray[np.int64]
    step: NDArray[np.int16]
    """Index into the rule's ``positive``."""
    events: Located
    suppressed: NDArray[np.int32] | None = None
    """Alerts that were suppressed before that of each match; -1: it raises none. None: as the rules say."""

    def __len__(self) -> int:
        return len(self.rule)

    @classmethod
    def empty(cls, rules: tuple[Rule, ...] = ()) -> MatchTable:
        """No matches."""
        nothing = np.empty(0, np.int64)
        return cls(
            rules, nothing.astype(np.int32), np.empty(0, object), nothing, nothing.astype(np.bool_),
            nothing.astype(np.int8), np.zeros(1, np.int64), nothing.astype(np.int16), Located((), nothing, nothing),
        )  # fmt: skip

    @classmethod
    def concat(cls, tables: Sequence[MatchTable]) -> MatchTable:
        """Concatenation of tables of one engine."""
        tables = [table for table in tables if len(table)] or list(tables[:1])
        if len(tables) == 1:
            return tables[0]
        blocks = tuple(block for table in tables for block in table.events.blocks)
        shifts = np.cumsum([0, *(len(table.events.blocks) for table in tables[:-1])])
        ends = np.cumsum([0, *(len(table.step) for table in tables[:-1])])
        return cls(
            tables[0].rules,
            np.concatenate([table.rule for table in tables]),
            np.concatenate([table.key for table in tables]),
            np.concatenate([table.time_us for table in tables]),
            np.concatenate([table.timed_out for table in tables]),
            np.concatenate([table.status for table in tables]),
            np.concatenate([[0], *(table.offsets[1:] + end for table, end in zip(tables, ends, strict=True))]),
            np.concatenate([table.step for table in tables]),
            Located(
                blocks,
                np.concatenate([table.events.block + shift for table, shift in zip(tables, shifts, strict=True)]),
                np.concatenate([table.events.row for table in tables]),
            ),
            None
            if all(table.suppressed is None for table in tables)
            else np.concatenate([np.zeros(len(t), np.int32) if t.suppressed is None else t.suppressed for t in tables]),
        )

    def take(self, order: NDArray[np.integer]) -> MatchTable:
        """Matches in the given order."""
        sizes = np.diff(self.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        picked = np.repeat(self.offsets[:-1][order] - offsets[:-1], sizes) + np.arange(offsets[-1])
        table = MatchTable(
            self.rules, self.rule[order], self.key[order], self.time_us[order], self.timed_out[order],
            self.status[order], offsets, self.step[picked], self.events.take(picked),
            None if self.suppressed is None else self.suppressed[order],
        )  # fmt: skip
        if "ids" in self.__dict__:
            table.__dict__["ids"] = self.ids[order]
        return table

    def with_status(self, status: int | NDArray[np.integer]) -> MatchTable:
        """The same matches with another status."""
        changed = np.full(len(self), status, np.int8) if isinstance(status, int) else status.astype(np.int8)
        return self._with(status=changed)

    def with_suppressed(self, suppressed: NDArray[np.int32]) -> MatchTable:
        """The same matches, of which some raise no alert; see ``suppressed``."""
        table = self._with(suppressed=suppressed)
        if "values" in self.__dict__:
            table.__dict__["values"] = self.values.with_suppressed(suppressed)
        return table

    def joined(self) -> MatchTable:
        """The same matches with their events in few blocks (`Located.joined`)."""
        events = self.events.joined()
        if events is self.events:
            return self
        table = replace(self, events=events)
        table.__dict__.update({name: self.__dict__[name] for name in (*_IDS, "values") if name in self.__dict__})
        return table

    def _with(self, **changed: NDArray[Any]) -> MatchTable:
        """The same matches with other columns, and the ids that are computed already."""
        table = replace(self, **changed)  # type: ignore[arg-type]
        table.__dict__.update({name: self.__dict__[name] for name in _IDS if name in self.__dict__})
        return table

    # -- ids ---------------------------------------------------------------------------------------------------------

    @cached_property
    def event_ids(self) -> Ids:
        """Ids of the events."""
        return self.events.ids()

    @cached_property
    def ids(self) -> Ids:
        """Ids of the matches: functions of rule, version, steps, events, and whether the match timed out."""
        ids = np.empty((len(self), 2), np.uint64)
        for index, chosen in self.by_rule():
            rule = self.rules[index]
            for timed_out in (False, True):
                mine = chosen[self.timed_out[chosen] == timed_out]
                if not len(mine):
                    continue
                version = f"{rule.content_version}:timeout" if timed_out else rule.content_version
                if len(mine) == len(self):
                    return match_ids(rule.name, version, self.event_ids, self.step, self.offsets)
                part = self.take(mine)
                ids[mine] = match_ids(rule.name, version, part.events.ids(), part.step, part.offsets)
        return ids

    def event_id_strings(self) -> list[str]:
        """Ids of the events as text: those that producers set, else UUIDs."""
        strings = np.empty(len(self.events), object)
        for block, positions, rows in self.events.parts():
            strings[positions] = block.frame.id_strings(rows)
        found: list[str] = strings.tolist()
        return found

    def first_runs(self) -> list[str]:
        """Run of each match's first event; empty for events of other programs, which have no run."""
        runs = np.empty(len(self.events), object)
        for block, positions, _ in self.events.parts():
            runs[positions] = block.frame.run
        found: list[str] = runs[self.offsets[:-1]].tolist()
        return found

    # -- values ------------------------------------------------------------------------------------------------------

    def by_rule(self) -> list[tuple[int, NDArray[np.int64]]]:
        """(index of the rule, its matches) in order of the rules."""
        if not len(self):
            return []
        if (self.rule == self.rule[0]).all():
            return [(int(self.rule[0]), np.arange(len(self)))]
        order = np.argsort(self.rule, kind="stable")
        found, starts = np.unique(self.rule[order], return_index=True)
        return list(zip(found.tolist(), np.split(order, starts[1:]), strict=True))

    @cached_property
    def values(self) -> Outputs:
        """Emitted values, confidence, integrated values and alerts of all matches."""
        values = Outputs(len(self))
        for index, chosen in self.by_rule():
            for timed_out in (False, True):
                mine = chosen[self.timed_out[chosen] == timed_out]
                if len(mine):
                    self._fill(values, self.rules[index], mine, timed_out=timed_out)
        return values if self.suppressed is None else values.with_suppressed(self.suppressed)

    def _fill(self, values: Outputs, rule: Rule, mine: NDArray[np.int64], *, timed_out: bool) -> None:
        """Compute the values of one rule's matches; a match whose expressions raise is noted as failed, alone."""

        def compute(first: int, last: int, *, alerts: bool = True) -> None:
            chosen = mine[first:last]
            part = self if len(chosen) == len(self) else self.take(chosen)
            columns = Columns(rule.positive, part.offsets, part.step, part.events)
            values.put(chosen, outputs_of(rule, columns, timed_out=timed_out, alerts=alerts))

        def refuse(at: int, error: Exception) -> None:
            failed: FailedStage = "alert"
            reason = reason_of(f"the alert of rule {rule.name!r}", error)
            try:
                compute(at, at + 1, alerts=False)
            except Exception as cause:  # noqa: BLE001  an expression of the rule, evaluated on values of any kind
                failed, reason = "emit", reason_of(f"emit of rule {rule.name!r}", cause)
            values.failed[int(mine[at])] = (failed, reason)

        apart(len(mine), compute, refuse)

    def frames_of(self, name: str, carriers: Collection[str] = ()) -> tuple[list[Frame], list[FailedRow]]:
        """`frame_of`, in several frames where some match raises; such matches are returned apart.

        Matches without emitted values, because these raised, are in neither: `Outputs.failed` has them.
        """
        frames: list[Frame] = []
        failed: list[FailedRow] = []

        def attempt(first: int, last: int) -> None:
            part = self if last - first == len(self) else self.take(np.arange(first, last))
            frame = part.frame_of(name, carriers=carriers)
            frames.extend([] if frame is None else [frame])

        def refuse(at: int, error: Exception) -> None:
            failed.append(FailedRow(self.take(np.array([at])), reason_of(f"matches of rule {name!r} as events", error)))

        apart(len(self), attempt, refuse)
        return frames, failed

    def frame_of(self, name: str, run: str = "", *, carriers: Collection[str] = ()) -> Frame | None:
        """Matches of the rule ``name`` as events of a stream of that name; None if there are none.

        Fields are the rule's emitted values, ``confidence`` and ``timed_out``; ``event_id`` is the match's id. A rule
        that reads one of the ``carriers``, streams whose events came through junctions, hands their fields on.
        """
        index = next((index for index, rule in enumerate(self.rules) if rule.name == name), -1)
        mine = np.flatnonzero((self.rule == index) & (self.status != RETRACTED))
        if len(mine) and self.values.failed:
            mine = mine[[not self.values.is_lost(each) for each in mine.tolist()]]
        if not len(mine):
            return None
        part, rule = self.take(mine), self.rules[index]
        names = list(dict.fromkeys([*rule.emit, *(rule.on_timeout.emit if rule.on_timeout else ())]))
        emitted = part.values.emit
        columns: dict[str, Any] = {
            "timestamp": part.time_us,
            "key": pa.array(part.key, pa.utf8()).dictionary_encode().cast(TEXT),
            "type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(part), np.int32)), pa.array([name])),
        }
        if rule.by not in (None, "key", "type", "timestamp", "simulation_id"):
            columns[str(rule.by)] = columns["key"]
        columns |= {
            each: column_of(name, each, [values.get(each) for values in emitted])
            for each in names
            if each not in columns
        }
        columns["confidence"] = part.values.confidence
        columns["timed_out"] = part.timed_out
        if not set(rule.streams).isdisjoint(carriers):
            columns |= inherited(part.events, part.offsets, carriers)
        columns["event_id"] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(part), [None, pa.py_buffer(part.ids.astype(">u8").tobytes())]
        )
        return Frame.from_columns(name, run, {each: _typed(column) for each, column in columns.items()})

    # -- objects -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches())

    def matches(self) -> list[Match]:
        """All matches as objects."""
        events = self._events()
        ids = format_ids(self.ids)
        emitted, confidence = self.values.emit, self.values.confidence.tolist()
        times, rules = self.time_us.tolist(), self.rule.tolist()
        bounds, steps = self.offsets.tolist(), self.step.tolist()
        found = []
        for i, index in enumerate(rules):
            rule = self.rules[index]
            by_step: dict[str, tuple[MatchedEvent, ...]] = {}
            for at in range(bounds[i], bounds[i + 1]):
                name = rule.positive[steps[at]]
                by_step[name] = (*by_step.get(name, ()), events[at])
            alert = self.values.alert[i]
            found.append(
                Match(
                    rule=rule.name, version=rule.content_version, id=ids[i], key=self.key[i], time_us=times[i],
                    events=by_step, emit=emitted[i], confidence=confidence[i],
                    integrated_value=self.values.integrated[i],
                    alert=None if alert is None else MatchAlert(*alert, suppressed=self.suppressed_before(i)),
                    timed_out=bool(self.timed_out[i]), status=STATUSES[self.status[i]],
                    failure=self.values.failed[i][1] if i in self.values.failed else None,
                )
            )  # fmt: skip
        return found

    def suppressed_before(self, i: int) -> int:
        """Alerts that were suppressed before that of match i."""
        return 0 if self.suppressed is None else max(int(self.suppressed[i]), 0)

    def _events(self) -> list[MatchedEvent]:
        found: list[Any] = [None] * len(self.events)
        for block, positions, rows in self.events.parts():
            frame = block.frame.take(rows)
            ids, origin = block.frame.id_strings(rows), block.origin
            fields = frame.event_fields()
            times = [each.pop("timestamp") for each in fields]
            for place, row in enumerate(positions.tolist()):
                found[row] = MatchedEvent(
                    ids[place], frame.stream, times[place], fields[place],
                    *(() if origin is None else (origin.topic, origin.partition, origin.offset_of(int(rows[place])))),
                )  # fmt: skip
        return found


FailedStage = Literal["emit", "alert"]


@dataclass(frozen=True, slots=True, eq=False)
class FailedRow:
    """One result that raised where other rules read it: a row of a frame, or a match; and the reason."""

    result: Frame | MatchTable
    reason: str


class Outputs:
    """Output values, one entry per match; filled rule by rule."""

    def __init__(self, count: int) -> None:
        self.emit: list[Mapping[str, Any]] = [{}] * count
        self.confidence = np.ones(count)
        self.integrated: list[float | int | None] = [None] * count
        self.alert: list[tuple[Severity, str] | None] = [None] * count
        self.failed: dict[int, tuple[FailedStage, str]] = {}
        """Matches whose emitted values, or alert, raised: what could not be computed, and the reason."""

    def is_lost(self, place: int) -> bool:
        """Whether a match has no emitted values, because these raised."""
        failed = self.failed.get(place)
        return failed is not None and failed[0] == "emit"

    def with_suppressed(self, suppressed: NDArray[np.int32]) -> Outputs:
        """The same without the alerts marked by -1; the others name how many were suppressed before them."""
        alert = list(self.alert)
        for place in np.flatnonzero(suppressed).tolist():
            own = alert[place]
            if own is not None:
                count = int(suppressed[place])
                alert[place] = None if count < 0 else (own[0], after_pause(own[1], count))
        changed = copy(self)
        changed.alert = alert
        return changed

    def put(self, places: NDArray[np.integer], values: Mapping[str, Any]) -> None:
        """Set the values (columns of `agents.matches.outputs.outputs_of`) of the matches at ``places``."""
        self.confidence[places] = values["confidence"]
        for place, emit, integrated, alert in zip(
            places.tolist(), values["emit"], values["integrated"], values["alert"], strict=True
        ):
            self.emit[place], self.integrated[place], self.alert[place] = emit, integrated, alert


def _typed(column: Any) -> Any:
    return column.cast(pa.float64()) if isinstance(column, pa.Array) and pa.types.is_null(column.type) else column


def in_order(table: MatchTable) -> NDArray[np.int64]:
    """Order of matches by time, then rule, then key; matches of one key keep their order."""
    order = np.lexsort((table.rule, table.time_us))
    time, rule = table.time_us[order], table.rule[order]
    same = (time[1:] == time[:-1]) & (rule[1:] == rule[:-1])
    if same.any():
        keys = np.array([key or "" for key in table.key.tolist()], dtype=object)[order]
        same &= keys[1:] != keys[:-1]
        if same.any():
            pairs = (time[1:] == time[:-1]) & (rule[1:] == rule[:-1])
            tied = np.append(pairs, False) | np.append(False, pairs)
            places = np.flatnonzero(tied)
            # As objects: NumPy's own strings drop NULs at their end, and two keys would count as one.
            rank = np.unique(keys[places], return_inverse=True)[1]
            within = np.lexsort((rank, rule[places], time[places]))
            order[places] = order[places][within]
    return np.asarray(order)
