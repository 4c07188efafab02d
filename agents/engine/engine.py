"""The engine: frames in, matches and window results out, in one order whatever the order of arrival.

::

    engine = Engine(load_rules("rules.yaml"))
    engine.push(frame)                       # rows wait for the watermark
    output = engine.advance(watermark_us)    # everything older than the watermark has come: matches, window results
    output = engine.flush()                  # all input is over: everything closes, the state is empty

Rows are processed in the order of `agents.event_time.reorder`, so that the outputs depend neither on how input was cut,
mixed and delayed within the lateness, nor on restarts from a `snapshot`. With ``consistency="eventual"`` rows are
matched when they arrive as well: such matches are provisional until the ordered pass confirms or retracts them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from astrocyte.agents.cep.match_columns import TIMEOUT, MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.engine.event_buffer import Loose
from astrocyte.agents.engine.eventual import Recent, Singles, single_matches
from astrocyte.agents.engine.provisional import Provisional
from astrocyte.agents.engine.strata import Layer, stratify
from astrocyte.agents.event_time.dedup import Delivered
from astrocyte.agents.event_time.event_store import EventStore, Origin
from astrocyte.agents.event_time.reorder import MADE_BY_RULE, MADE_BY_WINDOW, PRIMARY
from astrocyte.agents.ingest.dicts import normalised
from astrocyte.agents.matches.table import FINAL, Match, MatchTable
from astrocyte.agents.rules.model import Rule, RuleSet
from astrocyte.agents.rules.problems import InvalidRules, problems_of
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import InvalidRule, InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US

__all__ = ["Consistency", "Engine", "EngineOutput"]

Consistency = Literal["strong", "eventual"]
FOREVER_US: Final = 2**62
_COMPACT_ABOVE: Final = 131_072


@dataclass(slots=True)
class EngineOutput:
    """What one step put out."""

    matches: MatchTable
    frames: list[Frame] = field(default_factory=list)
    """Results of windows, and matches of exported rules, as events of a stream of the window's or rule's name."""
    late: list[Frame] = field(default_factory=list)
    """Rows that were pushed although the watermark had passed them; they took part in nothing."""

    def __bool__(self) -> bool:
        return bool(len(self.matches) or self.frames or self.late)


class Engine:
    """Rules and windows of one domain with all of their state. Not thread-safe; reads no clock, opens nothing.

    ``exports`` names rules whose matches are also put out as frames. ``clock`` gives nanoseconds, by which the
    counters tell how long each rule takes (none: they stay 0). Raises InvalidRule.
    """

    def __init__(
        self,
        rules: RuleSet | Rule | Sequence[Rule],
        *,
        consistency: Consistency = "strong",
        exports: Collection[str] = (),
        catalog: Catalog = CATALOG,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if consistency not in ("strong", "eventual"):
            raise InvalidSettings(f"consistency {consistency!r}; strong or eventual was wanted")
        self.consistency = consistency
        self.exports = frozenset(exports)
        self.watermark_us = NEVER_US
        """Everything older was processed."""
        self.duplicates = 0
        """Rows refused since the start because an event of the same id was still waiting."""
        self.late = 0
        """Rows refused since the start because the watermark had passed them."""
        self._catalog = catalog
        self._clock = clock
        self._layers: list[Layer] = []
        self._store = EventStore()
        self._delivered = Delivered()
        self._loose = Loose()
        self._singles = Singles()
        self._late: list[Frame] = []
        self._compact_at = _COMPACT_ABOVE
        self._early: Matcher | None = Matcher([], clock=None) if consistency == "eventual" else None
        self._early_us = NEVER_US
        self._provisional = Provisional()
        self._ahead: list[MatchTable] = []
        self.update(rules)

    # -- rules -------------------------------------------------------------------------------------------------------

    def update(self, rules: RuleSet | Rule | Sequence[Rule]) -> None:
        """Put rules in force. Unchanged ones keep their partial matches, also where others changed around them.

        A changed rule begins afresh with the events that are pushed from now on. Raises InvalidRule, and then nothing
        has changed.
        """
        ruleset = _ruleset(rules)
        if self._loose:
            self._gather()
        wanted = stratify(ruleset)
        while len(self._layers) < len(wanted):
            self._layers.append(Layer(self._catalog, self._clock))
        wanted += [([], [])] * (len(self._layers) - len(wanted))
        for layer, (own, windows) in zip(self._layers, wanted, strict=True):
            layer.update(own, windows)
        if self._early is not None:
            self._early.update(wanted[0][0])
        self.ruleset = ruleset
        self._rules = ruleset.rules
        self._index = {rule.name: index for index, rule in enumerate(self._rules)}
        self._ranks = {window.name: MADE_BY_WINDOW for window in ruleset.windows}
        self._ranks |= {rule.name: MADE_BY_RULE for rule in self._rules}
        self._read = {stream: [layer for layer in self._layers if stream in layer.streams]
                      for stream in {stream for layer in self._layers for stream in layer.streams}}  # fmt: skip

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._rules

    @property
    def streams(self) -> frozenset[str]:
        """Streams that are to be pushed: those that rules and windows read and none of them makes."""
        return frozenset(self._read.keys() - self._ranks.keys())

    # -- input -------------------------------------------------------------------------------------------------------

    def push(
        self,
        frame: Frame,
        *,
        topic: str | None = None,
        partition: int = 0,
        offsets: int | NDArray[np.int64] = 0,
    ) -> int:
        """Let the rows of a frame wait for the watermark; returns how many were refused as duplicates.

        ``topic``, ``partition`` and ``offsets`` (of the message, or of each row) say where it was read and come back
        in the lineage. Rows older than the watermark are given back as ``late`` by the next step.
        """
        if frame.num_rows == 0 or frame.stream not in self._read:
            return 0
        origin = None if topic is None else Origin(topic, partition, offsets)
        times = frame.timestamps()
        if int(times.min()) < self.watermark_us:
            late = times < self.watermark_us
            self._late.append(frame.take(np.flatnonzero(late)))
            self.late += int(late.sum())
            if late.all():
                return 0
            frame, origin = _chosen(frame, origin, ~late)
        again = self._delivered.again(frame)
        refused = 0
        if again is not None:
            refused = int(again.sum())
            self.duplicates += refused
            if refused == frame.num_rows:
                return refused
            frame, origin = _chosen(frame, origin, ~again)
        self._take(frame, origin)
        return refused

    def push_event(self, event: Mapping[str, Any]) -> list[Match]:
        """Let one event wait for the watermark; with `eventual` consistency gives what it matches, provisionally.

        See `agents.ingest.dicts` for what an event looks like. Nothing is given back of an event that the watermark has
        passed or that came before; `late` and `duplicates` count them. Raises InvalidEvent.
        """
        stream = event.get("stream")
        if stream is None or type(event.get("timestamp")) is not int or "metadata" in event:
            stream, event = normalised(event, sorted(self.streams))
        if stream not in self._read:
            return []
        time = event["timestamp"]
        if time < self.watermark_us:
            self.late += 1
            return []
        own_id = event.get("event_id")
        if own_id is not None and not self._delivered.is_new(str(own_id), time):
            self.duplicates += 1
            return []
        ref, self._store.next_ref = self._loose.add(stream, event, self._store.next_ref)
        found = self._match_single(stream, event, ref) if self._early is not None else []
        if self._loose.is_full(stream, event):
            self._gather()
        return found

    def _match_single(self, stream: str, event: Mapping[str, Any], ref: int) -> list[Match]:
        """Match an event as it comes; see `_match_early`."""
        early, time = self._early, event["timestamp"]
        assert early is not None
        if stream not in early.streams or stream in self._ranks:
            return []
        sequence = -1 if event.get("event_id") is not None else self._loose.last_sequence(stream)
        self._singles.add(ref, Recent(stream, event, sequence), early)
        if time >= self._early_us:
            self._early_us = time
            batch = early.process_event(stream, event, ref)
        else:
            batch = early.process_event(stream, {**event, "timestamp": self._early_us}, ref)
        if not len(batch):
            return []
        made = single_matches(early, batch, self._singles)
        if made is None:
            self._gather()
            return self._provisional.note(self._table(early, batch)).matches()
        return [
            match
            for match, name, steps, refs in made
            if self._provisional.note_single(
                name,
                match.time_us,
                np.array(refs, np.int64),
                partial(self._table_of, match, steps, refs),
                self._rules[self._index[match.rule]],
            )
        ]

    def _table_of(self, match: Match, steps: list[int], refs: list[int]) -> MatchTable:
        """The table of a match that was made of single events."""
        self._gather()
        key = np.empty(1, object)
        key[0] = match.key
        return MatchTable(
            self._rules, np.array([self._index[match.rule]], np.int32), key, np.array([match.time_us], np.int64),
            np.array([match.timed_out]), np.zeros(1, np.int8), np.array([0, len(refs)]), np.array(steps, np.int16),
            self._store.locate(np.array(refs, np.int64)),
        )  # fmt: skip

    def _gather(self) -> None:
        """Make frames of the events that were pushed one at a time."""
        for first, frame in self._loose.take():
            self._delivered.again(frame)
            self._store.insert(first, frame)
            for layer in self._read[frame.stream]:
                layer.push(frame, first, self._ranks.get(frame.stream, PRIMARY))

    def push_late(self, frame: Frame) -> bool:
        """Give late rows to the windows with ``late: revise``; False if no window takes them."""
        taken = [layer.revise(frame) for layer in self._read.get(frame.stream, ())]
        return any(taken)

    def _take(self, frame: Frame, origin: Origin | None) -> None:
        first = self._store.add(frame, origin)
        rank = self._ranks.get(frame.stream, PRIMARY)
        taken = [layer.push(frame, first, rank) for layer in self._read[frame.stream]]
        if self._early is not None and rank == PRIMARY:
            self._match_early(frame, first)
        if not any(taken):
            self._store.forget_last()

    # -- output ------------------------------------------------------------------------------------------------------

    def advance(self, watermark_us: int) -> EngineOutput:
        """Nothing older than ``watermark_us`` will be pushed: process what waits before it, in order.

        A watermark that is not beyond the last one changes nothing. What time alone decides (absence, timeouts) at an
        instant is put out once the watermark is beyond that instant; windows that end at the watermark are closed.
        """
        tables: list[MatchTable] = []
        frames: list[Frame] = []
        self._gather()
        if watermark_us > self.watermark_us:
            self.watermark_us = watermark_us
            if self._early is not None:
                self._give_early(self._early.advance(watermark_us - 1))
            for number, layer in enumerate(self._layers):
                batch = layer.advance(watermark_us, self._store)
                self._collect(number, batch, tables, frames)
                for frame, final in layer.close(watermark_us, self._store):
                    frames.append(frame)
                    if final and frame.stream in self._read:
                        self._take(frame, None)
            self._delivered.purge(watermark_us)
        output = self._output(tables, frames)
        if self._store.rows > self._compact_at:
            self._compact()
        return output

    def flush(self) -> EngineOutput:
        """All input is over: everything is processed and closes, the state is empty, and event time may begin anew."""
        tables: list[MatchTable] = []
        frames: list[Frame] = []
        self._gather()
        self.watermark_us = FOREVER_US
        for number, layer in enumerate(self._layers):
            self._collect(number, layer.advance(FOREVER_US, self._store), tables, frames)
            made = list(layer.close(FOREVER_US, self._store))
            batch, last = layer.flush()
            self._collect(number, batch, tables, frames)
            for frame, final in [*made, *((frame, True) for frame in last)]:
                frames.append(frame)
                if final and frame.stream in self._read:
                    self._take(frame, None)
        output = self._output(tables, frames)
        self._store.clear()
        self._delivered.clear()
        self._compact_at = _COMPACT_ABOVE
        self.watermark_us = NEVER_US
        if self._early is not None:
            self._early.flush()
            self._provisional.clear()
            self._singles.clear()
            self._early_us = NEVER_US
        return output

    def _collect(self, number: int, batch: MatchBatch, tables: list[MatchTable], frames: list[Frame]) -> None:
        """Matches of one layer: into the output, and on to the layers that read them."""
        if not len(batch):
            return
        table = self._table(self._layers[number].matcher, batch)
        tables.append(table)
        for index in np.unique(table.rule).tolist():
            name = self._rules[index].name
            if name in self.exports or name in self._read:
                frame = table.frame_of(name)
                if frame is not None and name in self.exports:
                    frames.append(frame)
                if frame is not None and name in self._read:
                    self._take(frame, None)

    def _table(self, matcher: Matcher, batch: MatchBatch) -> MatchTable:
        texts = np.array(matcher.key_texts(batch).to_pylist(), dtype=object)
        keyless = np.array([rule.by is None for rule in matcher.rules], np.bool_)[batch.rule]
        texts[keyless] = None
        number = np.array([self._index[rule.name] for rule in matcher.rules], np.int32)
        table = MatchTable(
            self._rules, number[batch.rule], texts, batch.time_us, batch.kind == TIMEOUT,
            np.full(len(batch), FINAL, np.int8), batch.offsets, batch.step, self._store.locate(batch.ref),
        )  # fmt: skip
        return table.take(_in_time(table))

    def _output(self, tables: list[MatchTable], frames: list[Frame]) -> EngineOutput:
        table = MatchTable.concat([*tables, MatchTable.empty(self._rules)])
        if len(tables) > 1:
            table = table.take(_in_time(table))
        if self._early is not None:
            table = self._settle(table)
        late, self._late = self._late, []
        return EngineOutput(table, frames, late)

    # -- eventual ----------------------------------------------------------------------------------------------------

    def _match_early(self, frame: Frame, first: int) -> None:
        """Match rows as they come; a row older than one before it is taken as if it were of the same time."""
        assert self._early is not None
        rows = self._early.prepare(frame, first)
        if not len(rows):
            return
        order = np.argsort(rows.t, kind="stable")
        rows = rows.take(order)
        rows = replace(rows, t=np.maximum(rows.t, self._early_us))
        self._early_us = int(rows.t[-1])
        self._give_early(self._early.process(rows))

    def _give_early(self, batch: MatchBatch) -> None:
        assert self._early is not None
        if len(batch):
            self._ahead.append(self._provisional.note(self._table(self._early, batch)))

    def _settle(self, table: MatchTable) -> MatchTable:
        """Confirm and retract what was given early; early matches of this step come first."""
        assert self._early is not None
        ahead, self._ahead = self._ahead, []
        settled = self._provisional.settle(table, self.watermark_us, self._early_us)
        return MatchTable.concat([*ahead, *settled, MatchTable.empty(self._rules)])

    # -- state -------------------------------------------------------------------------------------------------------

    def low_water_us(self) -> int | None:
        """Oldest time that the state depends on; None where it is empty."""
        self._gather()
        times = [layer.low_water_us() for layer in self._layers]
        return min((time for time in times if time is not None), default=None)

    def _needed(self) -> NDArray[np.int64]:
        parts = [refs for layer in self._layers for refs in (*layer.pending_refs(), layer.matcher.live_refs())]
        if self._early is not None:
            parts += [self._early.live_refs(), *self._provisional.refs()]
        return np.unique(np.concatenate([*parts, np.empty(0, np.int64)]))

    def _compact(self, *, thorough: bool = False) -> None:
        self._store.compact(self._needed(), thorough=thorough)
        self._compact_at = max(_COMPACT_ABOVE, 2 * self._store.rows)

    def size(self) -> dict[str, int]:
        """What is held: rows that wait, rows of frames held for them and for partial matches, provisional matches."""
        return {
            "waiting": sum(layer.size() for layer in self._layers) + len(self._loose),
            "rows": self._store.rows,
            "provisional": len(self._provisional),
        }

    def counters(self) -> dict[str, dict[str, int]]:
        """By rule: events, partials, matches, timeouts, cut, work, microseconds."""
        found: dict[str, dict[str, int]] = {}
        for layer in self._layers:
            for rule, counts in zip(layer.matcher.rules, layer.matcher.counters(), strict=True):
                found[rule.name] = counts
        return found

    def snapshot(self) -> dict[str, Any]:
        """The whole state as nested mappings of arrays and bytes; small, since only rows that are needed are in it."""
        self._gather()
        self._compact(thorough=True)
        times = [self.watermark_us, self._early_us, self.duplicates, self.late]
        parts: dict[str, Any] = {
            "times": np.array(times, np.int64),
            "layers": {str(number): layer.snapshot() for number, layer in enumerate(self._layers)},
            "store": self._store.snapshot(),
            "sequence": orjson.dumps(self._loose.sequence),
        }
        if self._early is not None:
            parts["early"] = self._early.snapshot()
            parts["provisional"] = self._provisional.snapshot()
        return parts

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over the snapshot of an engine with the same rules. Raises InvalidRule where they differ."""
        self._store.restore(snapshot["store"])
        self._loose = Loose()
        self._loose.sequence = orjson.loads(bytes(snapshot["sequence"]))
        blocks = self._store.blocks()
        for number, layer in enumerate(self._layers):
            layer.restore(snapshot["layers"][str(number)], blocks, lambda name: self._ranks.get(name, PRIMARY))
        watermark, early, duplicates, late = snapshot["times"]
        self.watermark_us, self._early_us = int(watermark), int(early)
        self.duplicates, self.late = int(duplicates), int(late)
        self._delivered.clear()
        for block in blocks:
            waiting = np.flatnonzero(block.frame.timestamps() >= self.watermark_us)
            if len(waiting) and self._ranks.get(block.frame.stream, PRIMARY) == PRIMARY:
                self._delivered.again(block.frame.take(waiting))
        self._late, self._ahead = [], []
        self._singles.clear()
        if self._early is not None and "early" in snapshot:
            self._early.restore(snapshot["early"])
            self._provisional.restore(snapshot["provisional"], self._rules, self._store)


def _ruleset(rules: RuleSet | Rule | Sequence[Rule]) -> RuleSet:
    if isinstance(rules, RuleSet):
        return rules
    # Text is a sequence too, of one-letter texts, each of which would be told that it is no rule.
    several = isinstance(rules, Sequence) and not isinstance(rules, str | bytes)
    given: Sequence[Any] = rules if several else [rules]  # type: ignore[assignment]
    for odd in given:
        if not isinstance(odd, Rule):
            came = repr(odd) if len(repr(odd)) <= 60 else repr(odd)[:57] + "..."
            raise InvalidRule(
                f"{type(odd).__name__} {came} came where a Rule, several of them or a RuleSet were wanted; "
                "load_rules(...) makes a RuleSet of a path, of YAML text or of the mapping it holds"
            )
    try:
        return RuleSet(rules=tuple(given))
    except ValidationError as error:
        raise InvalidRules(problems_of(error)) from None


def _chosen(frame: Frame, origin: Origin | None, keep: NDArray[np.bool_]) -> tuple[Frame, Origin | None]:
    rows = np.flatnonzero(keep)
    return frame.take(rows), None if origin is None else origin.take(rows)


def _in_time(table: MatchTable) -> NDArray[np.int64]:
    """Order of matches by time, then rule, then key; those of one key keep their order."""
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
            rank = np.unique(keys[places].astype(str), return_inverse=True)[1]
            within = np.lexsort((rank, rule[places], time[places]))
            order[places] = order[places][within]
    return np.asarray(order)
