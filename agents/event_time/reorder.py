"""The reorder buffer: rows wait until the watermark passes them and leave in an order independent of their arrival.

The order is (timestamp, rank, stream, id). Results of windows (rank 0) precede all other events of the same time:
a window that ends at t contains only older events. Matches as events (rank 2) follow them, since they are made of
them. Ids are ordered as numbers. Those that are made of (run, sequence number) or of (partition, offset) sort as these
do (`schemas.ids`), so that events without an id of their own keep the order in which their producer wrote them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import EventStore
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import producer_word

__all__ = ["MADE_BY_RULE", "MADE_BY_WINDOW", "PRIMARY", "Pending", "Reorder", "Timed"]

MADE_BY_WINDOW, PRIMARY, MADE_BY_RULE = 0, 1, 2


class Timed(Protocol):
    """Rows that can be ordered by time: `agents.cep.rows.Prepared`, `agents.windows.WindowRows`."""

    @property
    def t(self) -> NDArray[np.int64]:
        """Event times in microseconds."""

    def __len__(self) -> int: ...

    def take(self, order: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Rows in the given order."""

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of the parts."""


Rows = TypeVar("Rows", bound=Timed)


@dataclass(slots=True)
class Pending(Generic[Rows]):
    """Pending rows of one frame, with the handles of their events."""

    rows: Rows
    refs: NDArray[np.int64]
    rank: int
    stream: str
    run: str
    first_seq: int
    last_seq: int
    """Range of the rows' sequence numbers."""
    by_sequence: bool
    """The rows are in order of their sequence numbers, from which their ids are computed."""
    ascending: bool
    """Times do not decrease."""

    @classmethod
    def of(cls, frame: Frame, rows: Rows, refs: NDArray[np.int64], rank: int) -> Pending[Rows]:
        """Pending rows prepared from a frame."""
        own_ids = frame.batch.schema.get_field_index("event_id") >= 0
        first, last, by_sequence = frame.first_seq, frame.first_seq + frame.num_rows - 1, not own_ids
        if not own_ids and frame.batch.schema.get_field_index("seq") >= 0 and frame.num_rows:
            sequence = frame.sequences()
            first, last = int(sequence.min()), int(sequence.max())
            by_sequence = bool((sequence[1:] > sequence[:-1]).all())
        ascending = bool((rows.t[1:] >= rows.t[:-1]).all())
        return Pending(rows, refs, rank, frame.stream, frame.run, first, last, by_sequence, ascending)

    def split(self, before_us: int) -> tuple[Pending[Rows] | None, Pending[Rows] | None]:
        """Rows older than ``before_us``, and the other rows."""
        t = self.rows.t
        if self.ascending:
            at = int(np.searchsorted(t, before_us))
            if at == 0:
                return None, self
            if at == len(t):
                return self, None
            return self._take(slice(None, at)), self._take(slice(at, None))
        ready = t < before_us
        if ready.all():
            return self, None
        if not ready.any():
            return None, self
        return self._take(np.flatnonzero(ready)), self._take(np.flatnonzero(~ready))

    def oldest_us(self) -> int:
        """Time of the oldest row, of which there is at least one."""
        return int(self.rows.t[0] if self.ascending else self.rows.t.min())

    def _take(self, chosen: NDArray[np.integer] | slice) -> Pending[Rows]:
        return Pending(self.rows.take(chosen), self.refs[chosen], self.rank, self.stream, self.run, self.first_seq,
                       self.last_seq, self.by_sequence, self.ascending)  # fmt: skip


class Reorder(Generic[Rows]):
    """Rows that wait for the watermark.

    A step costs what its rows cost, not what waits: the frames are found by their oldest row.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Pending[Rows]] = {}
        """Frames by number, in the order in which they came."""
        self._by_oldest: list[tuple[int, int]] = []
        """Heap of the oldest time and the number of each frame."""
        self._pushed = 0

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self._waiting.values())

    def push(self, part: Pending[Rows]) -> None:
        """Add rows to the buffer."""
        if len(part.rows):
            self._wait(self._pushed, part)
            self._pushed += 1

    def _wait(self, number: int, part: Pending[Rows]) -> None:
        self._waiting[number] = part
        heappush(self._by_oldest, (part.oldest_us(), number))

    def refs(self) -> list[NDArray[np.int64]]:
        """Handles of the events in the buffer."""
        return [part.refs for part in self._waiting.values()]

    def oldest_us(self) -> int | None:
        """Oldest event time in the buffer; None if it is empty."""
        return self._by_oldest[0][0] if self._by_oldest else None

    def pop(self, before_us: int, store: EventStore) -> tuple[Rows, NDArray[np.int64]] | None:
        """Rows older than ``before_us`` in processing order, with their handles; None where there are none."""
        ready = self.older(before_us)
        if not ready:
            return None
        if len(ready) == 1 and ready[0].ascending and ready[0].by_sequence:
            return ready[0].rows, ready[0].refs
        return _ordered(ready, store)

    def older(self, before_us: int) -> list[Pending[Rows]]:
        """Rows older than ``before_us``, frame by frame; they wait no longer."""
        numbers = []
        while self._by_oldest and self._by_oldest[0][0] < before_us:
            numbers.append(heappop(self._by_oldest)[1])
        ready: list[Pending[Rows]] = []
        for number in sorted(numbers):
            older, newer = self._waiting[number].split(before_us)
            assert older is not None
            ready.append(older)
            if newer is None:
                del self._waiting[number]
            else:
                self._wait(number, newer)
        return ready

    def clear(self) -> None:
        """Drop all rows."""
        self._waiting, self._by_oldest = {}, []

    def rows(self) -> Iterator[Rows]:
        """The pending rows alone."""
        return (part.rows for part in self._waiting.values())

    def parts(self) -> Collection[Pending[Rows]]:
        """The pending rows, frame by frame."""
        return self._waiting.values()


def _ordered(parts: list[Pending[Rows]], store: EventStore) -> tuple[Rows, NDArray[np.int64]]:
    parts.sort(key=lambda part: (part.rank, part.stream, producer_word(part.run, part.stream), part.first_seq))
    rows = type(parts[0].rows).concat([part.rows for part in parts])
    refs = np.concatenate([part.refs for part in parts])
    order = np.argsort(rows.t, kind="stable")
    if not _in_order_of_ids(parts):
        order = _break_ties(parts, rows.t, refs, order, store)
    return rows.take(order), refs[order]


def _in_order_of_ids(parts: Sequence[Pending[Rows]]) -> bool:
    """Whether the rows of each stream are in order of their ids, part after part, which a stable sort preserves."""
    if not all(part.by_sequence for part in parts):
        return False
    return not any(
        (one.rank, one.stream, one.run) == (two.rank, two.stream, two.run) and one.last_seq >= two.first_seq
        for one, two in pairwise(parts)
    )


def _break_ties(
    parts: Sequence[Pending[Rows]],
    t: NDArray[np.int64],
    refs: NDArray[np.int64],
    order: NDArray[np.int64],
    store: EventStore,
) -> NDArray[np.int64]:
    """Order events of one time and stream by their ids; entries of one event stay adjacent."""
    numbers: dict[tuple[int, str], int] = {}
    of_part = np.array([numbers.setdefault((part.rank, part.stream), len(numbers)) for part in parts])
    stream = np.repeat(of_part, [len(part.rows) for part in parts])[order]
    times, names = t[order], refs[order]
    together = (times[1:] == times[:-1]) & (stream[1:] == stream[:-1])
    if not (together & (names[1:] != names[:-1])).any():
        return order
    tied = np.zeros(len(order), np.bool_)
    tied[1:] |= together
    tied[:-1] |= together
    places = np.flatnonzero(tied)
    ids = store.locate(names[places]).ids()
    within = np.lexsort((ids[:, 1], ids[:, 0], stream[places], times[places]))
    order[places] = order[places][within]
    return order
