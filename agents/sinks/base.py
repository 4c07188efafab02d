"""The contract of a sink, and the types of its input and output.

A sink receives batches of frames and records read from Kafka and returns when its store has confirmed them, so that the
caller may acknowledge. It

- never changes its input;
- is idempotent: writing the same batch again, whole or in part, has no effect (ids are deterministic);
- retries for ever while the store is unavailable, calling `on_retry` each time, so that the caller can pause its
  partitions; setting the stop event ends the wait with `SinkStopped`, and then nothing of the batch was confirmed;
- returns rows that the store can never accept as `Rejected` (`Sourced.rejected` makes one), and writes all others; the
  caller writes the rejected rows to ``dead_letters`` and then acknowledges.

`agents.sinks.testing.check_sink` checks this contract.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.schemas.errors import AstrocyteError, PluginError, TransientError, plugin_raised, wrong_return
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import KafkaRecord, frame_to_records
from astrocyte.schemas.json.types import Nulled
from astrocyte.schemas.topics import TopicPartition

__all__ = [
    "RECORD_KINDS",
    "OnRetry",
    "Positioned",
    "RecordKind",
    "Rejected",
    "RetryNotice",
    "Sink",
    "SinkError",
    "SinkStopped",
    "Sourced",
    "SourcedFrame",
    "SourcedRecords",
    "check_made",
    "contract_fault",
    "highest_offsets",
    "opened",
    "written",
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
    """The sink cannot work: a wrong address, a database of a newer version, refused credentials."""


class SinkStopped(TransientError):
    """A sink was stopped while it waited for its store; nothing of the batch was confirmed."""


@dataclass(frozen=True, slots=True)
class SourcedFrame:
    """A frame with its topic, partition and offset."""

    frame: Frame
    topic: str
    partition: int
    offset: int
    """Offset of the message, or of the first of the records that were decoded into one frame."""
    offsets: NDArray[np.int64] | None = None
    """Offset of each row, where each row was a record of its own."""
    last_offset: int | None = None
    """Offset of the last record read, where records without rows (refused ones) followed."""
    received: Sequence[KafkaRecord] | None = None
    """The message of each row, as it was received, where each row was a record of its own."""
    made: Sequence[KafkaRecord] | None = None
    """The JSON record of each row, where a decoder made it of the message."""
    numbers: NDArray[np.int64] | None = None
    """Number of each row inside its message, where that is not the number of the row, or a record of its own."""
    nulled: Sequence[Nulled] = ()
    """Values of the rows that became null, for they were of another type than declared."""

    def offset_of(self, row: int) -> int:
        """Offset from which ``row`` was read."""
        return self.offset if self.offsets is None else int(self.offsets[row])

    def row_of(self, row: int) -> int | None:
        """Number of ``row`` inside its message; None where the message holds nothing else."""
        if self.numbers is not None:
            return int(self.numbers[row])
        return row if self.offsets is None else None

    def take(self, rows: NDArray[np.int64]) -> SourcedFrame:
        """Some of the rows, which keep their offsets and numbers; ``last_offset`` stays that of all."""
        numbers = self.numbers
        if numbers is None and self.offsets is None:
            numbers = np.arange(self.frame.num_rows)
        offsets = None if self.offsets is None else self.offsets[rows]
        place = {row: at for at, row in enumerate(rows.tolist())} if self.nulled else {}
        return replace(
            self,
            frame=self.frame.take(rows),
            nulled=[each._replace(row=place[each.row]) for each in self.nulled if each.row in place],
            offset=self.offset if offsets is None or not len(rows) else int(offsets[0]),
            offsets=offsets,
            received=None if self.received is None else [self.received[row] for row in rows.tolist()],
            made=None if self.made is None else [self.made[row] for row in rows.tolist()],
            numbers=None if numbers is None else numbers[rows],
        )

    def rejected(self, row: int, reason: str) -> Rejected:
        """``row`` of the frame as one that the store can never accept."""
        place = (self.frame.stream, self.topic, self.partition, self.offset_of(row), self.row_of(row))
        try:
            (made,) = frame_to_records(self.frame.take(np.array([row], np.int64)))
        except Exception:  # noqa: BLE001  no JSON record can hold it; it must be written as a dead letter all the same
            return Rejected(*place, reason, None, _payload(self.frame.slice(row, row + 1).rows()[0]))
        return Rejected(*place, reason, made.key, made.value)


@dataclass(frozen=True, slots=True)
class SourcedRecords:
    """JSON records of one kind, as dictionaries, with their topic, partition and offsets.

    ``multi_events``, ``alerts`` and ``dead_letters`` have the shapes of `schemas.events`; a caller may add to each
    ``simulation_id``, and to a multi event ``key``, ``rule_version`` and ``provisional`` (which come from key and
    headers). ``simulations`` have ``simulation_id`` and any of the table's columns, and ``config`` (an object that
    becomes a row of ``simulation_config``, with ``timestamp``, the event time from which it holds: by default from the
    start); ``experiments`` have ``experiment_id`` and any of that table's columns.
    ``audit`` has ``event_id``, ``timestamp`` (microseconds), ``kind``, ``subject``, ``simulation_id``, ``payload``.
    """

    kind: RecordKind
    records: Sequence[Mapping[str, Any]]
    topic: str
    partition: int
    offset: int
    offsets: NDArray[np.int64] | None = None
    """Offset of each record; None: consecutive from ``offset``."""
    last_offset: int | None = None

    def offset_of(self, row: int) -> int:
        """Offset from which record ``row`` was read."""
        return self.offset + row if self.offsets is None else int(self.offsets[row])

    def rejected(self, row: int, reason: str) -> Rejected:
        """Record ``row`` as one that the store can never accept."""
        record = self.records[row]
        key = record.get("key")
        encoded = None if key is None else str(key).encode()
        place = (self.kind, self.topic, self.partition, self.offset_of(row), None)
        return Rejected(*place, reason, encoded, _payload(record))


def _payload(values: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(values, default=repr, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # the standard library's takes numbers of any size, and strings with lone surrogates
        return json.dumps(values, default=repr).encode()


Sourced = SourcedFrame | SourcedRecords


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row that the store can never accept; ``item.rejected(row, reason)`` makes one.

    ``payload`` is the row's JSON record.
    """

    stream: str
    """Stream of the row, or the kind of record."""
    topic: str
    partition: int
    offset: int
    row: int | None
    """`SourcedFrame.row_of` the row; None where the row was a record of its own."""
    reason: str
    key: bytes | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class RetryNotice:
    """Report of a retrying sink: one for each failed attempt, and one when the store is available again.

    ``attempt`` counts failed attempts from 1; 0 means that the retries have ended because an attempt succeeded.
    """

    sink: str
    attempt: int
    wait_s: float
    reason: str


OnRetry = Callable[[RetryNotice], None]


class Sink(Protocol):
    """A sink; the module's docstring states its contract."""

    name: str

    async def open(self) -> None:
        """Connect, and create or migrate what the store needs. Retries while it is unavailable. Raises SinkError."""

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Write the batch; returns, after the store has confirmed it, the rows that it can never accept.

        Raises SinkStopped if the sink was stopped meanwhile, SinkError if it can no longer work.
        """

    async def close(self) -> None:
        """Release the resources of `open`; everything written was confirmed before."""


@runtime_checkable
class Positioned(Protocol):
    """A sink that stores the offsets which it has written, so that an emptied store is noticed when it starts."""

    async def holds_nothing(self) -> bool:
        """Whether the store holds no offsets of this sink."""


def contract_fault(name: str, sink: object) -> str | None:
    """What an object, or a class, given for the sink ``name`` lacks of the methods of a sink; None if nothing."""
    of = sink if isinstance(sink, type) else type(sink)
    missing = [
        method
        for method in ("open", "write", "close")
        # What a class only has from the contract itself does nothing.
        if not callable(getattr(sink, method, None)) or getattr(of, method, None) is getattr(Sink, method)
    ]
    if not missing:
        return None
    return (
        f"sink {name!r}: {of.__name__} has no method {' and no '.join(missing)}; expected async def open(self), "
        "write(self, batch) and close(self)"
    )


def check_made(name: str, sink: object) -> None:
    """Raise PluginError for an object, made for the sink ``name``, that lacks a method of a sink."""
    if fault := contract_fault(name, sink):
        raise PluginError(fault)


async def opened(name: str, sink: Sink) -> None:
    """Open a sink. Whatever else than an error of this project it raises becomes a PluginError, which names it."""
    try:
        await _awaited(f"open() of sink {name!r}", sink.open())
    except AstrocyteError:
        raise
    except (Exception, SystemExit) as error:
        raise plugin_raised(f"open() of sink {name!r}", error) from error


async def written(name: str, sink: Sink, batch: Sequence[Sourced]) -> list[Rejected]:
    """Rows of a batch that the store refused.

    Raises PluginError where the sink returns anything else, and what the sink raises.
    """
    what = f"write() of sink {name!r}"
    try:
        found = await _awaited(what, sink.write(batch))
    except SystemExit as error:
        raise plugin_raised(what, error) from error
    expected = "a list of Rejected, empty where all rows were written; item.rejected(row, reason) makes one"
    if not isinstance(found, list | tuple):
        raise wrong_return(what, found, expected)
    for each in found:
        if not isinstance(each, Rejected):
            raise wrong_return(what, each, f"{expected}; this is one of them")
        if odd := next((member for member in _TYPES if not isinstance(getattr(each, member), _TYPES[member])), None):
            raise wrong_return(what, getattr(each, odd), f"{expected}; this is {odd!r} of one of them")
    return list(found)


async def _awaited(what: str, found: Any) -> Any:
    if not isinstance(found, Awaitable):
        raise wrong_return(what, found, "a coroutine; define it with async def")
    return await found


_TYPES: Mapping[str, Any] = {
    "stream": str,
    "topic": str,
    "partition": int,
    "offset": int,
    "row": int | None,
    "reason": str,
    "key": bytes | None,
    "payload": bytes,
}
"""Types of what a `Rejected` holds."""


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
