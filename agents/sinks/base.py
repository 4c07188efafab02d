"""The contract of a sink, and what goes in and out of one.

A sink takes batches of what was read from Kafka and returns when its store has confirmed them, so that the caller
may acknowledge. It

- never changes its input;
- is safe to repeat: the same batch written again, whole or in part, changes nothing (ids are deterministic);
- tries again without end while the store is away, telling `on_retry` each time, so that the caller can pause its
  partitions; a set stop event ends the waiting with `SinkStopped`, and then nothing of the batch was confirmed;
- returns what the store can never take as `Rejected`, one row each, and writes all the rest; the caller sends those
  to ``dead_letters`` and then acknowledges.

`agents.sinks.testing.check_sink` holds every sink to this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.errors import AstrocyteError, TransientError
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import TopicPartition

__all__ = [
    "RECORD_KINDS",
    "OnRetry",
    "RecordKind",
    "Rejected",
    "RetryNotice",
    "Sink",
    "SinkError",
    "SinkStopped",
    "Sourced",
    "SourcedFrame",
    "SourcedRecords",
    "highest_offsets",
]

RecordKind = Literal["multi_events", "alerts", "dead_letters", "experiments", "simulations", "audit"]
RECORD_KINDS: tuple[RecordKind, ...] = (
    "multi_events",
    "alerts",
    "dead_letters",
    "experiments",
    "simulations",
    "audit",
)


class SinkError(AstrocyteError):
    """A sink that cannot work at all: a wrong address, a database of a newer version, refused credentials."""


class SinkStopped(TransientError):
    """A sink was stopped while it waited for its store; nothing of the batch was confirmed."""


@dataclass(frozen=True, slots=True)
class SourcedFrame:
    """A frame and where it was read."""

    frame: Frame
    topic: str
    partition: int
    offset: int
    """Offset of the message, or of the first of several records that became one frame."""
    offsets: NDArray[np.int64] | None = None
    """Offset of each row, where rows were records of their own."""
    last_offset: int | None = None
    """Offset of the last record read, where records without rows followed (refused ones)."""

    def offset_of(self, row: int) -> int:
        """Offset from which ``row`` was read."""
        return self.offset if self.offsets is None else int(self.offsets[row])


@dataclass(frozen=True, slots=True)
class SourcedRecords:
    """JSON records of one kind and where they were read; a record is the dictionary that its JSON holds.

    ``multi_events``, ``alerts`` and ``dead_letters`` have the shapes of `schemas.events`; a caller may add to each
    ``simulation_id``, and to a multi event ``key``, ``rule_version`` and ``provisional`` (they travel in key and
    headers). ``simulations`` have ``simulation_id`` and any of the table's columns, and ``config`` (an object that
    becomes a row of ``simulation_config``); ``experiments`` have ``experiment_id`` and any of that table's columns.
    ``audit`` has ``event_id``, ``timestamp`` (microseconds), ``kind``, ``subject``, ``simulation_id``, ``payload``.
    """

    kind: RecordKind
    records: Sequence[Mapping[str, Any]]
    topic: str
    partition: int
    offset: int
    offsets: NDArray[np.int64] | None = None
    """Offset of each record; counted on from ``offset`` where absent."""
    last_offset: int | None = None

    def offset_of(self, row: int) -> int:
        """Offset from which record ``row`` was read."""
        return self.offset + row if self.offsets is None else int(self.offsets[row])


Sourced = SourcedFrame | SourcedRecords


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row that the store can never take. ``payload`` is its JSON record."""

    stream: str
    """Stream of the row, or the kind of record."""
    topic: str
    partition: int
    offset: int
    row: int | None
    """Row of the frame; None where the row was a record of its own."""
    reason: str
    key: bytes | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class RetryNotice:
    """What a waiting sink reports, once for each failed attempt, and once more when the store is back.

    ``attempt`` counts from 1; 0 means that the notice is over.
    """

    sink: str
    attempt: int
    wait_s: float
    reason: str


OnRetry = Callable[[RetryNotice], None]


class Sink(Protocol):
    """A store at the end of the pipeline; see the module's text for what it promises."""

    name: str

    async def open(self) -> None:
        """Connect, and bring the store into shape. Raises SinkError; waits while the store is away."""

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Write the batch; returns after the store has confirmed it, with the rows it can never take.

        Raises SinkStopped where the sink was stopped meanwhile, SinkError where it can no longer work.
        """

    async def close(self) -> None:
        """Give back what was opened; everything written was confirmed before."""


def highest_offsets(batch: Sequence[Sourced]) -> dict[TopicPartition, int]:
    """Next offset to read of every (topic, partition) of the batch."""
    following: dict[TopicPartition, int] = {}
    for item in batch:
        last = item.offset
        if item.offsets is not None and len(item.offsets):
            last = max(last, int(item.offsets.max()))
        elif isinstance(item, SourcedRecords) and item.records:
            last = max(last, item.offset_of(len(item.records) - 1))
        if item.last_offset is not None:
            last = max(last, item.last_offset)
        place = TopicPartition(item.topic, item.partition)
        following[place] = max(following.get(place, 0), last + 1)
    return following
