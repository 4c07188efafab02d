"""Functions that handle events, by patterns over the names of streams; in a publisher's process and over Kafka."""

from __future__ import annotations

import asyncio
import fnmatch
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from astrocyte.pipeline.embed.encoding import EncodedEvent
from astrocyte.pipeline.embed.outbox import CLOSED, Outbox, OverflowPolicy, PublisherCounts
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Dispatcher", "Event", "Handler", "Handlers"]

_CHUNK_EVENTS: Final = 500
_log = logging.getLogger("astrocyte.handlers")


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a handler gets it. ``topic``, ``partition`` and ``offset`` are set for one that came from Kafka."""

    id: str
    stream: str
    type: str | None
    key: str | None
    time_us: int
    """Event time in microseconds since 1970."""
    fields: Mapping[str, Any]
    """The event's own fields; handlers of one event share them, so they are read and not changed."""
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


Handler = Callable[[Event], Any]
"""A function or coroutine function of one event; what it returns is ignored."""
H = TypeVar("H", bound=Handler)


class Handlers:
    """Handlers by patterns: names of streams, or shell patterns such as ``dna.*``. Each is called once for an event."""

    def __init__(self) -> None:
        self._patterns: list[tuple[str, Handler]] = []
        self._found: dict[str, tuple[Handler, ...]] = {}

    def on(self, *patterns: str) -> Callable[[H], H]:
        """Decorator: the function handles events of the streams that match; it may be applied several times."""
        if not patterns or not all(isinstance(each, str) and each for each in patterns):
            raise InvalidSettings('expected names or patterns of streams, such as @on("dna.*"), got none')

        def register(handler: H) -> H:
            self._patterns += [(pattern, handler) for pattern in patterns]
            self._found.clear()
            return handler

        return register

    @property
    def patterns(self) -> list[str]:
        """All patterns."""
        return [pattern for pattern, _ in self._patterns]

    def of(self, stream: str) -> tuple[Handler, ...]:
        """Handlers of a stream, in the order in which they were registered."""
        found = self._found.get(stream)
        if found is None:
            wanted = [handler for pattern, handler in self._patterns if fnmatch.fnmatchcase(stream, pattern)]
            found = self._found[stream] = tuple(dict.fromkeys(wanted))
        return found


def is_async(handler: Handler) -> bool:
    """Whether calling the handler gives something to await."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def name_of(handler: Handler) -> str:
    """Name of a handler, for the log."""
    return getattr(handler, "__qualname__", repr(handler))


def _ignore(reason: str) -> None:
    """Drops are reported by the publisher, which counts the same event."""
    del reason


class Dispatcher:
    """Calls handlers for the events of a publisher, in order, on a thread of its own: ``emit`` never waits for one.

    Coroutine functions run on the event loop of that thread, one after another. A handler that raises is logged, and
    the event counts as dropped.
    """

    def __init__(self, handlers: Handlers, run: str, most_events: int, most_bytes: int, policy: OverflowPolicy) -> None:
        self._handlers, self._run = handlers, run
        self._outbox = Outbox(most_events, most_bytes, policy, on_drop=_ignore)
        self._failed: set[str] = set()
        self._work = threading.Semaphore(0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="astrocyte-handlers", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> PublisherCounts:
        """Of the events for which there is a handler: ``delivered`` are those that every handler has handled."""
        return self._outbox.counts

    def put(self, event: EncodedEvent) -> None:
        """Pass an event to its handlers, if there are any."""
        if self._handlers.of(event.encoder.stream):
            _, was_empty = self._outbox.put(event)
            if was_empty:
                self._work.release()

    def wait_empty(self, timeout_s: float) -> bool:
        """Whether all events are handled within the time."""
        return self._outbox.wait_empty(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """End once the handlers that run have returned, at most after the time; other events count as dropped."""
        self._closing.set()
        left = self._outbox.close()
        self._work.release()
        self._thread.join(timeout_s)
        self._outbox.settle([event.seq for event in left], None, CLOSED)

    def _loop(self) -> None:
        with asyncio.Runner() as runner:
            while not self._closing.is_set():
                self._work.acquire()
                while not self._closing.is_set() and (taken := self._outbox.take(_CHUNK_EVENTS, 1 << 20)):
                    for event in taken:
                        if self._closing.is_set():
                            break
                        self._handle(runner, event)

    def _handle(self, runner: asyncio.Runner, encoded: EncodedEvent) -> None:
        event = _decoded(encoded, self._run)
        failure = ""
        for handler in self._handlers.of(event.stream):
            try:
                made = handler(event)
                if inspect.isawaitable(made):
                    runner.run(_awaited(made))
            except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001  the thread goes on
                failure = f"the handler {name_of(handler)} raised {type(error).__name__}"
                if failure not in self._failed:
                    self._failed.add(failure)
                    _log.exception("%s for an event of stream %s; further ones are counted", failure, event.stream)
        self._outbox.settle([encoded.seq], None if failure else "delivered", failure)


async def _awaited(made: Any) -> None:
    await made


def _decoded(encoded: EncodedEvent, run: str) -> Event:
    fields = orjson.loads(encoded.body)
    if encoded.value != b"null":
        fields["value"] = orjson.loads(encoded.value)
    encoder = encoded.encoder
    (event_id,) = encoder.ids([encoded], run)
    return Event(event_id, encoder.stream, encoded.type, encoded.key, encoded.time_us, fields)
