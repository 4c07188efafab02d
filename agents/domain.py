"""The domain: one partition number of all mono topics, with its watermarks, validators and correlation engines.

A pure step object: chunks of Kafka messages go in, records for other topics come out. It knows neither Kafka nor Faust
and reads no clock. Its whole state, with the next offset of every topic, can be taken as a snapshot, so that a restart
gives exactly the outputs of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.event_time.watermarks import Source, Watermarks
from astrocyte.agents.ingest.decode import dead_letter, decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.matches.lineage import alert_records, multi_event_records
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import JsonRecord, KafkaRecord, RawRecord, frame_to_records
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import TopicPartition

__all__ = ["Counters", "Domain", "DomainGroup", "DomainOutput"]


@dataclass(slots=True)
class Counters:
    """Counts of a domain's events: received = processed + late + dead + duplicate + sampled + skipped."""

    received: int = 0
    """Rows decoded, and messages that could not be decoded."""
    processed: int = 0
    late: int = 0
    dead: int = 0
    duplicate: int = 0
    """Events with the id of one that is still in the reorder buffer."""
    sampled: int = 0
    """Events left out by a validator's sampling."""
    skipped: int = 0
    """Messages that hold no event by their stream's declaration, such as the tombstones of Debezium."""
    matches: int = 0
    alerts: int = 0

    def as_dict(self) -> dict[str, int]:
        """Names and values."""
        return {name: int(getattr(self, name)) for name in self.__slots__}


@dataclass(slots=True)
class DomainOutput:
    """Output of one step of a domain, in order."""

    multi_events: list[JsonRecord] = field(default_factory=list)
    alerts: list[JsonRecord] = field(default_factory=list)
    late: list[JsonRecord] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    """Results of windows, and matches that other groups read, by their stream."""

    def extend(self, other: DomainOutput) -> None:
        """Append the output of a later step."""
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


class _Lane:
    """One engine and the watermarks of the topics that feed it.

    Every group has watermarks of its own, since a group that reads another's windows is always behind that one.
    """

    def __init__(self, name: str, engine: Engine | None, topics: frozenset[str], watermarks: Watermarks) -> None:
        self.name, self.engine, self.topics, self.watermarks = name, engine, topics, watermarks


class Domain:
    """The domain of one partition number.

    ``groups`` are its engines, one for each correlation field; ``topics`` are all that it reads: event time
    does not begin before each has sent something or is idle. ``internal`` names topics whose rows were counted when
    they were first read (repartitioned streams, results of windows).
    """

    def __init__(
        self,
        partition: int,
        groups: Sequence[DomainGroup],
        *,
        lateness_us: int = 0,
        validators: Validators | None = None,
        topics: Iterable[str],
        internal: Iterable[str] = (),
        catalog: Catalog = CATALOG,
        decoders: Decoders | None = None,
    ) -> None:
        self.partition = partition
        self.groups = tuple(groups)
        self.lateness_us = lateness_us
        self.counters = Counters()
        self.positions: dict[str, int] = {}
        """Next offset of every topic; what lies before it is in the state."""
        self._validators = validators or Validators((), catalog=catalog)
        self._internal = frozenset(internal)
        self._catalog = catalog
        self._decoders = decoders or Decoders(Contracts(catalog=catalog))
        grouped = {topic for group in self.groups for topic in group.topics.values()}
        rest = frozenset(topics) - grouped
        engines: list[tuple[str, Engine | None, frozenset[str]]] = [
            (group.field, group.engine, frozenset(group.topics.values())) for group in self.groups
        ]
        if rest:
            engines.append(("", None, rest))  # read only to be counted
        self._lanes = [_Lane(*parts, self._clock(parts[2])) for parts in engines]
        self._lanes_of: dict[str, list[_Lane]] = {}
        for lane in self._lanes:
            for topic in lane.topics:
                self._lanes_of.setdefault(topic, []).append(lane)

    def _clock(self, topics: Iterable[str]) -> Watermarks:
        return Watermarks(
            lateness_us=self.lateness_us, expected=[TopicPartition(topic, self.partition) for topic in topics]
        )

    @property
    def watermark_us(self) -> int:
        """Every group has processed everything older."""
        return min(lane.watermarks.watermark_us for lane in self._lanes)

    @property
    def newest_us(self) -> int | None:
        """Newest event time of an open source; None without an open source."""
        known = [time_us for lane in self._lanes for time_us in lane.watermarks.sources.values()]
        return max(known) + self.lateness_us if known else None

    @property
    def asserting(self) -> bool:
        """Whether a producer that asserts watermarks determines event time."""
        return any(lane.watermarks.asserting for lane in self._lanes)

    def feed(self, topic: str, records: Sequence[KafkaRecord]) -> DomainOutput:
        """Take a chunk of one topic, in offset order; records before the topic's position are skipped."""
        output = DomainOutput()
        position = self.positions.get(topic, 0)
        if records and records[0].offset < position:
            records = [record for record in records if record.offset >= position]
        if not records:
            return output
        frames, letters = decode_chunk(topic, self.partition, records, self._catalog, self._decoders)
        counted = topic not in self._internal
        if counted:
            self._dead_letter(letters, output)
            contract = self._decoders.contracts.of_topic(topic)
            if contract.declaration is not None:
                skipped = sum(contract.skips(record.value) for record in records)
                self.counters.skipped += skipped
                self.counters.received += skipped
        for sourced in frames:
            self._take(_Intake(sourced, output, counted))
        self.positions[topic] = records[-1].offset + 1
        for lane in self._lanes_of.get(topic, ()):
            self._advance(lane, output)
        return output

    def mark_idle(self, places: Iterable[TopicPartition], *, asserting: bool = False) -> DomainOutput:
        """The partitions are idle and no longer delay event time, as the caller has found and recorded.

        Producers that assert watermarks are waited for all the same, unless ``asserting``.
        """
        output = DomainOutput()
        places = list(places)
        for lane in self._lanes:
            own = [place for place in places if place.topic in lane.topics]
            for place in own:
                lane.watermarks.mark_idle(place, asserting=asserting)
            if own:
                self._advance(lane, output)
        return output

    def activate(self, places: Iterable[TopicPartition], *, asserting: bool = False) -> None:
        """The partitions are no longer known to be idle: event time waits for them again.

        Producers that assert watermarks and were given up are waited for only with ``asserting``.
        """
        places = list(places)
        for lane in self._lanes:
            lane.watermarks.activate((place for place in places if place.topic in lane.topics), asserting=asserting)

    def mark_all_idle(self, until_us: int | None = None) -> DomainOutput:
        """All topics are idle; event time advances to ``until_us``."""
        output = DomainOutput()
        for lane in self._lanes:
            lane.watermarks.mark_all_idle(until_us)
            self._advance(lane, output)
        return output

    def flush(self) -> DomainOutput:
        """End of input: everything closes, and the state is empty."""
        output = DomainOutput()
        for group in self.groups:
            self._emit(group.engine.flush(), output)
        return output

    def _take(self, intake: _Intake) -> None:
        frame, topic = intake.sourced.frame, intake.sourced.topic
        passed = self._validators.apply(frame)
        for row, reason in passed.refused:
            self._dead_letter_row(intake, row, reason, "validate")
        kept, rows = passed.frame, passed.rows
        late = np.zeros(kept.num_rows, np.bool_)
        rejected = np.zeros(kept.num_rows, np.bool_)
        duplicates = 0
        source = Source(topic, self.partition, frame.origin)
        for lane in self._lanes_of.get(topic, ()):
            named = frame.end or not lane.watermarks.has_announced(source)
            verdict = lane.watermarks.observe(
                source,
                kept.timestamps(),
                watermark_us=frame.watermark_us,
                end=frame.end,
                one_by_one=intake.sourced.offsets is not None,
                peers=self._peers(lane, frame, topic) if named else (),
            )
            late |= verdict.late
            rejected |= verdict.rejected
            if lane.engine is not None:
                if verdict.late.any():
                    lane.engine.push_late(kept.take(np.flatnonzero(verdict.late)))
                duplicates = max(duplicates, self._push(lane.engine, intake.sourced, kept, rows, verdict.on_time))
        for row in np.flatnonzero(rejected).tolist():
            reason = f"timestamp {iso_from_us(int(kept.timestamps()[row]))} is too far in the future of its source"
            self._dead_letter_row(intake, int(rows[row]), reason, "clock")
        if late.any():
            self._put_late(intake, kept, rows, np.flatnonzero(late))
        if intake.counted:
            counters = self.counters
            counters.received += frame.num_rows
            counters.sampled += passed.sampled
            counters.late += int(late.sum())
            counters.duplicate += duplicates
            counters.processed += kept.num_rows - int((late | rejected).sum()) - duplicates

    def _push(
        self, engine: Engine, sourced: SourcedFrame, kept: Frame, rows: NDArray[np.int64], on_time: NDArray[np.bool_]
    ) -> int:
        """Give the rows that are on time to an engine; returns how many it refused as duplicates."""
        if not on_time.any():
            return 0
        if not on_time.all():
            chosen = np.flatnonzero(on_time)
            kept, rows = kept.take(chosen), rows[chosen]
        offsets = sourced.offset if sourced.offsets is None else sourced.offsets[rows]
        return engine.push(kept, topic=sourced.topic, partition=self.partition, offsets=offsets)

    def _peers(self, lane: _Lane, frame: Frame, topic: str) -> list[Source]:
        """Announce the peers of the frame's source, so that a slow start of one makes nothing late."""
        prefix = topic.removesuffix(frame.stream)
        named = [(prefix + stream, origin) for stream, _, origin in (peer.partition("@") for peer in frame.peers)]
        return [Source(name, self.partition, origin or frame.origin) for name, origin in named if name in lane.topics]

    def _put_late(self, intake: _Intake, kept: Frame, rows: NDArray[np.int64], late: NDArray[np.integer]) -> None:
        sourced = intake.sourced
        place = [
            ("late_watermark_us", str(self.watermark_us).encode()),
            ("source_topic", sourced.topic.encode()),
            ("source_partition", str(self.partition).encode()),
        ]
        for row, record in zip(late.tolist(), frame_to_records(kept.take(late), self._catalog), strict=True):
            offset = ("source_offset", str(sourced.offset_of(int(rows[row]))).encode())
            intake.output.late.append(JsonRecord(record.key, record.value, [*record.headers, *place, offset]))

    def _dead_letter(self, letters: Sequence[DeadLetter], output: DomainOutput) -> None:
        output.dead_letters += letters
        self.counters.dead += len(letters)
        self.counters.received += len(letters)

    def _dead_letter_row(self, intake: _Intake, row: int, reason: str, stage: str) -> None:
        if not intake.counted:
            return  # rows of an internal topic were checked where they were first read
        sourced = intake.sourced
        raw: KafkaRecord
        if sourced.received is not None:
            raw = sourced.received[row]
        else:
            record = frame_to_records(sourced.frame.take(np.array([row])), self._catalog)[0]
            time_ms = int(sourced.frame.timestamps()[row]) // 1000
            raw = RawRecord(sourced.offset_of(row), time_ms, record.key, record.value, record.headers)
        inside = sourced.row_of(row)
        intake.output.dead_letters.append(
            dead_letter(raw, sourced.topic, self.partition, reason=reason, stage=stage, row=inside)
        )
        self.counters.dead += 1

    def _advance(self, lane: _Lane, output: DomainOutput) -> None:
        if lane.watermarks.finished:
            if lane.engine is not None:
                self._emit(lane.engine.flush(), output)
            lane.watermarks.reset()
        elif lane.engine is not None:
            self._emit(lane.engine.advance(lane.watermarks.watermark_us), output)

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

    def update(
        self,
        rulesets: Mapping[str, RuleSet],
        validators: Validators | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Put changed rules, validators and declarations in force; unchanged rules keep their partial matches."""
        if validators is not None:
            self._validators = validators
        if decoders is not None:
            self._decoders = decoders
        for group in self.groups:
            group.engine.update(rulesets[group.field])

    def snapshot(self) -> dict[str, Any]:
        """The whole state, with the next offset of every topic."""
        return {
            "positions": orjson.dumps(self.positions),
            "counters": orjson.dumps(self.counters.as_dict()),
            "lanes": {
                lane.name: {
                    "clock": lane.watermarks.snapshot(),
                    "engine": {} if lane.engine is None else lane.engine.snapshot(),
                }
                for lane in self._lanes
            },
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot; groups that it lacks begin empty."""
        self.positions = orjson.loads(bytes(snapshot["positions"]))
        self.counters = Counters(**orjson.loads(bytes(snapshot["counters"])))
        for lane in self._lanes:
            state = snapshot["lanes"].get(lane.name)
            if state is None:
                continue
            lane.watermarks.restore(state["clock"])
            if lane.engine is not None:
                lane.engine.restore(state["engine"])
