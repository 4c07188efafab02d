"""Spans around what a role does, which cost nothing while no tracer is set.

Names and attributes follow OpenTelemetry's semantic conventions for messaging and databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, Protocol

__all__ = ["Attributes", "Kind", "Span", "Tracer", "chunk_span", "set_tracer", "write_span"]

Attributes = Mapping[str, str | int]
Kind = Literal["consumer", "client"]
"""As in OpenTelemetry."""

_PARENTS: Final = ("traceparent", "ce_traceparent")
"""Kafka headers by which a producer names its span: that of W3C Trace Context, and that of CloudEvents."""
_MOST_LINKS: Final = 32
"""Spans of producers to which the span of one chunk links."""


class Span(Protocol):
    """One piece of work, while it lasts."""

    def note(self, **attributes: int) -> None:
        """What came of it: each attribute gets the prefix ``astrocyte.``."""


class Tracer(Protocol):
    """Makes the spans of a process."""

    def span(
        self, name: str, kind: Kind, attributes: Attributes, parents: Sequence[str] = ()
    ) -> AbstractContextManager[Span]:
        """A span around the context, with links to the spans that ``parents`` name in the form of W3C Trace Context.

        An exception that leaves the context is recorded, and the span's status is an error.
        """


class _Chunk(Protocol):
    """Of `pipeline.transport.chunk.Chunk`, which loads Faust."""

    topic: str
    partition: int
    records: Sequence[Any]

    @property
    def first_offset(self) -> int: ...
    def __len__(self) -> int: ...


class _NoSpan:
    def note(self, **attributes: int) -> None:
        pass


_NONE: Final = nullcontext(_NoSpan())
_tracer: Tracer | None = None


def set_tracer(tracer: Tracer | None) -> None:
    """Set, or unset, what makes the spans of this process."""
    global _tracer  # noqa: PLW0603  as the logging of a process, it is one for all of its code
    _tracer = tracer


def chunk_span(chunk: _Chunk) -> AbstractContextManager[Span]:
    """The span of the work for one chunk of a partition."""
    tracer = _tracer
    if tracer is None:
        return _NONE
    attributes: Attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": chunk.topic,
        "messaging.destination.partition.id": str(chunk.partition),
        "messaging.kafka.offset": chunk.first_offset,
        "messaging.batch.message_count": len(chunk),
    }
    return tracer.span(f"process {chunk.topic}", "consumer", attributes, list(_parents(chunk.records)))


def write_span(store: str, rows: int) -> AbstractContextManager[Span]:
    """The span of one batch that a sink writes, with all retries."""
    tracer = _tracer
    if tracer is None:
        return _NONE
    attributes: Attributes = {"db.operation.name": "write", "db.operation.batch.size": rows}
    return tracer.span(f"write {store}", "client", attributes)


def _parents(records: Sequence[Any]) -> Iterator[str]:
    found: set[str] = set()
    for record in records:
        for name, value in record.headers:
            if name in _PARENTS and value is not None:
                parent = value.decode("ascii", "replace")
                if parent not in found:
                    found.add(parent)
                    yield parent
                    if len(found) == _MOST_LINKS:
                        return
