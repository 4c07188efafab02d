"""Copies of events in internal topics: each is taken once, although its writer repeats itself after a crash.

The writer (`pipeline.topology.repartition`) names with each message the partition from which its rows were copied and
their positions there. Positions grow, so what is not beyond the last one came before. Events that waited until their
clocks were judged come later than their position: the messages before them say which positions are still open.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.arrow.stream import MOST_BYTES
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import ROW_BITS
from astrocyte.schemas.json.reader import KafkaRecord, RawRecord

__all__ = [
    "COPY_HEADER",
    "SILENT_HEADER",
    "WAITED",
    "Copied",
    "CopiesOnce",
    "Copy",
    "Originals",
    "end_of",
    "fitting",
    "is_silence",
    "positions_of",
]

COPY_HEADER: Final = "astrocyte-copied"
SILENT_HEADER: Final = "astrocyte-silent"
"""Of a message without rows: its source has been silent for the idle timeout. It is idle, and has not ended."""
WAITED: Final = -2
_HEAD: Final = struct.Struct("<iqI")


def positions_of(sourced: SourcedFrame) -> NDArray[np.int64]:
    """Position of each row in its partition, greater than those before it: the offset, `ROW_BITS` of its number."""
    count = sourced.frame.num_rows
    offsets = np.full(count, sourced.offset, np.int64) if sourced.offsets is None else sourced.offsets
    if sourced.numbers is not None:
        return (offsets << ROW_BITS) + sourced.numbers
    return (offsets << ROW_BITS) + (np.arange(count) if sourced.offsets is None else 0)


def is_silence(record: KafkaRecord) -> bool:
    """Whether a message of a copy only says that its source is silent."""
    return any(name == SILENT_HEADER for name, _ in record.headers)


def end_of(offset: int) -> int:
    """Position after all rows of the message at an offset, and before those of the next."""
    return ((offset + 1) << ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Copied:
    """From where the rows of one message were copied."""

    partition: int
    through: int
    """No row up to this position follows, but the open ones; `WAITED` in a message with one event that waited."""
    positions: NDArray[np.int64]
    """Position of each row, in order."""
    open: Sequence[int] = ()
    """Positions of the events that wait."""

    @property
    def waited(self) -> bool:
        """Whether this is an event that waited, and says nothing about others."""
        return self.through == WAITED

    def fits(self, sourced: SourcedFrame) -> bool:
        """Whether it names the position of each row of a frame."""
        if sourced.numbers is not None:
            return int(sourced.numbers.max(initial=-1)) < len(self.positions)
        return len(self.positions) == sourced.frame.num_rows

    def pack(self) -> bytes:
        """Value of the header."""
        numbers = np.concatenate([np.array(self.open, np.int64), self.positions])
        body = np.diff(numbers, prepend=np.int64(0)).astype("<i8").tobytes()
        return _HEAD.pack(self.partition, self.through, len(self.open)) + zlib.compress(body, 1)

    @classmethod
    def unpack(cls, data: bytes) -> Copied:
        """The inverse of `pack`. Raises ValueError."""
        try:
            partition, through, count = _HEAD.unpack_from(data)
            unpacking = zlib.decompressobj()
            body = unpacking.decompress(data[_HEAD.size :], MOST_BYTES)
            if not unpacking.eof or count > len(body) // 8 or partition < 0:
                raise ValueError(f"{len(body):,} bytes that are not complete, too many or not as announced")
            numbers = np.cumsum(np.frombuffer(body, "<i8")).astype(np.int64)
        except (struct.error, zlib.error, ValueError) as error:
            raise ValueError(f"header {COPY_HEADER}: {error}") from None
        return cls(partition, through, numbers[count:], tuple(numbers[:count].tolist()))


@dataclass(frozen=True, slots=True)
class Copy:
    """A frame for an internal topic, and from where its rows come; None in one that only speaks of event time."""

    frame: Frame
    copied: Copied | None = None
    silent: bool = False
    """Whether it says that its source is silent; it has no rows then."""


def fitting(
    frames: Sequence[SourcedFrame], copied: Mapping[int, Copied], records: Iterable[KafkaRecord]
) -> tuple[list[SourcedFrame], list[tuple[KafkaRecord, str]]]:
    """The frames that are no copies, or name the place of each of their rows; and the messages of the others."""
    odd = {each.offset for each in frames if each.offset in copied and not copied[each.offset].fits(each)}
    if not odd:
        return list(frames), []
    reason = f"header {COPY_HEADER}: it does not name the place of each row of the message"
    return (
        [each for each in frames if each.offset not in odd],
        [(record, reason) for record in records if record.offset in odd],
    )


@dataclass(frozen=True, slots=True)
class Originals:
    """Where the rows of a frame stand in the topic of which they are copies."""

    topic: str
    partition: int
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, topic: str, copied: Copied, sourced: SourcedFrame) -> Originals:
        """The places of the rows of a frame that was read from a copy."""
        positions = copied.positions if sourced.numbers is None else copied.positions[sourced.numbers]
        return cls(topic, copied.partition, positions >> ROW_BITS)


@dataclass(slots=True)
class _Source:
    first: int
    """Position at which reading began: what was open then is not known, so it is taken."""
    through: int = -1
    open: set[int] = field(default_factory=set)

    def takes(self, position: int, *, waited: bool) -> bool:
        """Whether a row has not come before."""
        return position in self.open or position < self.first or (position > self.through and not waited)


class CopiesOnce:
    """Which copies were taken, by topic and the partition from which they were copied."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int], _Source] = {}

    def through(self, topic: str, partition: int) -> int:
        """Offset after the newest message of an input partition of which copies have come on a topic; 0 for none."""
        known = self._sources.get((topic, partition))
        return 0 if known is None else (known.through >> ROW_BITS) + 1

    def fresh(
        self, topic: str, records: Iterable[KafkaRecord], *, numbered: bool = False
    ) -> tuple[list[KafkaRecord], dict[int, Copied], list[tuple[KafkaRecord, str]]]:
        """The messages without the rows that came before; others than copies are returned as they are.

        Also, by offset, from where the rows of those that are copies come; and, with the reason, those that do not say
        from where. ``numbered``: messages without rows say after which row they come, and are no repetition there.
        """
        kept = []
        places: dict[int, Copied] = {}
        refused: list[tuple[KafkaRecord, str]] = []
        for record in records:
            packed = next((value for name, value in record.headers if name == COPY_HEADER), None)
            if packed is None:
                kept.append(record)
                continue
            try:
                taken = self._take(topic, record, Copied.unpack(packed), numbered=numbered)
            except ValueError as error:
                refused.append((record, str(error)))
                continue
            if taken is not None:
                kept.append(taken[0])
                places[record.offset] = taken[1]
        return kept, places, refused

    def _take(
        self, topic: str, record: KafkaRecord, copied: Copied, *, numbered: bool
    ) -> tuple[KafkaRecord, Copied] | None:
        known = self._sources.get((topic, copied.partition))
        if known is None:
            first = min([copied.through + 1, *copied.positions[:1].tolist()]) if not copied.waited else 2**62
            known = self._sources[topic, copied.partition] = _Source(first)
        before = known.through
        if numbered and not len(copied.positions) and copied.through == before:
            return record, copied
        known.open.update(position for position in copied.open if position > before)
        if copied.through > before and not known.open and (not len(copied.positions) or copied.positions[0] > before):
            known.through = copied.through
            return record, copied
        fresh = np.array([known.takes(each, waited=copied.waited) for each in copied.positions.tolist()], np.bool_)
        known.open.difference_update(copied.positions.tolist())
        if copied.through > before:
            known.through = copied.through
            # What the writer no longer has among the open ones was refused.
            known.open.intersection_update(copied.open)
        elif not fresh.any():
            return None
        if fresh.all():
            return record, copied
        try:
            frame = decode_frame(record.value or b"")
        except InvalidFrame:
            return record, copied  # the reader of messages refuses it, with its reason
        if frame.num_rows != len(fresh):
            return record, copied
        rows = np.flatnonzero(fresh)
        kept = RawRecord(record.offset, record.timestamp, record.key, encode_frame(frame.take(rows)), record.headers)
        return kept, replace(copied, positions=copied.positions[rows])

    def begin(self, topic: str, partition: int, offset: int, opened: Iterable[int]) -> None:
        """The rows of the messages before an offset of the original are known already, but for the ``opened`` ones."""
        self._sources[topic, partition] = _Source(0, end_of(offset - 1), set(opened))

    def snapshot(self) -> list[list[Any]]:
        """State as JSON values."""
        return [[*place, known.first, known.through, sorted(known.open)] for place, known in self._sources.items()]

    def restore(self, snapshot: Iterable[Sequence[Any]]) -> None:
        """Restore the state of `snapshot`."""
        self._sources = {
            (topic, partition): _Source(first, through, set(waiting))
            for topic, partition, first, through, waiting in snapshot
        }
