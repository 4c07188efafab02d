"""The engine: frames in, matches and window results out, in an order that does not depend on the order of arrival.

::

    engine = Engine(load_rules("rules.yaml"))
    engine.push(frame)                       # rows wait for the watermark
    output = engine.advance(watermark_us)    # everything older has arrived: matches, window results
    output = engine.flush()                  # end of input: everything closes, the state is empty

Rows are processed in the order of `agents.event_time.reorder`, so that outputs do not depend on how the input
was divided, interleaved and delayed within the lateness, nor on restarts from a `snapshot`. Rules of ``eventual``
consistency are matched when rows arrive as well: such matches are provisional until the ordered pass confirms or
retracts them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.engine.alerts import AlertPacing
from astrocyte.agents.engine.arrival.early import Early
from astrocyte.agents.engine.entrance import Entrance
from astrocyte.agents.engine.event_buffer import EventBuffer
from astrocyte.agents.engine.figures import Figures
from astrocyte.agents.engine.gates import Gates
from astrocyte.agents.engine.junctions import Junctions
from astrocyte.agents.engine.output import EngineOutput, FailedRow, take_apart
from astrocyte.agents.engine.strata import Stratum, revision, stratify
from astrocyte.agents.engine.tables import MatchTables
from astrocyte.agents.event_time.dedup import Delivered
from astrocyte.agents.event_time.event_store import EventStore, Origin, chosen_rows
from astrocyte.agents.event_time.reorder import MADE_BY_RULE, MADE_BY_WINDOW, PRIMARY
from astrocyte.agents.ingest.declared import UnreadableEvent
from astrocyte.agents.ingest.dicts import frame_of, is_plain, normalised, read_events
from astrocyte.agents.ingest.faults import OperatorFailed
from astrocyte.agents.matches.table import Match, MatchTable
from astrocyte.agents.rules.model import Consistency, Rule, RuleSet, as_rule_set
from astrocyte.agents.rules.named_fields import correlated_fields
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame, pack_frames, unpack_frames
from astrocyte.schemas.times import NEVER_US

__all__ = ["Consistency", "Engine"]

FOREVER_US: Final = 2**62
_COMPACT_ABOVE: Final = 131_072
_NO_ROWS: Final = np.empty(0, np.int64)


class Engine(Figures):
    """Rules, windows and statistics of one domain with all of their state. Not thread-safe; reads no clock.

    Events pass the rule set's validators first, unless ``validated``: the caller has done so, and frames are `settled`.
    ``consistency`` is that of rules that state none. ``exports`` names rules whose matches are also put out as frames,
    ``carriers`` streams of other engines whose events may have come through a junction; a match must hold an event of
    ``newest``, if given. ``immediate``: matches of rules over one event are in the output of the step after `push`, and
    final. ``clock`` gives the nanoseconds of the counters (none: they stay 0). Raises InvalidRule, InvalidSettings.
    """

    def __init__(
        self,
        rules: RuleSet | Rule | Sequence[Rule],
        *,
        consistency: Consistency = "strong",
        immediate: bool = False,
        exports: Collection[str] = (),
        carriers: Collection[str] = (),
        newest: Collection[str] = (),
        validated: bool = False,
        catalog: Catalog = CATALOG,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.consistency = consistency
        self.exports = frozenset(exports)
        self.watermark_us = NEVER_US
        """Everything older was processed."""
        self.duplicates = 0
        """Rows refused since the start because an event of the same id was still waiting."""
        self.late = 0
        """Rows refused since the start because the watermark had passed them."""
        self._newest_us = NEVER_US
        self._entrance = None if validated else Entrance(catalog)
        self._catalog = catalog
        self._clock = clock
        self.junctions, self.gates = Junctions(carriers), Gates()
        self._strata: list[Stratum] = []
        self._store = EventStore()
        self._delivered = Delivered()
        self._buffer = EventBuffer()
        self._tables = MatchTables(self._store, newest)
        self._late: list[Frame] = []
        self._failed: list[FailedRow] = []
        self.alerts, self.repeated = AlertPacing(), _NO_ROWS
        """``repeated``: rows of the frame that was pushed last that were refused as duplicates."""
        self._compact_at = _COMPACT_ABOVE
        self._early = Early(consistency, self._tables, self._store, self._gather, immediate=immediate)
        self.update(rules)

    # -- rules -------------------------------------------------------------------------------------------------------

    def update(self, rules: RuleSet | Rule | Sequence[Rule]) -> None:
        """Put rules in force. Unchanged ones keep their partial matches, also where others changed around them.

        A changed rule starts with the events pushed from now on. Raises InvalidRule; then nothing has changed.
        """
        ruleset = as_rule_set(rules)
        if self._buffer:
            self._gather()
        wanted = stratify(ruleset)
        while len(self._strata) < len(wanted):
            self._strata.append(Stratum(self._catalog, self._clock))
        wanted += [([], [])] * (len(self._strata) - len(wanted))
        for stratum, (own, makers) in zip(self._strata, wanted, strict=True):
            stratum.update(own, makers, self.watermark_us)
        self._early.update(wanted[0][0])
        self._contracts = Contracts(ruleset.streams, self._catalog, correlated=correlated_fields(ruleset))
        if self._entrance is not None:
            self._entrance.update(ruleset, self._contracts)
        self.ruleset = ruleset
        self.junctions.update(ruleset)
        self._tables.update(ruleset.rules)
        self._ranks = {each.name: MADE_BY_WINDOW for each in (*ruleset.windows, *ruleset.insight)}
        self._ranks |= dict.fromkeys([*(each.name for each in ruleset.rules), *self.junctions.names], MADE_BY_RULE)
        always = self.gates.update(ruleset)
        streams = self.gates.active.union(*(stratum.streams for stratum in self._strata))
        self._read = {each: [stratum for stratum in self._strata if each in stratum.streams] for each in streams}
        self._release(always)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._tables.rules

    @property
    def streams(self) -> frozenset[str]:
        """Streams to push: those that rules and windows read and none of them makes."""
        return frozenset(self._read.keys() - (self._ranks.keys() - self.junctions.foreign))

    # -- input -------------------------------------------------------------------------------------------------------

    def push(
        self, frame: Frame, *, topic: str | None = None, partition: int = 0, offsets: int | NDArray[np.int64] = 0
    ) -> int:
        """Let the rows of a frame wait for the watermark; returns how many were refused as duplicates.

        Rows of a frame without a run and ids get the next numbers of their stream, as mappings do.
        ``topic``, ``partition`` and ``offsets`` (of the message, or of each row) say where it was read and are returned
        in the lineage. Rows that validators refuse and rows older than the watermark are returned by the next step,
        as ``refused`` and ``late``; windows with ``late: revise`` take the late ones.

        A frame that raises because of one of its rows has changed nothing: its rows can be pushed in parts. Raises
        OperatorFailed where the state is not valid any more.
        """
        if frame.num_rows and not frame.is_identified and frame.stream in self._read:
            self._gather()  # earlier events take their numbers first
            frame = frame.numbered(self._buffer.take_numbers(frame.stream, frame.num_rows))
        return self._push(frame, None if topic is None else Origin(topic, partition, offsets), typed=True)

    def push_events(self, events: Iterable[Mapping[str, Any] | Frame]) -> None:
        """`push` and `push_event` of many at once; mappings become one frame a stream.

        Raises InvalidEvent for what is neither a mapping nor a frame, and for an event that names no stream.
        """
        self._gather()  # earlier events take their numbers first
        for frame, given in read_events(
            events,
            sorted(self.streams),
            numbers=self._buffer.sequence,
            contracts=self._contracts,
            on_refused=None if self._entrance is None else self._entrance.refuse,
        ):
            self._push(frame, None, typed=given)

    def _push(self, frame: Frame, origin: Origin | None, *, typed: bool) -> int:
        self.repeated = _NO_ROWS
        if frame.num_rows == 0 or frame.stream not in self._read:
            return 0
        if self._entrance is not None:
            frame, origin = self._entrance.admit(frame, origin, typed=typed)
            if frame.num_rows == 0:
                return 0
        times = frame.timestamps()
        self._newest_us = max(self._newest_us, int(times.max()))
        late, rows, repeated = None, None, _NO_ROWS
        if int(times.min()) < self.watermark_us:
            is_late = times < self.watermark_us
            late, rows = frame.take(np.flatnonzero(is_late)), np.flatnonzero(~is_late)
            revise = revision(self._read[frame.stream], late)
            frame, origin = chosen_rows(frame, origin, ~is_late)
        primary = self._ranks.get(frame.stream, PRIMARY) == PRIMARY  # others are known by where they were made
        again = self._delivered.again(frame) if primary else None
        if again is not None:
            repeated = np.flatnonzero(again)
            frame, origin = chosen_rows(frame, origin, ~again)
        if frame.num_rows:
            try:
                self._take(frame, origin)
            except Exception:
                if primary:
                    self._delivered.undo()
                raise
        if late is not None:
            revise()
            self._late.append(late)
            self.late += late.num_rows
        self.duplicates += len(repeated)
        self.repeated = repeated if rows is None else rows[repeated]
        return len(repeated)

    def push_event(self, event: Mapping[str, Any]) -> list[Match]:
        """Let one event wait for the watermark; gives what it matches at once (`eventual`, `immediate`).

        See `agents.ingest.dicts` for what an event looks like. Nothing is returned for an event that cannot be read or
        that validators refuse, that is late or a duplicate; `refused`, `late` and `duplicates` count them, and the next
        step returns the first two. Raises InvalidEvent for an event that names no stream.
        """
        stream: Any = event.get("stream")
        row: dict[str, Any] | None = None
        if isinstance(stream, str) and is_plain(event, stream, self._contracts):
            row = {name: value for name, value in event.items() if name != "stream"}
            if stream not in self._read:
                return []
            if self._entrance is not None and not self._entrance.is_plain(stream, row):
                row = None
        plain = row is not None
        if row is None:
            try:
                stream, row = normalised(event, sorted(self.streams), self._contracts)
            except UnreadableEvent as unreadable:
                if self._entrance is None:
                    raise
                self._entrance.refuse(unreadable)
                return []
            if stream not in self._read:
                return []
            plain = not ("seq_" in row or "event_id_" in row or stream in self._contracts.declared)
            plain = plain and (self._entrance is None or self._entrance.is_plain(stream, row))
        time = row["timestamp"]
        if not plain or time < self.watermark_us:
            return self._push_alone(stream, row)
        event = row
        own_id = event.get("event_id")
        if own_id is not None and not self._delivered.is_new(str(own_id), time):
            self.duplicates += 1
            return []
        self._newest_us = max(self._newest_us, time)
        ref, self._store.next_ref = self._buffer.add(stream, event, self._store.next_ref)
        found: list[Match] = []
        if stream in self._early.streams and stream not in self._ranks:
            number = self._buffer.last_sequence(stream) if own_id is None else str(own_id)
            fields = event
            if "event_id" in event:  # an id is no field
                fields = {name: value for name, value in event.items() if name != "event_id"}
            found = self._early.push_event(stream, fields, ref, number)
        if self._buffer.is_full(stream, event):
            self._gather()
        return found

    def _push_alone(self, stream: str, event: Mapping[str, Any]) -> list[Match]:
        """Push an event that validators must see, or that is late, as a frame of one row."""
        sequence = 0
        if event.get("event_id") is None:
            self._gather()  # earlier events take their numbers first
            sequence = self._buffer.take_numbers(stream, 1)
        given = len(self._early.given)
        declaration = self._contracts.declared.get(stream)
        self._push(frame_of(stream, [event], first_seq=sequence, declaration=declaration), None, typed=False)
        return self._early.given.take_since(given)

    def _gather(self) -> None:
        """Make frames of the events that were pushed one at a time."""
        for first, frame in self._buffer.take():
            self._delivered.again(frame)
            if self.gates and self.gates.hold(frame, None):
                continue
            self._store.insert(first, frame)
            for stratum in self._read[frame.stream]:
                stratum.push(frame, first, self._ranks.get(frame.stream, PRIMARY))

    def push_late(self, frame: Frame) -> bool:
        """Give rows that the caller knows to be late to the windows with ``late: revise``; False if none takes them.

        A frame that raises because of one of its rows has changed nothing. Raises OperatorFailed as `push` does.
        """
        return revision(self._read.get(frame.stream, ()), frame)()

    def _take(self, frame: Frame, origin: Origin | None) -> None:
        if not (self.gates and self.gates.hold(frame, origin)):
            self._accept(frame, origin)

    def _accept(self, frame: Frame, origin: Origin | None) -> None:
        first = self._store.add(frame, origin)
        rank = self._ranks.get(frame.stream, PRIMARY)
        try:
            steps = [step for stratum in self._read[frame.stream] for step in stratum.prepare(frame, first, rank)]
            early = self._early.prepare(frame, first) if rank == PRIMARY else ()
        except Exception:
            self._store.forget_last()
            raise
        for step in steps:
            step()
        if early:
            try:
                self._early.take(early)
            except Exception as error:
                raise OperatorFailed(f"rules over {frame.stream} failed: {type(error).__name__}: {error}") from error
        if not steps:
            self._store.forget_last()

    def _take_made(self, frame: Frame) -> None:
        """Take results that others read, if any does; rows that raise go to the next output as ``failed``."""
        if frame.stream in self._read:
            self._failed += take_apart(frame, self._take)

    def _release(self, held: Iterable[tuple[Frame, Origin | None]]) -> None:
        """Let the events of junctions wait for the watermark as others do, now that these are there."""
        for frame, origin in held:
            self._failed += take_apart(frame, self._accept, origin)

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
            self._early.advance(watermark_us)
            for number, stratum in enumerate(self._strata):
                if self.gates:
                    self._release(self.gates.release(watermark_us, stratum.streams))
                batch = stratum.advance(watermark_us, self._store)
                self._collect(number, batch, tables, frames)
                for frame, final in stratum.close(watermark_us, self._store):
                    frames.append(frame)
                    if final:
                        self._take_made(frame)
            self._delivered.purge(watermark_us)
        output = self._output(tables, frames)
        if self._store.rows > self._compact_at:
            self._compact()
        return output

    def flush(self) -> EngineOutput:
        """End of input: everything is processed and closes, the state is empty, and event time may begin anew."""
        tables: list[MatchTable] = []
        frames: list[Frame] = []
        self._gather()
        self.watermark_us = FOREVER_US
        for number, stratum in enumerate(self._strata):
            if self.gates:
                self._release(self.gates.release(FOREVER_US, stratum.streams))
            self._collect(number, stratum.advance(FOREVER_US, self._store), tables, frames)
            made = list(stratum.close(FOREVER_US, self._store))
            batch, last = stratum.flush()
            self._collect(number, batch, tables, frames)
            for frame, final in [*made, *((frame, True) for frame in last)]:
                frames.append(frame)
                if final:
                    self._take_made(frame)
        output = self._output(tables, frames)
        self._store.clear()
        self._delivered.clear()
        self.alerts.clear()
        self._compact_at = _COMPACT_ABOVE
        self.watermark_us = self._newest_us = NEVER_US
        self._early.clear()
        return output

    def _collect(self, number: int, batch: MatchBatch, tables: list[MatchTable], frames: list[Frame]) -> None:
        """Matches of one stratum: into the output, and on to the strata that read them."""
        if self.watermark_us == FOREVER_US:
            batch = self._strata[number].decided(batch, self._newest_us)
        if not len(batch):
            return
        table = self._tables.of(self._strata[number].matcher, batch)
        tables.append(table)
        for index in np.unique(table.rule).tolist():
            name = table.rules[index].name
            if name in self.exports or name in self._read or name in self.junctions.rules:
                made, failed = table.frames_of(name, self.junctions.carriers)
                self._failed += failed
                if name in self.exports:
                    frames += made
                for frame in (*made, *self.junctions.lead(name, made)):
                    self._take_made(frame)

    def _output(self, tables: list[MatchTable], frames: list[Frame]) -> EngineOutput:
        table = self._early.settle(self._tables.merge(tables), self.watermark_us)
        table, grouped = self.alerts.decide(table, self.watermark_us)
        late, self._late = self._late, []
        failed, self._failed = self._failed, []
        refused = [] if self._entrance is None else self._entrance.take()
        formed = self.gates.decide(None if self.watermark_us == FOREVER_US else self.watermark_us)
        return EngineOutput(table, frames, late, refused, grouped, failed, self.junctions.take(), formed)

    # -- state -------------------------------------------------------------------------------------------------------

    def low_water_us(self) -> int | None:
        """Oldest time that the state depends on; None where it is empty."""
        self._gather()
        times = [*(stratum.low_water_us() for stratum in self._strata), *self.gates.oldest_us()]
        return min((time for time in times if time is not None), default=None)

    def _needed(self) -> NDArray[np.int64]:
        parts = [refs for stratum in self._strata for refs in (*stratum.pending_refs(), stratum.matcher.live_refs())]
        return np.unique(np.concatenate([*parts, *self._early.refs(), np.empty(0, np.int64)]))

    def _compact(self, *, thorough: bool = False) -> None:
        self._store.compact(self._needed(), thorough=thorough)
        self._compact_at = max(_COMPACT_ABOVE, 2 * self._store.rows)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as nested mappings of arrays and bytes; small, since only rows that are needed are in it."""
        self._gather()
        self._compact(thorough=True)
        times = [self.watermark_us, self.duplicates, self.late, self.refused, self.sampled, self._newest_us]
        parts: dict[str, Any] = {
            "times": np.array(times, np.int64),
            "strata": {str(number): stratum.snapshot() for number, stratum in enumerate(self._strata)},
            "store": self._store.snapshot(),
            "sequence": orjson.dumps(self._buffer.sequence),
            "rules": self.ruleset.model_dump_json().encode(),
            "alerts": self.alerts.snapshot(self.watermark_us),
            "junctions": self.junctions.snapshot(),
            "gates": self.gates.snapshot(),
            "late": pack_frames(self._late),
            "refused": b"" if self._entrance is None else self._entrance.pending(),
        }
        return parts | self._early.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot. Rules in force that it was made without begin empty, as after `update`.

        Raises InvalidRule if the rules of the snapshot cannot be read by this version.
        """
        try:
            before = RuleSet.model_validate_json(bytes(snapshot["rules"]))
        except ValueError as error:
            raise InvalidRule(f"the rules of the snapshot are not valid in this version: {error}") from None
        wanted = self.ruleset
        if before != wanted:
            self.update(before)
        self._restore(snapshot)
        if before != wanted:
            self.update(wanted)

    def _restore(self, snapshot: Mapping[str, Any]) -> None:
        self._store.restore(snapshot["store"])
        self._buffer = EventBuffer()
        self._buffer.sequence = orjson.loads(bytes(snapshot["sequence"]))
        blocks = self._store.blocks()
        for number, stratum in enumerate(self._strata):
            if (state := snapshot["strata"].get(str(number))) is not None:  # else of other rules, and empty
                stratum.restore(state, blocks, lambda name: self._ranks.get(name, PRIMARY))
        self.watermark_us, self.duplicates, self.late, refused, sampled, self._newest_us = snapshot["times"].tolist()
        for stratum in self._strata:
            stratum.pass_time(self.watermark_us)
        if self._entrance is not None:
            self._entrance.restore(bytes(snapshot["refused"]), refused, sampled)
        self._delivered.clear()
        for block in blocks:
            waiting = np.flatnonzero(block.frame.timestamps() >= self.watermark_us)
            if len(waiting) and self._ranks.get(block.frame.stream, PRIMARY) == PRIMARY:
                self._delivered.again(block.frame.take(waiting))
        self._late, self._failed = unpack_frames(snapshot["late"]), []
        self.alerts.restore(bytes(snapshot["alerts"]))
        self.junctions.restore(snapshot.get("junctions"))
        self.gates.restore(snapshot.get("gates"))
        self._early.restore(snapshot, self._store)
