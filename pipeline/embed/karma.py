"""Snapshots of ``dna.*`` events that wait for an evaluation: those of mutations first, and none twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from astrocyte.pipeline.embed.handlers import Event
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.registry import described

__all__ = ["KarmaQueue", "QueuedSnapshot"]

_PATTERN: Final = "dna.*"
_PRIORITY: Final[dict[str, Literal["high", "normal"]]] = {
    "dna.mutation_applied": "high",
    "dna.snapshot_created": "normal",
}
_SCORED: Final = "dna.karma_updated"
_Identity = tuple[Any, Any]


class _Source(Protocol):
    """What handlers are registered with: a `Consumer` or a `Publisher`."""

    def on(self, *patterns: str) -> Callable[[Callable[[Event], Any]], Any]: ...


@dataclass(frozen=True, slots=True)
class QueuedSnapshot:
    """A snapshot to evaluate."""

    agent_id: str
    snapshot_id: int
    version: int | None
    priority: Literal["high", "normal"]
    event: Event
    """The event that named it."""


class KarmaQueue:
    """Snapshots to evaluate, each given out once: high priority before normal, then in the order of arrival.

    ::

        queue = KarmaQueue()
        queue.attach(consumer)              # or a Publisher, for the events of the same process
        for snapshot in queue:              # ends with queue.close()
            publisher.dna.karma_updated(..., karma_score=evaluate(snapshot))

    A mutation has high priority, any other snapshot normal. A snapshot that was given out, or has a score
    (``dna.karma_updated``), is never queued again, so events may be delivered twice. What was evaluated is known from
    the scores themselves: a consumer that reads ``dna.*`` from the beginning (``start="earliest"``, without a group)
    restores the queue after a restart; its ``caught_up`` says when. The queue remembers the identity of every snapshot.
    All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[_Identity, QueuedSnapshot]] = {"high": {}, "normal": {}}
        self._done: set[_Identity] = set()
        """Given out or scored."""
        self._closed = False
        self._changed = threading.Condition()

    def attach(self, source: _Source) -> None:
        """Take the ``dna.*`` events of a `Consumer` or `Publisher`. Raises InvalidSettings for anything else."""
        if isinstance(source, type) or not callable(getattr(source, "on", None)):
            raise InvalidSettings(
                f"KarmaQueue.attach: expected a Consumer or the Publisher of connect(), got {described(source)}"
            )
        source.on(_PATTERN)(self.add)

    def add(self, event: Event) -> bool:
        """Take an event; whether a snapshot is queued because of it, or is so with higher priority.

        Events of other streams, and those without agent or snapshot, change nothing. Raises InvalidSettings for what is
        no `Event`.
        """
        if not isinstance(event, Event):
            raise InvalidSettings(f"KarmaQueue.add: expected an Event, as handlers get them, got {described(event)}")
        fields = event.fields
        agent, snapshot = fields.get("agent_id"), fields.get("snapshot_id")
        if agent is None or snapshot is None:
            return False
        identity = (agent, snapshot)
        with self._changed:
            if event.stream == _SCORED:
                self._done.add(identity)
                for waiting in self._waiting.values():
                    waiting.pop(identity, None)
                return False
            priority = _PRIORITY.get(event.stream)
            if priority is None or identity in self._done or identity in self._waiting["high"]:
                return False
            if priority == "normal" and identity in self._waiting["normal"]:
                return False
            self._waiting["normal"].pop(identity, None)
            queued = QueuedSnapshot(agent, snapshot, fields.get("version"), priority, event)
            self._waiting[priority][identity] = queued
            self._changed.notify()
            return True

    def take(self, timeout_s: float | None = None) -> QueuedSnapshot | None:
        """The next snapshot; waits for one. None when the time has passed, or when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._waiting.values()), timeout_s)
            for waiting in (self._waiting["high"], self._waiting["normal"]):
                if waiting:
                    identity = next(iter(waiting))
                    self._done.add(identity)
                    return waiting.pop(identity)
            return None

    def __iter__(self) -> Iterator[QueuedSnapshot]:
        """Snapshots until `close`."""
        while (found := self.take()) is not None:
            yield found

    def __len__(self) -> int:
        """How many snapshots wait."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def close(self) -> None:
        """End `take` and the iteration once what waits is given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
