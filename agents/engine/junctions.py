"""What junctions make of the matches of one engine, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.matches.hops import hops_of
from astrocyte.agents.rules.graph.links import MATCHES, junction_sources
from astrocyte.agents.rules.junctions import HOPS, LED_FROM, STRENGTH, Junction
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import CEILING_US
from astrocyte.schemas.values.mixed import concat_columns, key_column

__all__ = ["Junctions", "Led"]


@dataclass(frozen=True, slots=True)
class Led:
    """Events of a junction that one step made, in order of time, and the number of the first of them."""

    junction: Junction
    frame: Frame
    first: int


class Junctions:
    """The junctions of a rule set whose rules run in this engine, and what they made since the last `take`.

    The events of a junction are numbered. Like the matches of which they are made, the numbers do not depend on how the
    input was divided: a step gives all matches of whole instants, and they are numbered in order of time, rule and key.
    """

    def __init__(self, carriers: Collection[str] = ()) -> None:
        self._elsewhere = frozenset(carriers)
        self.carriers: frozenset[str] = self._elsewhere
        """Streams whose events may have come through a junction."""
        self.names: tuple[str, ...] = ()
        """Streams of the junctions that lead out of this engine or into it."""
        self.rules: frozenset[str] = frozenset()
        """Rules whose matches are led on."""
        self.counts: dict[str, Counter[str]] = {}
        """By junction: what became of the matches of its rules since the start."""
        self._numbers: dict[str, int] = {}
        self._made: dict[str, list[tuple[int, Frame]]] = {}
        self._own: tuple[tuple[Junction, tuple[str, ...]], ...] = ()

    def update(self, ruleset: RuleSet) -> None:
        """Put the junctions of a rule set in force. Numbers go on, also those of a junction that was away."""
        led = junction_sources(ruleset)
        self.names = tuple(each.name for each in ruleset.junctions)
        self._own = tuple((each, led[each.name]) for each in ruleset.junctions if each.name in led)
        self.rules = frozenset(rule for _, rules in self._own for rule in rules)
        carriers = {*self._elsewhere, *self.names}
        rules = [*ruleset.rules]
        while found := [rule for rule in rules if rule.name not in carriers and not carriers.isdisjoint(rule.streams)]:
            carriers |= {rule.name for rule in found}
        self.carriers = frozenset(carriers)
        for each, _ in self._own:
            self.counts.setdefault(each.name, Counter(dict.fromkeys(MATCHES, 0)))

    @property
    def foreign(self) -> frozenset[str]:
        """Streams of the junctions that lead into this engine from others."""
        return frozenset(self.names) - {junction.name for junction in self.own}

    @property
    def own(self) -> tuple[Junction, ...]:
        """The junctions that lead out of this engine."""
        return tuple(junction for junction, _ in self._own)

    def lead(self, rule: str, frames: Sequence[Frame]) -> list[Frame]:
        """The events that junctions make of matches of a rule (`MatchTable.frame_of`), kept for `take` as well."""
        found = []
        for junction, rules in self._own:
            for frame in frames if rule in rules else ():
                made = self._led(junction, frame)
                if made.num_rows:
                    self._made.setdefault(junction.name, []).append((rules.index(rule), made))
                    found.append(made)
        return found

    def take(self) -> list[Led]:
        """What was made since the last call: of each junction one frame."""
        made, self._made = self._made, {}
        taken = []
        for junction in self.own if made else ():
            parts = made.get(junction.name)
            if parts:
                frame, first = _ordered(parts), self._numbers.get(junction.name, 0)
                self._numbers[junction.name] = first + frame.num_rows
                taken.append(Led(junction, frame, first))
        return taken

    def renumber(self, first: int) -> None:
        """Number the events of all junctions from here on, where it is not known which numbers came before."""
        self._numbers = {junction.name: first for junction in self.own}

    def snapshot(self) -> bytes:
        """The numbers and counts."""
        return orjson.dumps({"numbers": self._numbers, "counts": self.counts})

    def restore(self, snapshot: Any | None) -> None:
        """Restore the state of `snapshot`; versions before junctions have none."""
        state = {"numbers": {}, "counts": {}} if snapshot is None else orjson.loads(bytes(snapshot))
        self._numbers = state["numbers"]
        self.counts |= {name: Counter(counts) for name, counts in state["counts"].items()}

    def _led(self, junction: Junction, frame: Frame) -> Frame:
        hops, strength = hops_of(frame)
        confidence = np.nan_to_num(frame.column("confidence").to_numpy(zero_copy_only=False), nan=0.0)
        hops, strength = hops + 1, strength * junction.damping * np.clip(confidence, 0.0, 1.0)
        columns = dict(zip(frame.batch.schema.names, frame.batch.columns, strict=True))
        columns["timestamp"] = pa.array(np.minimum(frame.timestamps() + junction.delay_us, CEILING_US - 1))
        if junction.forms is not None:
            columns[LED_FROM] = frame.column("key")
        if junction.key != "key":
            columns["key"] = _keys(frame, junction.key)
        columns |= {HOPS: pa.array(hops), STRENGTH: pa.array(strength)}
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        made = replace(frame, stream=junction.name, batch=batch)
        kept = self._kept(junction, made, hops, strength)
        return made if kept.all() else _without_numbers(made.take(np.flatnonzero(kept)))

    def _kept(
        self, junction: Junction, made: Frame, hops: NDArray[np.int64], strength: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which events are led on; each of the others counts under one cause."""
        counts = self.counts[junction.name]
        kept = np.ones(made.num_rows, np.bool_)
        if junction.max_hops is not None:
            kept = hops <= junction.max_hops
            counts["far"] += int((~kept).sum())
        weak = kept & (strength < junction.min_strength)
        counts["weak"] += int(weak.sum())
        kept = kept & ~weak
        if junction.where_node is not None:
            fields = Columns.of(made)
            holds = predicate(junction.where_node, fields)
            counts["filtered"] += int((kept & ~holds).sum())
            kept = kept & holds
        counts["led"] += int(kept.sum())
        return kept


def _keys(frame: Frame, field: str) -> pa.Array:
    """The values of a field as keys, null where it is missing."""
    if not frame.has(field):
        return pa.DictionaryArray.from_arrays(pa.nulls(frame.num_rows, pa.int32()), pa.array([], pa.utf8())).cast(TEXT)
    column = frame.column(field)
    if column.type == TEXT:
        return column
    column = key_column(column)
    return (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).cast(TEXT)


def _ordered(parts: Sequence[tuple[int, Frame]]) -> Frame:
    """One frame of the events of several rules: in order of time, then rule, then as they came."""
    frames = [frame for _, frame in parts]
    times = np.concatenate([frame.timestamps() for frame in frames])
    rules = np.repeat([rule for rule, _ in parts], [frame.num_rows for frame in frames])
    order = np.lexsort((rules, times))
    if len(frames) == 1:
        return frames[0] if (np.diff(order) == 1).all() else _without_numbers(frames[0].take(order))
    names = list(dict.fromkeys(name for frame in frames for name in frame.batch.schema.names))
    columns: Mapping[str, Any] = {
        name: concat_columns([_decoded(frame, name) for frame in frames]).take(pa.array(order)) for name in names
    }
    return Frame.from_columns(frames[0].stream, frames[0].run, columns)


def _without_numbers(frame: Frame) -> Frame:
    """The frame without the numbers of its rows, which are known by their ids."""
    return replace(frame, batch=frame.batch.drop_columns(["seq"]))


def _decoded(frame: Frame, name: str) -> pa.Array:
    if name not in frame.batch.schema.names:
        return pa.nulls(frame.num_rows)
    column = frame.batch.column(name)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
