"""The repartition role: copies streams to internal topics partitioned by the field by which rules correlate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.clock_guard import CLOCK_TOLERANCE_US, Admitted, ClockGuard
from astrocyte.agents.event_time.sources import Source
from astrocyte.agents.ingest.copies import WAITED, Copied, Copy, end_of, positions_of
from astrocyte.agents.ingest.decode import RETRY_ORIGIN, KafkaTimes, decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.ingest.letters import row_letter
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.pipeline.kafka.partition_end import AtEnd
from astrocyte.pipeline.topology.plan import Repartition
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import ROW_BITS
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.partitioning import partition_keys
from astrocyte.schemas.times import NEVER_US, are_event_times

__all__ = ["Repartitioner"]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One event that waits, its input partition and its position there."""

    frame: Frame
    partition: int
    position: int

    def pack(self) -> list[Any]:
        """The event for a snapshot."""
        return [encode_frame(self.frame), self.partition, self.position]

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> _Waiting:
        """The event of a snapshot."""
        return cls(decode_frame(bytes(packed[0]), bounded=False), *packed[1:])


@dataclass(slots=True)
class Repartitioner:
    """Repartitions one stream. The ids of rows do not change; each input partition becomes an origin of its own.

    Every frame carries a watermark: that of the producer, or the newest timestamp minus the lateness. The reader waits
    for every input partition, so a silent one is reported to it (`silence`): idle until it sends again. When all
    were silent and one sends, the reader waits for all of them again.

    A copy names the positions of its rows, so that its reader takes each once although chunks are repeated after a
    crash. Doubted events wait in `snapshot`, from which the next owner of an input partition goes on.
    """

    repartition: Repartition
    partitions: int
    """Partition count of the internal topic: the number of domains."""
    lateness_us: int
    clock_tolerance_us: int = CLOCK_TOLERANCE_US
    decoders: Decoders | None = None
    _clocks: ClockGuard[_Waiting] = field(init=False)
    _newest_us: dict[tuple[int, str], int] = field(default_factory=dict)
    _heard_s: dict[int, dict[str, float]] = field(default_factory=dict)
    """By input partition: when each origin last sent, until it ends or is reported as silent; infinity for one that
    asserts watermarks. A partition that has not sent yet counts as one of an origin without a name.
    """
    _unannounced: set[int] = field(default_factory=set)
    """Input partitions that the reader may believe to be silent, although they may have records that wait."""
    _silent: set[int] = field(default_factory=set)
    """Input partitions whose origin without a name was reported as silent, and was not heard or announced since."""
    _carried: dict[int, int] = field(default_factory=dict)
    """By input partition: offset after what was carried over since the partition was assigned."""
    _covered: dict[int, int] = field(default_factory=dict)
    """By input partition: offset up to which copies say that none follows."""
    _begins: dict[int, int] = field(default_factory=dict)
    """By input partition: offset of the first message that the restored state does not contain."""

    def __post_init__(self) -> None:
        self._clocks = ClockGuard(tolerance_us=self.clock_tolerance_us, lateness_us=self.lateness_us)

    def assign(self, partitions: Iterable[int], now_s: float = 0.0) -> None:
        """The input partitions that this worker reads."""
        partitions = list(partitions)
        self._carried.clear()
        self._unannounced = set(partitions)  # a worker before this one may have reported them as silent
        self._silent &= self._unannounced
        self._heard_s = {number: self._heard_s.get(number, {"": now_s}) for number in partitions}

    def snapshot(self, partition: int, next_offset: int) -> dict[str, Any]:
        """State of an input partition before the message at ``next_offset``, for `restore`."""
        clocks = [each for each in self._clocks.snapshot(_Waiting.pack) if each[0][1] == partition]
        newest = [[origin, time_us] for (number, origin), time_us in self._newest_us.items() if number == partition]
        return {"next_offset": next_offset, "clocks": clocks, "newest_us": newest}

    def restore(self, snapshots: Mapping[int, Mapping[str, Any] | None]) -> None:
        """Replace the state of some input partitions; None is an empty one.

        Of records that follow, those that a state contains are skipped.
        """
        kept = [each for each in self._clocks.snapshot(_Waiting.pack) if each[0][1] not in snapshots]
        self._newest_us = {place: time_us for place, time_us in self._newest_us.items() if place[0] not in snapshots}
        for partition, state in snapshots.items():
            self._begins.pop(partition, None)
            if state is not None:
                self._begins[partition] = int(state["next_offset"])
                kept += state["clocks"]
                self._newest_us.update({(partition, origin): time_us for origin, time_us in state["newest_us"]})
        self._clocks.restore(kept, _Waiting.unpack)

    def step(
        self, partition: int, records: Sequence[KafkaRecord], now_s: float = 0.0
    ) -> tuple[list[Copy], list[DeadLetter]]:
        """Copies of one chunk for the internal topic, and dead letters of the rows that cannot be keyed by its field.

        Messages that cannot be decoded are left out: the correlate role, which counts the source, reports them.
        """
        begin = self._begins.get(partition, 0)
        if records and records[0].offset < begin:
            records = [record for record in records if record.offset >= begin]
        sourced, _ = decode_chunk(self.repartition.source, partition, records, decoders=self.decoders)
        heard = self._heard_s.setdefault(partition, {"": now_s})
        copies: list[Copy] = []
        letters: list[DeadLetter] = []
        stamps = KafkaTimes(records)
        for item in sourced:
            frame, places = self._keyed(item, letters)
            if frame.origin == RETRY_ORIGIN:
                # Its source delays no event time here either.
                copies.append(Copy(frame, self._copied(item, positions_of(item)[places])))
                continue
            if frame.watermark_us is not None:
                heard[frame.origin] = math.inf
            elif heard.get(frame.origin) != math.inf:
                copies += [Copy(each) for each in self._wake(frame.origin, partition, now_s)]
                heard[frame.origin] = now_s
                if not frame.origin:
                    self._silent.discard(partition)
            for copy in self._judged(item, frame, places, stamps):
                parts = [copy] if item.offsets is None else self._one_by_one(copy, partition)
                copies += [replace(part, frame=self._relabel(part.frame, partition)) for part in parts]
            if frame.end:
                del heard[frame.origin]
                self._newest_us.pop((partition, frame.origin), None)
        through = [each.copied.through for each in copies if each.copied is not None]
        self._cover(partition, (max(through, default=WAITED) >> ROW_BITS) + 1)
        return copies, letters

    def trust(self, until_us: int | None = None, *, partition: int | None = None, idle: bool = False) -> list[Copy]:
        """Events that waited and are accepted, up to a time that the caller knows to have passed; see `ClockGuard`.

        ``partition``: only those of an input partition, which may be ``idle``.
        """
        clocks = self._clocks
        sources = [source for source in clocks.sources if partition in (None, source.partition)]
        steps = [
            step
            for source in sources
            for step in clocks.trust(until_us, of=source, idle=(source.place,) if idle else ())
        ]
        return [
            replace(copy, frame=self._relabel(copy.frame, copy.copied.partition))
            for copy in _released(steps)
            if copy.copied is not None
        ]

    def is_silent(self, partition: int) -> bool:
        """Whether every origin of an input partition was reported as silent or has ended."""
        return partition in self._heard_s and not self._heard_s[partition]

    @property
    def waiting(self) -> int:
        """Number of events that wait."""
        return self._clocks.waiting

    def _judged(self, item: SourcedFrame, frame: Frame, places: NDArray[np.int64], stamps: KafkaTimes) -> list[Copy]:
        """The frame without the rows whose clocks are doubted, as the correlate role judges (and counts) them.

        ``frame`` has the rows ``places`` of the item.
        Rows that waited are in frames of their own.
        """
        positions = positions_of(item)[places]
        if frame.watermark_us is not None or frame.peers or not frame.num_rows:
            return [Copy(frame, self._copied(item, positions))]
        rows = np.flatnonzero(are_event_times(frame.timestamps()))  # others are no events for any reader
        if len(rows) < frame.num_rows:
            frame, places, positions = frame.take(rows), places[rows], positions[rows]
        source = Source(item.topic, item.partition, frame.origin)
        waited = self._open(item.partition)
        made: dict[int, int] = {}

        def wait(row: int) -> _Waiting:
            position = int(positions[row])
            made[position] = row
            return _Waiting(replace(frame.take(np.array([row])), end=False), item.partition, position)

        steps = self._clocks.admit(source, frame.timestamps(), frame.column("key"), stamps.of(item, places), wait)
        if steps is None:
            return [Copy(frame, self._copied(item, positions))]
        # Records are copied in the order in which they were accepted; the rows of one message come at once.
        singly = item.offsets is not None
        at_once = set() if singly else {step.waited.item.position for step in steps if step.waited} & made.keys()
        opened = sorted((waited | made.keys()) - at_once)
        first = Copied(item.partition, int(positions[0]) - 1, positions[:0], opened)
        copies = [Copy(replace(frame.slice(0, 0), end=False), first)]
        batch: list[int] = []

        def part(copied: Copied | None = None) -> None:
            rows = np.array(batch if singly else sorted(batch), np.int64)
            known = copied or Copied(item.partition, int(positions[rows[-1]]), positions[rows], opened)
            end = copied is not None and frame.end
            copies.append(Copy(replace(frame.take(rows), end=end), replace(known, positions=positions[rows])))
            batch.clear()

        for step in steps:
            if step.waited is None:
                batch += step.rows
            elif step.waited.item.position in at_once:
                batch += [made[step.waited.item.position]] if step.reason is None else []
            elif step.reason is None:
                if singly and batch:
                    part()
                copies += _released([step])
        if frame.end:
            if batch:
                part()
            copies += _released(self._clocks.trust(of=source))
            self._clocks.forget(source)
        part(self._copied(item, positions[:0], after=frame.end))
        return copies

    def _one_by_one(self, copy: Copy, partition: int) -> list[Copy]:
        """The copy in parts, none of which has a row that only rows before it in the part make late.

        The rows of a frame come at once for its reader, but these were messages of their own: which of them are late
        must not depend on how fetches divided them.
        """
        frame, copied = copy.frame, copy.copied
        if frame.num_rows < 2 or copied is None:
            return [copy]
        times = frame.timestamps()
        newest_us = self._newest_us.get((partition, frame.origin), NEVER_US + self.lateness_us)
        limits = np.maximum.accumulate(np.concatenate([[newest_us], times[:-1]])) - self.lateness_us
        cuts: list[int] = []
        limit_us = int(limits[0])
        for row in np.flatnonzero(times < limits).tolist():
            if times[row] >= limit_us:
                cuts.append(row)
                limit_us = int(limits[row])
        parts = []
        for first, last in pairwise([0, *cuts, frame.num_rows]):
            through = copied.through if last == frame.num_rows else int(copied.positions[last - 1])
            known = replace(copied, positions=copied.positions[first:last], through=through)
            parts.append(Copy(frame.take(np.arange(first, last)), known))
        return parts

    def _open(self, partition: int) -> set[int]:
        """Positions of the events of an input partition that wait."""
        return {each.position for each in self._clocks.items() if each.partition == partition}

    def _copied(self, item: SourcedFrame, positions: NDArray[np.int64], *, after: bool = False) -> Copied:
        """From where the last rows of an item come; ``after``: the frame comes after all rows of its message."""
        every = positions_of(item)
        through = int(every[-1]) if len(every) and not after else end_of(item.offset)
        return Copied(item.partition, through, positions, sorted(self._open(item.partition)))

    def carried(self, partition: int, next_offset: int, began_s: float, now_s: float) -> None:
        """What `step` made of a chunk at ``began_s`` is confirmed; only now does the silence after it begin."""
        self._carried[partition] = next_offset
        heard = self._heard_s.get(partition, {})
        heard.update({origin: now_s for origin, moment in heard.items() if began_s <= moment < now_s})

    def silence(self, at_end: Callable[[int], AtEnd | None], timeout_s: float) -> list[Copy]:
        """Frames that report the origins that have said nothing on a partition for ``timeout_s``, once each.

        ``at_end`` says what the broker has answered about an input partition. Only time in which it answered counts,
        and only once all that it had was carried over.
        """
        frames = []
        for number, heard in self._heard_s.items():
            proven_s = self._silent_since_s(number, at_end, timeout_s)
            if proven_s is None:
                continue
            if heard.get("", math.inf) <= proven_s:
                self._silent.add(number)
            for origin in sorted(origin for origin, moment in heard.items() if moment <= proven_s):
                del heard[origin]
                self._newest_us.pop((number, origin), None)
                frames.append(Copy(self._empty(origin, number, end=True), silent=True))
        return frames

    def cover(self, at_end: Callable[[int], AtEnd | None], timeout_s: float) -> list[Copy]:
        """Reports of silence that name the end of a partition, where copies do not: what lies before it was no event.

        By them the reader knows that nothing is still to be copied. Call it after `silence`.
        """
        copies = []
        for number, heard in self._heard_s.items():
            end, proven_s = at_end(number), self._silent_since_s(number, at_end, timeout_s)
            if end is None or proven_s is None or "" in heard or end.offset <= self._covered.get(number, 0):
                continue
            self._cover(number, end.offset)
            copied = Copied(number, end_of(end.offset - 1), np.empty(0, np.int64), sorted(self._open(number)))
            copies.append(Copy(self._empty("", number, end=True), copied, silent=True))
        return copies

    def _cover(self, number: int, offset: int) -> None:
        self._covered[number] = max(self._covered.get(number, 0), offset)

    def recheck(self, at_end: Callable[[int], AtEnd | None], timeout_s: float) -> None:
        """Called before `step`: of partitions that were reported as silent, look whether this is still proven.

        Others may have records that wait, as after this process stood still: `step` announces them before it copies.
        """
        self._unannounced |= {
            number for number in self._silent if self._silent_since_s(number, at_end, timeout_s) is None
        }

    def _silent_since_s(self, number: int, at_end: Callable[[int], AtEnd | None], timeout_s: float) -> float | None:
        """The moment after which an input partition had nothing for ``timeout_s``; None if that is not proven."""
        end = at_end(number)
        if end is None or end.is_queued(self._carried.get(number)):
            return None
        proven_s = end.until_s - timeout_s
        return None if proven_s < end.reading_since_s else proven_s

    def _wake(self, origin: str, partition: int, now_s: float) -> list[Frame]:
        """Frames that announce an origin on the other partitions, if it is new or was silent on all of them.

        Beside that, it is announced where records may wait that nobody has seen: after an assignment, and by `recheck`.
        """
        others = set(self._heard_s)
        if any(origin in heard for heard in self._heard_s.values()):
            others = set() if origin else self._unannounced
        if not origin:
            self._unannounced = set()
        opened = sorted(n for n in others - {partition} if self._heard_s[n].get(origin) != math.inf)
        for number in opened:
            self._heard_s[number].setdefault(origin, now_s)
        if not origin:
            self._silent.difference_update(opened)
        return [self._empty(origin, number) for number in opened]

    def _empty(self, origin: str, partition: int, *, end: bool = False) -> Frame:
        """A frame without rows. It names no peers, because it makes no statement about partitions of other workers."""
        columns: dict[str, list[object]] = {"timestamp": [], "key": []}
        return Frame.from_columns(self.repartition.stream, "", columns, origin=_origin(origin, partition), end=end)

    def _keyed(self, sourced: SourcedFrame, letters: list[DeadLetter]) -> tuple[Frame, NDArray[np.int64]]:
        """The frame without the rows whose field is no key, since reading it raises, and the rows that it has."""
        frame, field = sourced.frame, self.repartition.field
        try:
            partition_keys(frame, field)
            return frame, np.arange(frame.num_rows)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  found row by row below, whatever it is
            reason_of("repartitioning an event", error)
        good: list[int] = []

        def refuse(row: int, error: Exception) -> None:
            reason = reason_of("repartitioning an event", error)
            letters.append(row_letter(sourced, row, reason=reason, stage="repartition", catalog=CATALOG))

        def attempt(first: int, last: int) -> None:
            partition_keys(frame.take(np.arange(first, last)), field)
            good.extend(range(first, last))

        apart(frame.num_rows, attempt, refuse)
        rows = np.array(good, np.int64)
        return frame.take(rows), rows

    def _relabel(self, frame: Frame, partition: int) -> Frame:
        place = (partition, frame.origin)
        watermark_us = frame.watermark_us
        waited_for: Iterable[int] = range(self.repartition.partitions or self.partitions)
        if watermark_us is None and frame.num_rows:
            newest_us = max(self._newest_us.get(place, -(2**63)), int(frame.timestamps().max()))
            self._newest_us[place] = newest_us
            watermark_us = newest_us - self.lateness_us
            if frame.origin and not frame.peers:
                # Only this worker knows the origin, so only this worker can report its silence.
                waited_for = sorted({partition, *self._heard_s})
        peers = tuple(f"{frame.stream}@{_origin(frame.origin, other)}" for other in waited_for)
        return replace(frame, origin=_origin(frame.origin, partition), watermark_us=watermark_us, peers=peers)


def _released(steps: Iterable[Admitted[_Waiting]]) -> list[Copy]:
    """Copies of the events that waited and are accepted."""
    accepted = [step.waited.item for step in steps if step.waited is not None and step.reason is None]
    return [Copy(each.frame, Copied(each.partition, WAITED, np.array([each.position], np.int64))) for each in accepted]


def _origin(origin: str, partition: int) -> str:
    return f"{origin}/{partition}"
