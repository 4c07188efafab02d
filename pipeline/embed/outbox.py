"""Events that wait for the broker: a bounded buffer between a program's threads and delivery. It counts everything."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from astrocyte.pipeline.embed.encoding import EncodedEvent

__all__ = ["Outbox", "OverflowPolicy", "PublisherCounts"]

OverflowPolicy = Literal["drop_newest", "drop_oldest"]
"""Which event is dropped when the buffer is full: the one that is emitted, or the one that has waited longest."""

Outcome = Literal["delivered", "logged"] | None
FULL: Final = "the buffer is full"
CLOSED: Final = "the publisher was closed before the broker confirmed"
AFTER_CLOSE: Final = "the publisher was closed before they were emitted"


@dataclass(frozen=True, slots=True)
class PublisherCounts:
    """What became of a publisher's events: ``emitted`` is the sum of the other four at any moment."""

    emitted: int = 0
    """Events that ``emit`` took, whether or not it could buffer them; not those for which it raised."""
    delivered: int = 0
    """Events that the broker has confirmed."""
    buffered: int = 0
    """Events that wait for the broker's confirmation."""
    dropped: int = 0
    """Events that were given up; ``reasons`` says why."""
    logged: int = 0
    """Events written to a local log instead, from which ``astrocyte replay`` sends them."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Number of dropped events by reason."""


class Outbox:
    """Thread-safe buffer of at most ``most_events`` events and ``most_bytes`` bytes, with those in flight included.

    ``make_room`` is what a full buffer calls instead of dropping events: it settles some, and returns False if none
    waited.
    """

    def __init__(
        self,
        most_events: int,
        most_bytes: int,
        policy: OverflowPolicy,
        *,
        on_drop: Callable[[str], None],
        make_room: Callable[[], bool] | None = None,
    ) -> None:
        self._most_events, self._most_bytes = most_events, most_bytes
        self._drops_oldest = policy == "drop_oldest"
        self._on_drop = on_drop
        self._make_room = make_room
        self._lock = threading.RLock()  # a signal handler may close the publisher while its thread is in `put`
        self._settled = threading.Condition(self._lock)
        self._waiting: deque[EncodedEvent] = deque()
        self._in_flight: dict[int, EncodedEvent] = {}
        self._bytes = 0
        self._newest = -1
        """Largest number of an event that was accepted."""
        self._emitted = self._delivered = self._dropped = self._logged = 0
        self._reasons: Counter[str] = Counter()
        self._closed = False

    @property
    def counts(self) -> PublisherCounts:
        """All counts of one moment."""
        with self._lock:
            buffered = len(self._waiting) + len(self._in_flight)
            return PublisherCounts(
                self._emitted, self._delivered, buffered, self._dropped, self._logged, dict(self._reasons)
            )

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the room is taken."""
        with self._lock:
            count = len(self._waiting) + len(self._in_flight)
            return 2 * count > self._most_events or 2 * self._bytes > self._most_bytes

    def put(self, event: EncodedEvent) -> tuple[bool, bool]:
        """Add an event; returns whether it was accepted, and whether nothing waited before it."""
        while self._make_room is not None and self._is_full(event.size) and self._make_room():
            pass
        reason = None
        with self._lock:
            self._emitted += 1
            if self._closed:
                accepted, reason = False, AFTER_CLOSE
            else:
                size = event.size
                while self._drops_oldest and self._waiting and self._lacks_room(size):
                    self._bytes -= self._waiting.popleft().size
                    self._drop(1, FULL)
                    reason = FULL
                accepted = not self._lacks_room(size)
                if not accepted:
                    reason = FULL
            was_empty = not self._waiting
            if accepted:
                self._bytes += size
                self._newest = max(self._newest, event.seq)
                self._waiting.append(event)
            else:
                assert reason is not None
                self._drop(1, reason)
        if reason is not None:
            self._on_drop(reason)
        return accepted, was_empty

    def refuse(self, reason: str) -> None:
        """Count an event that cannot be encoded as emitted and dropped."""
        with self._lock:
            self._emitted += 1
            self._drop(1, reason)
        self._on_drop(reason)

    def take(self, most_events: int, most_bytes: int) -> list[EncodedEvent]:
        """The oldest events, which are in flight until `settle` is called for them; a quarter of the buffer at most.

        Were all in flight to a broker that is gone, none would be left that could go to the log and make room.
        """
        most_events = min(most_events, max(1, self._most_events // 4))
        most_bytes = min(most_bytes, self._most_bytes // 4)
        with self._lock:
            taken: list[EncodedEvent] = []
            size = 0
            while self._waiting and len(taken) < most_events and (not taken or size < most_bytes):
                event = self._waiting.popleft()
                size += event.size
                taken.append(event)
                self._in_flight[event.seq] = event
            return taken

    def settle(self, numbers: Iterable[int], outcome: Outcome, reason: str = "") -> None:
        """Count events in flight, by their numbers, as delivered, logged or (None) dropped; others are ignored."""
        done = 0
        with self._lock:
            for number in numbers:
                event = self._in_flight.pop(number, None)
                if event is not None:
                    self._bytes -= event.size
                    done += 1
            if outcome == "delivered":
                self._delivered += done
            elif outcome == "logged":
                self._logged += done
            elif done:
                self._drop(done, reason)
            self._settled.notify_all()
        if outcome is None and done:
            self._on_drop(reason)

    def take_back(self) -> None:
        """Put the events in flight back in front: what should have delivered them has ended."""
        with self._lock:
            self._waiting.extendleft(self._in_flight[number] for number in sorted(self._in_flight, reverse=True))
            self._in_flight.clear()

    def wait_empty(self, timeout_s: float) -> bool:
        """Whether all events emitted before this call are settled within the time."""
        with self._settled:
            newest = self._newest
            deadline = time.monotonic() + timeout_s
            # By number, not by count: events that are emitted and dropped meanwhile are settled, those before are not.
            while self._waits_for(newest):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._settled.wait(left)
            return True

    def close(self) -> list[EncodedEvent]:
        """Accept nothing more, and return what is not settled, oldest first; it is in flight then."""
        with self._lock:
            self._closed = True
            self._in_flight |= {event.seq: event for event in self._waiting}
            self._waiting.clear()
            return [self._in_flight[number] for number in sorted(self._in_flight)]

    def _waits_for(self, newest: int) -> bool:
        """Whether an event up to the number ``newest`` is not settled; both buffers are in the order of acceptance."""
        oldest = (self._waiting[0].seq if self._waiting else None, next(iter(self._in_flight), None))
        return any(number is not None and number <= newest for number in oldest)

    def _lacks_room(self, size: int) -> bool:
        """Whether an event must be dropped; with ``make_room`` never, and each thread may exceed the room by one."""
        return self._make_room is None and self._is_full(size)

    def _is_full(self, size: int) -> bool:
        count = len(self._waiting) + len(self._in_flight)
        return count >= self._most_events or (count > 0 and self._bytes + size > self._most_bytes)

    def _drop(self, count: int, reason: str) -> None:
        self._dropped += count
        self._reasons[reason] += count
        self._settled.notify_all()
