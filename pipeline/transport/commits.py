"""Exact tracking of committable offsets: the offset before which everything delivered has been acknowledged.

Bookkeeping only: no clock, lock or network. Stock Faust infers gaps from lists of offsets and commits past messages
that are not acknowledged (five cases, each a named test). Here every delivery is an object, so an acknowledgement
cannot be mistaken for that of another delivery of the same offsets.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["CommitTracker", "Delivery"]

P = TypeVar("P", bound=Hashable)


class _Log:
    """Tracking of one partition from an assignment or a seek until the next."""

    __slots__ = ("acks", "committed", "delivered_to", "live", "open", "position", "start", "through")

    def __init__(self, start: int | None, committed: int | None) -> None:
        self.start = start
        self.position = start
        self.committed = committed
        self.delivered_to: int | None = None
        self.open: deque[Delivery] = deque()
        self.through = -1
        self.live = True
        self.acks = 0

    def unfinished(self) -> deque[Delivery]:
        """The deliveries from the oldest one on that is not acknowledged; those before it are forgotten."""
        pending = self.open
        while pending and (pending[0].acked or pending[0].next <= self.through):
            pending.popleft()
        return pending


class Delivery:
    """A range of delivered offsets, to be acknowledged once.

    It refers only to numbers, so it can be kept after the records are released. After the partition was revoked,
    seeked or reassigned it is stale: acknowledging it does nothing.
    """

    __slots__ = ("_log", "acked", "first", "next")

    def __init__(self, log: _Log, first: int, next_offset: int) -> None:
        self._log = log
        self.first = first
        self.next = next_offset
        self.acked = False

    @property
    def stale(self) -> bool:
        """Whether the partition was reassigned or seeked since, so that these offsets are delivered again."""
        return not self._log.live

    def ack(self) -> bool:
        """Acknowledge these offsets. False if they already were, or if the delivery is stale."""
        if self.acked or not self._log.live:
            return False
        self.acked = True
        self._log.acks += 1
        return True

    def ack_through(self) -> bool:
        """Acknowledge these offsets and all that were delivered before them, as a durable snapshot allows.

        False if they already were, or if the delivery is stale.
        """
        log = self._log
        if not log.live or self.next <= log.through:
            return False
        log.through = self.next
        log.acks += 1
        return True

    def __repr__(self) -> str:
        state = "stale" if self.stale else "acked" if self.acked else "open"
        return f"<Delivery {self.first}..{self.next - 1} {state}>"


class CommitTracker(Generic[P]):
    """Which offset may be committed for each partition.

    ``committable`` is the first offset of the oldest delivery that is still open, else the position up to which the
    partition was read. Offsets that hold no record (compaction, transaction markers) therefore never delay a commit.
    """

    def __init__(self) -> None:
        self._logs: dict[P, _Log] = {}
        self._placed: Counter[P] = Counter()

    def __contains__(self, partition: P) -> bool:
        return partition in self._logs

    @property
    def partitions(self) -> frozenset[P]:
        """Partitions that were assigned and not forgotten."""
        return frozenset(self._logs)

    def assign(self, partition: P, position: int | None, committed: int | None = None) -> None:
        """Start tracking ``partition`` anew: reading starts at ``position``; older deliveries become stale.

        ``position`` is None while it is unknown, ``committed`` where the group has committed nothing.
        """
        self._placed[partition] += 1
        self._begin(partition, position, committed)

    def _begin(self, partition: P, position: int | None, committed: int | None) -> None:
        self._end(partition)
        self._logs[partition] = _Log(position, committed)

    def forget(self, partitions: Iterable[P]) -> None:
        """Drop the bookkeeping of ``partitions``; their open deliveries become stale."""
        for partition in list(partitions):
            self._placed[partition] += 1
            self._end(partition)

    def _end(self, partition: P) -> None:
        log = self._logs.pop(partition, None)
        if log is not None:
            log.live = False
            log.open.clear()

    def placement(self, partition: P) -> int:
        """Number that changes with each `assign` and `forget`: what was fetched under another one is read again."""
        return self._placed[partition]

    def delivered(self, partition: P, first: int, next_offset: int) -> Delivery:
        """Record the delivery of the records from ``first`` to before ``next_offset``.

        ``next_offset`` is where reading continues, which may be past the last record. A delivery from before the
        position means that the partition itself was reset (recreated topic, lost tail): tracking starts anew, and a
        lower offset than before may be committed. Raises KeyError for a partition that is not assigned.
        """
        log = self._at(partition, first)
        delivery = Delivery(log, first, next_offset)
        log.open.append(delivery)
        log.position = log.delivered_to = next_offset
        return delivery

    def advanced(self, partition: P, position: int) -> None:
        """Record that reading advanced to ``position`` over offsets that hold no record."""
        self._at(partition, position).position = position

    def position(self, partition: P) -> int | None:
        """Where reading continues, None if unknown."""
        log = self._logs.get(partition)
        return None if log is None else log.position

    def delivered_to(self, partition: P) -> int | None:
        """Offset after the newest delivery, None if nothing was delivered yet."""
        log = self._logs.get(partition)
        return None if log is None else log.delivered_to

    def held(self, partition: P) -> int:
        """Number of deliveries from the oldest open one on, which are those that hold back a commit."""
        log = self._logs.get(partition)
        return 0 if log is None else len(log.unfinished())

    def acknowledged(self, partition: P) -> int | None:
        """Offset before which everything that was delivered is acknowledged; None if unknown."""
        log = self._logs.get(partition)
        if log is None:
            return None
        pending = log.unfinished()
        return pending[0].first if pending else log.position

    def acks_of(self, partition: P) -> int:
        """Acknowledgements of a partition since its last assignment or seek."""
        log = self._logs.get(partition)
        return 0 if log is None else log.acks

    def committable(self, partition: P) -> int | None:
        """Offset to commit now, None if there is nothing beyond what is committed already."""
        log = self._logs.get(partition)
        if log is None:
            return None
        safe = self.acknowledged(partition)
        known = log.committed if log.committed is not None else log.start
        return None if safe is None or (known is not None and safe <= known) else safe

    def committed(self, partition: P, offset: int) -> None:
        """Record that the broker has confirmed the commit of ``offset``; do not call it before that."""
        log = self._logs.get(partition)
        # A confirmation may arrive after the partition was reset, where it has no meaning.
        if log is not None and log.position is not None and offset <= log.position:
            log.committed = offset if log.committed is None else max(offset, log.committed)

    def _at(self, partition: P, offset: int) -> _Log:
        log = self._logs[partition]
        if log.position is not None and offset < log.position:
            self._begin(partition, offset, None)  # the same fetches go on
            log = self._logs[partition]
        elif log.start is None:
            log.start = log.position = offset
        return log
