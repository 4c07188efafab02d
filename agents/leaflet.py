"""The leaflet domain: one partition number of all mono topics, with its clock, saccules and correlation engines.

A pure step object: chunks of Kafka messages go in, records for other topics come out, and nothing in here knows
Kafka, Faust or a clock on the wall. Its whole state can be taken as a snapshot together with the next offset of every
topic, so that a restart repeats exactly what an uninterrupted run would have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from agents.clock import Clock, Place, Source
from agents.decoding import RawRecord, dead_letter, decode_chunk
from agents.engine import Engine, EngineOutput
from agents.lineage import Record, alert_records, multi_event_records
from agents.rules import RuleSet
from agents.saccules import Saccules
from agents.sinks.base import SourcedFrame
from schemas.catalog import CATALOG, Catalog
from schemas.events import DeadLetter, iso_from_us
from schemas.frames import Frame
from schemas.records import frame_to_records

__all__ = ["Counters", "DomainGroup", "DomainOutput", "Leaflet"]


@dataclass(slots=True)
class Counters:
    """What became of every event of a domain: received = processed + late + dead + duplicate + sampled."""

    received: int = 0
    """Rows decoded, and messages that could not be."""
    processed: int = 0
    late: int = 0
    dead: int = 0
    duplicate: int = 0
    """Events delivered again with an id that is still in the reorder buffer."""
    sampled: int = 0
    """Events that a saccule's sampling left out."""
    matches: int = 0
    alerts: int = 0

    def as_dict(self) -> dict[str, int]:
        """Names and values."""
        return {name: int(getattr(self, name)) for name in self.__slots__}


@dataclass(slots=True)
class DomainOutput:
    """What one step of a domain puts out, in order."""

    multi_events: list[Record] = field(default_factory=list)
    alerts: list[Record] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    """Results of windows, and matches that other groups read, by their stream."""

    def extend(self, other: DomainOutput) -> None:
        """Append what a later step put out."""
        for name in self.__slots__:
            getattr(self, name).extend(getattr(other, name))

    def __bool__(self) -> bool:
        return bool(self.multi_events or self.alerts or self.late or self.dead_letters or self.frames)


@dataclass(frozen=True, slots=True)
class _Intake:
    """One frame on its way through a domain."""

    sourced: SourcedFrame
    output: DomainOutput
    counted: bool


@dataclass(frozen=True, slots=True)
class DomainGroup:
    """One engine of a domain and the topics that feed it, by stream."""

    field: str
    engine: Engine
    topics: Mapping[str, str]
    exports: frozenset[str] = frozenset()


class Leaflet:
    """The domain of one partition number.

    ``groups`` are its engines, one for each correlation field; ``topics`` are all that it reads: event
    time is held back until each was heard of or found idle. ``internal`` names topics whose rows were counted when they
    first came in (streams keyed anew).
    """

    def __init__(
        self,
        partition: int,
        groups: Sequence[DomainGroup],
        *,
        lateness_us: int = 0,
        saccules: Saccules | None = None,
        topics: Iterable[str],
        internal: Iterable[str] = (),
        catalog: Catalog = CATALOG,
    ) -> None:
        self.partition = partition
        self.groups = tuple(groups)
        topics = tuple(topics)
        self.clock = Clock(lateness_us=lateness_us, expected=[Place(topic, partition) for topic in topics])
        self.counters = Counters()
        self.positions: dict[str, int] = {}
        """Next offset of every topic; what lies before it is in the state."""
        self._saccules = saccules or Saccules((), catalog=catalog)
        self._internal = frozenset(internal)
        self._catalog = catalog
        self._announced: set[str] = set()
        self._read: frozenset[str] = frozenset(topics)
        self._engines: dict[str, list[Engine]] = {}
        for group in self.groups:
            for topic in group.topics.values():
                self._engines.setdefault(topic, []).append(group.engine)

    def feed(self, topic: str, records: Sequence[RawRecord]) -> DomainOutput:
        """Take a chunk of one topic, in offset order; records before the topic's position are passed over."""
        output = DomainOutput()
        position = self.positions.get(topic, 0)
        if records and records[0].offset < position:
            records = [record for record in records if record.offset >= position]
        if not records:
            return output
        frames, letters = decode_chunk(topic, self.partition, records, self._catalog)
        counted = topic not in self._internal
        self._bury(letters, output, counted)
        for sourced in frames:
            self._take(_Intake(sourced, output, counted))
        self.positions[topic] = records[-1].offset + 1
        self._advance(output)
        return output

    def mark_idle(self, places: Iterable[Place], *, asserting: bool = False) -> DomainOutput:
        """The places are silent and hold event time back no longer, as the caller has found and recorded.

        Producers that assert watermarks are waited for all the same, unless ``asserting``.
        """
        output = DomainOutput()
        for place in places:
            self.clock.mark_idle(place, asserting=asserting)
        self._advance(output)
        return output

    def wake(self) -> None:
        """Something comes after all was idle: wait for every topic again, so that none falls behind the first."""
        self.clock.wake()

    def mark_all_idle(self, until_us: int | None = None) -> DomainOutput:
        """Nothing comes from anywhere; event time goes on to ``until_us``."""
        output = DomainOutput()
        self.clock.mark_all_idle(until_us)
        self._advance(output)
        return output

    def flush(self) -> DomainOutput:
        """The input is over: everything closes, and the state is empty."""
        output = DomainOutput()
        for group in self.groups:
            self._emit(group.engine.flush(), output)
        return output

    def _take(self, intake: _Intake) -> None:
        frame, topic = intake.sourced.frame, intake.sourced.topic
        self._announce(frame, topic)
        if intake.counted:
            self.counters.received += frame.num_rows
        passed = self._saccules.apply(frame)
        for row, reason in passed.refused:
            self._bury_row(intake, row, reason, "validate")
        if intake.counted:
            self.counters.sampled += passed.sampled
        kept, rows = passed.frame, passed.rows
        verdict = self.clock.observe(
            Source(topic, self.partition, frame.origin),
            kept.timestamps(),
            watermark_us=frame.watermark_us,
            end=frame.end,
            one_by_one=intake.sourced.offsets is not None,
        )
        for row in np.flatnonzero(verdict.rejected).tolist():
            reason = f"timestamp {iso_from_us(int(kept.timestamps()[row]))} is too far in the future of its source"
            self._bury_row(intake, int(rows[row]), reason, "clock")
        if verdict.late.any():
            self._put_late(intake, kept, rows, np.flatnonzero(verdict.late))
        if verdict.on_time.all():
            self._push(intake, kept, rows)
        elif verdict.on_time.any():
            chosen = np.flatnonzero(verdict.on_time)
            self._push(intake, kept.take(chosen), rows[chosen])

    def _push(self, intake: _Intake, frame: Frame, rows: NDArray[np.int64]) -> None:
        if frame.num_rows == 0:
            return
        sourced = intake.sourced
        offsets = sourced.offset if sourced.offsets is None else sourced.offsets[rows]
        duplicates = 0
        for engine in self._engines.get(sourced.topic, ()):
            refused = engine.push(frame, topic=sourced.topic, partition=self.partition, offsets=offsets)
            duplicates = max(duplicates, refused)
        if intake.counted:
            self.counters.processed += frame.num_rows - duplicates
            self.counters.duplicate += duplicates

    def _announce(self, frame: Frame, topic: str) -> None:
        """Wait for every stream that the origin writes, so that a slow start of one makes nothing late."""
        if not frame.peers or frame.origin in self._announced:
            return
        self._announced.add(frame.origin)
        prefix = topic.removesuffix(frame.stream)
        for peer in frame.peers:
            stream, _, origin = peer.partition("@")
            if prefix + stream in self._read:
                self.clock.announce(Source(prefix + stream, self.partition, origin or frame.origin))

    def _put_late(self, intake: _Intake, kept: Frame, rows: NDArray[np.int64], late: NDArray[np.integer]) -> None:
        sourced = intake.sourced
        place = [
            ("late_watermark_us", str(self.clock.watermark_us).encode()),
            ("source_topic", sourced.topic.encode()),
            ("source_partition", str(self.partition).encode()),
        ]
        for row, record in zip(late.tolist(), frame_to_records(kept.take(late), self._catalog), strict=True):
            offset = ("source_offset", str(sourced.offset_of(int(rows[row]))).encode())
            intake.output.late.append(Record(record.key, record.value, [*record.headers, *place, offset]))
        for engine in self._engines.get(sourced.topic, ()):
            engine.push_late(kept.take(late))
        if intake.counted:
            self.counters.late += len(late)

    def _bury(self, letters: Sequence[DeadLetter], output: DomainOutput, counted: bool) -> None:
        output.dead_letters += letters
        self.counters.dead += len(letters)
        if counted:
            self.counters.received += len(letters)

    def _bury_row(self, intake: _Intake, row: int, reason: str, stage: str) -> None:
        sourced = intake.sourced
        record = frame_to_records(sourced.frame.take(np.array([row])), self._catalog)[0]
        time_ms = int(sourced.frame.timestamps()[row]) // 1000
        raw = RawRecord(sourced.offset_of(row), time_ms, record.key, record.value, record.headers)
        inside = row if sourced.offsets is None else None
        intake.output.dead_letters.append(
            dead_letter(raw, sourced.topic, self.partition, reason=reason, stage=stage, row=inside)
        )
        if intake.counted:
            self.counters.dead += 1

    def _advance(self, output: DomainOutput) -> None:
        if self.clock.finished:
            for group in self.groups:
                self._emit(group.engine.flush(), output)
            self.clock.reset()
            self._announced.clear()
            return
        for group in self.groups:
            self._emit(group.engine.advance(self.clock.watermark_us), output)

    def _emit(self, result: EngineOutput, output: DomainOutput) -> None:
        if not result:
            return
        multi = multi_event_records(result.matches)
        alerts = alert_records(result.matches)
        self.counters.matches += len(multi)
        self.counters.alerts += len(alerts)
        output.multi_events += multi
        output.alerts += alerts
        output.frames += result.frames

    def update(self, rulesets: Mapping[str, RuleSet]) -> None:
        """Take over changed rules by group; unchanged rules keep their partial matches."""
        for group in self.groups:
            group.engine.update(rulesets[group.field])

    def snapshot(self) -> dict[str, Any]:
        """The whole state, with the offsets at which reading goes on."""
        return {
            "positions": orjson.dumps(self.positions),
            "counters": orjson.dumps(self.counters.as_dict()),
            "announced": orjson.dumps(sorted(self._announced)),
            "clock": self.clock.snapshot(),
            "engines": {group.field: group.engine.snapshot() for group in self.groups},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a snapshot; engines of groups that it does not hold begin empty."""
        self.positions = orjson.loads(bytes(snapshot["positions"]))
        self.counters = Counters(**orjson.loads(bytes(snapshot["counters"])))
        self._announced = set(orjson.loads(bytes(snapshot["announced"])))
        self.clock.restore(snapshot["clock"])
        for group in self.groups:
            if group.field in snapshot["engines"]:
                group.engine.restore(snapshot["engines"][group.field])
