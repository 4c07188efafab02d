"""The repartition role: copies streams to internal topics whose key is the field by which rules correlate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US, ClockGuard
from astrocyte.agents.event_time.watermarks import Source
from astrocyte.agents.ingest.decode import RETRY_ORIGIN, KafkaTimes, decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.ingest.letters import row_letter
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.partitioning import repartition
from astrocyte.schemas.times import NEVER_US, are_event_times

__all__ = ["Repartitioner"]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One event that waits, and its input partition."""

    frame: Frame
    partition: int


@dataclass(slots=True)
class Repartitioner:
    """Repartitions one stream. The ids of rows do not change; each input partition becomes an origin of its own.

    Every frame carries a watermark: that of the producer, or the newest timestamp minus the lateness. The reader waits
    for every input partition, so a silent one is reported to it as ended (`silence`) until it sends again. When all
    were silent and one sends, the reader waits for all of them again.
    """

    repartition: Repartition
    partitions: int
    lateness_us: int
    clock_tolerance_us: int = CLOCK_TOLERANCE_US
    decoders: Decoders | None = None
    _clocks: ClockGuard[_Waiting] = field(init=False)
    _newest_us: dict[tuple[int, str], int] = field(default_factory=dict)
    _heard_s: dict[int, dict[str, float]] = field(default_factory=dict)
    """By input partition: when each origin last sent, until it ends or is reported as silent; infinity for one that
    asserts watermarks. A partition that has not sent yet counts as one of an origin without a name.
    """
    _carried: dict[int, int] = field(default_factory=dict)
    """By input partition: offset after what was carried over since the partition was assigned."""

    def __post_init__(self) -> None:
        self._clocks = ClockGuard(tolerance_us=self.clock_tolerance_us, lateness_us=self.lateness_us)

    def assign(self, partitions: Iterable[int], now_s: float = 0.0) -> None:
        """The input partitions that this worker reads."""
        self._carried.clear()
        self._heard_s = {number: self._heard_s.get(number, {"": now_s}) for number in partitions}

    def step(
        self, partition: int, records: Sequence[KafkaRecord], now_s: float = 0.0
    ) -> tuple[list[Frame], list[DeadLetter]]:
        """Frames of one chunk for the internal topic, and dead letters of the rows that cannot be keyed by its field.

        Messages that cannot be decoded are left out: the correlate role, which counts the source, reports them.
        """
        sourced, _ = decode_chunk(self.repartition.source, partition, records, decoders=self.decoders)
        heard = self._heard_s.setdefault(partition, {"": now_s})
        frames: list[Frame] = []
        letters: list[DeadLetter] = []
        stamps = KafkaTimes(records)
        for item in sourced:
            frame, places = self._keyed(item, letters)
            if frame.origin == RETRY_ORIGIN:
                frames.append(frame)  # its source delays no event time here either
                continue
            if frame.watermark_us is not None:
                heard[frame.origin] = math.inf
            elif heard.get(frame.origin) != math.inf:
                frames += self._wake(frame.origin, partition, now_s)
                heard[frame.origin] = now_s
            for judged in self._judged(item, frame, places, stamps):
                parts = [judged] if item.offsets is None else self._one_by_one(judged, partition)
                frames += [self._relabel(part, partition) for part in parts]
            if frame.end:
                del heard[frame.origin]
                self._newest_us.pop((partition, frame.origin), None)
        return frames, letters

    def trust(self, until_us: int | None = None) -> list[Frame]:
        """Events that waited and are accepted, up to a time that the caller knows to have passed; see `ClockGuard`."""
        return [
            self._relabel(step.waited.item.frame, step.waited.item.partition)
            for step in self._clocks.trust(until_us)
            if step.waited is not None and step.reason is None
        ]

    def _judged(self, item: SourcedFrame, frame: Frame, places: NDArray[np.int64], stamps: KafkaTimes) -> list[Frame]:
        """The frame without the rows whose clocks are doubted, as the correlate role judges (and counts) them.

        ``frame`` has the rows ``places`` of the item with their new key; clocks are those of the keys that they had.
        Rows that waited are frames of their own: before the others, or in their place where each row was a message.
        """
        if frame.watermark_us is not None or frame.peers or not frame.num_rows:
            return [frame]
        rows = np.flatnonzero(are_event_times(frame.timestamps()))  # others are no events for any reader
        if len(rows) < frame.num_rows:
            frame, places = frame.take(rows), places[rows]
        keys = item.frame.column("key")
        if len(places) < len(keys):
            keys = keys.take(pa.array(places))
        made: dict[int, int] = {}

        def wait(row: int) -> _Waiting:
            waiting = _Waiting(replace(frame.take(np.array([row])), end=False), item.partition)
            made[id(waiting)] = row
            return waiting

        source = Source(item.topic, item.partition, frame.origin)
        kafka_us = stamps.of(item, places)
        steps = self._clocks.admit(source, frame.timestamps(), keys, kafka_us, wait)
        if steps is None:
            return [frame]
        singly = item.offsets is not None
        before: list[Frame] = []
        batch: list[int] = []
        for step in steps:
            if step.waited is None:
                batch += step.rows
            elif step.reason is None and id(step.waited.item) in made:
                batch.append(made[id(step.waited.item)])
            elif step.reason is None:
                if singly and batch:
                    before.append(frame.take(np.array(batch, np.int64)))
                    batch = []
                before.append(step.waited.item.frame)
        if frame.end:
            ended = self._clocks.trust(of=source)
            before += [step.waited.item.frame for step in ended if step.waited is not None and step.reason is None]
            self._clocks.forget(source)
        return [*before, frame.take(np.array(batch if singly else sorted(batch), np.int64))]

    def _one_by_one(self, frame: Frame, partition: int) -> list[Frame]:
        """The frame in parts, none of which has a row that only rows before it in the part make late.

        The rows of a frame come at once for its reader, but these were messages of their own: which of them are late
        must not depend on how fetches divided them.
        """
        times = frame.timestamps()
        if frame.num_rows < 2:
            return [frame]
        newest_us = self._newest_us.get((partition, frame.origin), NEVER_US + self.lateness_us)
        limits = np.maximum.accumulate(np.concatenate([[newest_us], times[:-1]])) - self.lateness_us
        cuts: list[int] = []
        limit_us = int(limits[0])
        for row in np.flatnonzero(times < limits).tolist():
            if times[row] >= limit_us:
                cuts.append(row)
                limit_us = int(limits[row])
        return [frame.take(np.arange(first, last)) for first, last in pairwise([0, *cuts, frame.num_rows])]

    def carried(self, partition: int, next_offset: int, began_s: float, now_s: float) -> None:
        """What `step` made of a chunk at ``began_s`` is confirmed; only now does the silence after it begin."""
        self._carried[partition] = next_offset
        heard = self._heard_s.get(partition, {})
        heard.update({origin: now_s for origin, moment in heard.items() if began_s <= moment < now_s})

    def silence(self, at_end: Callable[[int], AtEnd | None], timeout_s: float) -> list[Frame]:
        """Frames that end the origins that have said nothing on a partition for ``timeout_s``, once each.

        ``at_end`` says what the broker has answered about an input partition. Only time in which it answered counts,
        and only once all that it had was carried over.
        """
        frames = []
        for number, heard in self._heard_s.items():
            end = at_end(number)
            if end is None or (end.delivered is not None and self._carried.get(number, -1) < end.delivered):
                continue
            proven_s = end.until_s - timeout_s
            if proven_s < end.reading_since_s:
                continue
            for origin in sorted(origin for origin, moment in heard.items() if moment <= proven_s):
                del heard[origin]
                self._newest_us.pop((number, origin), None)
                frames.append(self._empty(origin, number, end=True))
        return frames

    def _wake(self, origin: str, partition: int, now_s: float) -> list[Frame]:
        """Frames that announce an origin on the other partitions, if it is new or was silent on all of them."""
        if any(origin in heard for heard in self._heard_s.values()):
            return []
        others = [number for number in self._heard_s if number != partition]
        for number in others:
            self._heard_s[number][origin] = now_s
        return [self._empty(origin, number) for number in others]

    def _empty(self, origin: str, partition: int, *, end: bool = False) -> Frame:
        """A frame without rows. It names no peers, because it makes no statement about partitions of other workers."""
        columns: dict[str, list[object]] = {"timestamp": [], "key": []}
        return Frame.from_columns(self.repartition.stream, "", columns, origin=_origin(origin, partition), end=end)

    def _keyed(self, sourced: SourcedFrame, letters: list[DeadLetter]) -> tuple[Frame, NDArray[np.int64]]:
        """The frame with the field as its key, without the rows on which that raises, and the rows that it has."""
        frame, field = sourced.frame, self.repartition.field
        try:
            return repartition(frame, field), np.arange(frame.num_rows)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  found row by row below, whatever it is
            reason_of("repartitioning an event", error)
        good: list[int] = []

        def refuse(row: int, error: Exception) -> None:
            reason = reason_of("repartitioning an event", error)
            letters.append(row_letter(sourced, row, reason=reason, stage="repartition", catalog=CATALOG))

        def attempt(first: int, last: int) -> None:
            repartition(frame.take(np.arange(first, last)), field)
            good.extend(range(first, last))

        apart(frame.num_rows, attempt, refuse)
        rows = np.array(good, np.int64)
        return repartition(frame.take(rows), field), rows

    def _relabel(self, frame: Frame, partition: int) -> Frame:
        place = (partition, frame.origin)
        watermark_us = frame.watermark_us
        waited_for: Iterable[int] = range(self.partitions)
        if watermark_us is None and frame.num_rows:
            newest_us = max(self._newest_us.get(place, -(2**63)), int(frame.timestamps().max()))
            self._newest_us[place] = newest_us
            watermark_us = newest_us - self.lateness_us
            if frame.origin and not frame.peers:
                # Only this worker knows the origin, so only this worker can report its silence.
                waited_for = sorted({partition, *self._heard_s})
        peers = tuple(f"{frame.stream}@{_origin(frame.origin, other)}" for other in waited_for)
        return replace(frame, origin=_origin(frame.origin, partition), watermark_us=watermark_us, peers=peers)


def _origin(origin: str, partition: int) -> str:
    return f"{origin}/{partition}"
