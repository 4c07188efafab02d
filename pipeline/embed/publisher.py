"""The publisher: a program's own events into Kafka, without the program ever waiting for a broker."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, get_args

from astrocyte.pipeline.embed.delivery import Delivery, MissedLog, Target
from astrocyte.pipeline.embed.encoding import StreamEncoder
from astrocyte.pipeline.embed.handlers import Dispatcher, Handler, Handlers
from astrocyte.pipeline.embed.outbox import AFTER_CLOSE, Outbox, OverflowPolicy, PublisherCounts
from astrocyte.pipeline.embed.vocabularies import CellEvents, DnaEvents, KernelEvents
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings

__all__ = ["Publisher", "connect"]

_CLOSE_S: Final = 5.0
_HANDLER_S: Final = 2.0
"""Time that a handler which runs when the publisher is closed has to return."""
H = TypeVar("H", bound=Handler)
_log = logging.getLogger("astrocyte.publisher")


def connect(
    broker: str | None = None,
    *,
    name: str = "app",
    buffer_events: int = 100_000,
    buffer_bytes: int = 64 << 20,
    overflow: OverflowPolicy = "drop_newest",
    invalid: Literal["raise", "drop"] = "raise",
    missed: str | Path | None = None,
    close_timeout_s: float = _CLOSE_S,
) -> Publisher:
    """A publisher of this program's events; returns at once, whether or not the broker answers.

    ``broker`` is a Kafka address (default: ``ASTROCYTE_BROKER``). ``name`` says which program the events come from.
    Events that the broker has not confirmed are buffered, at most ``buffer_events`` and ``buffer_bytes``; beyond that
    ``overflow`` decides which is dropped. With ``missed``, a folder, which is made here, such events are written to a
    recorded log there instead, which ``astrocyte replay`` sends later. ``invalid="drop"`` counts an event that cannot
    be encoded as dropped instead of raising. Topics that are missing are created as the settings say. Raises
    InvalidSettings.
    """
    if not isinstance(name, str) or not name.replace("-", "_").replace(".", "_").isidentifier():
        raise InvalidSettings(f"name {name!r}; expected letters, digits, '_', '-' and '.', not beginning with a digit")
    for option, size in (("buffer_events", buffer_events), ("buffer_bytes", buffer_bytes)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidSettings(f"{option} {size!r}; expected a whole number of 1 or more")
    _check_seconds("close_timeout_s", close_timeout_s)
    if not isinstance(missed, str | os.PathLike | None):
        raise InvalidSettings(f"missed {missed!r}; expected the name of a folder")
    if overflow not in get_args(OverflowPolicy):
        raise InvalidSettings(f"overflow {overflow!r}; expected one of {', '.join(get_args(OverflowPolicy))}")
    if invalid not in ("raise", "drop"):
        raise InvalidSettings(f"invalid {invalid!r}; expected raise or drop")
    settings = load_settings(broker=broker)
    return Publisher(
        Target(settings.broker, settings.partitions, settings.replication),
        name=name,
        buffer_events=buffer_events,
        buffer_bytes=buffer_bytes,
        overflow=overflow,
        raises=invalid == "raise",
        missed=None if missed is None else Path(missed),
        close_timeout_s=close_timeout_s,
    )


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= threading.TIMEOUT_MAX:
        raise InvalidSettings(f"{name} {value!r}; expected a number of seconds, 0 or more")


class Publisher:
    """Sends events to Kafka from any thread or coroutine; made by `connect`.

    ``emit`` never waits and never fails because of the broker: events wait in a bounded buffer, and ``counts`` says
    what became of each. A broker that is unavailable is logged once (logger ``astrocyte.broker_state``), and so are the
    first event that is dropped and, on closing, the sum (logger ``astrocyte.publisher``). As a context manager, also
    with ``async with``, it is closed at the end. A process that forks connects afterwards.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str,
        buffer_events: int,
        buffer_bytes: int,
        overflow: OverflowPolicy,
        raises: bool,
        missed: Path | None,
        close_timeout_s: float,
    ) -> None:
        self.run = f"{name}-{uuid.uuid4().hex[:12]}"
        """Name of this publisher, unique: part of the ids of its events."""
        self._raises = raises
        self._close_timeout_s = close_timeout_s
        self._encoders: dict[str, StreamEncoder] = {}
        self._numbers = count()
        self._reported: set[str] = set()
        self._handlers = Handlers()
        self._dispatcher: Dispatcher | None = None
        self._limits = (buffer_events, buffer_bytes, overflow)
        self._closing = threading.RLock()
        self._closed = False
        self._pid = os.getpid()
        log = None if missed is None else MissedLog(missed, self.run, target.partitions)
        self._outbox = Outbox(
            buffer_events,
            buffer_bytes,
            overflow,
            on_drop=self._report_drop,
            make_room=None if missed is None else self._make_room,
        )
        self._delivery = Delivery(self._outbox, target, self.run, log)
        self._missed_path = None if log is None else log.path
        atexit.register(self.close)

    def emit(self, stream: str, event: Mapping[str, Any], *, key: Any = None) -> bool:
        """Publish one event to the topic of ``stream``, ``mono.<stream>``; returns whether it was buffered.

        ``event`` is a mapping as docs/events.md describes it: ``timestamp`` (default: now; whole numbers in
        microseconds), ``type``, ``key`` and ``event_id`` are those of the event, all other members its fields.
        ``key`` wins over the mapping's own; both may be text, a number, a truth value or bytes. Raises InvalidEvent
        for a stream with the name of a topic that the pipeline itself writes, for a value that no event has or that is
        not finite, and on a stream of the catalog for an unknown field or one of another type, unless the publisher was
        made with ``invalid="drop"``.
        """
        if not self._is_mine:
            raise InvalidEvent("this publisher belongs to the parent process; call astrocyte.connect() after forking")
        try:
            encoder = self._encoders.get(stream)
            if encoder is None:
                encoder = self._encoders[stream] = StreamEncoder(stream)
            encoded = encoder.encode(event, key, next(self._numbers))
        except InvalidEvent as error:
            if self._raises:
                raise
            self._outbox.refuse(str(error))
            return False
        accepted, was_empty = self._outbox.put(encoded)
        if was_empty:
            self._delivery.wake()
        if self._dispatcher is not None:
            self._dispatcher.put(encoded)
        return accepted

    def on(self, *patterns: str) -> Callable[[H], H]:
        """Decorator: the function, or coroutine function, handles events of this publisher, in this process.

        A pattern is the name of a stream or a shell pattern, such as ``dna.*``. Handlers run one after another on a
        thread of their own, whether or not a broker is there; `handler_counts` says what became of their events. For
        events of other programs there is `Consumer`.
        """
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self._handlers, self.run, *self._limits)
        return self._handlers.on(*patterns)

    @property
    def handler_counts(self) -> PublisherCounts:
        """What became of the events for which this process has handlers; ``delivered`` are those handled."""
        return PublisherCounts() if self._dispatcher is None or not self._is_mine else self._dispatcher.counts

    @property
    def dna(self) -> DnaEvents:
        """The events of a service that evolves the configuration of agents."""
        return DnaEvents(self)

    def cells(self, simulation_id: str, *, tick_us: int | None = None, start_us: int = 0) -> CellEvents:
        """The events of a simulation of cells; with ``tick_us`` event time is ``start_us`` + tick x ``tick_us``."""
        return CellEvents(self, simulation_id, tick_us=tick_us, start_us=start_us)

    def kernels(self, simulation_id: str) -> KernelEvents:
        """Kernels and their metrics; keep the object, which knows the kernels that it stored."""
        return KernelEvents(self, simulation_id)

    @property
    def counts(self) -> PublisherCounts:
        """What became of the events so far, all counts of one moment; in a forked process all are 0."""
        return self._outbox.counts if self._is_mine else PublisherCounts()

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until the events emitted so far are delivered or dropped, and handled; returns whether they are.

        Not to be called by a handler, which it would wait for. Raises InvalidSettings for a wrong timeout.
        """
        _check_seconds("timeout_s", timeout_s)
        if not self._is_mine:
            return True
        deadline = time.monotonic() + timeout_s
        done = self._outbox.wait_empty(timeout_s)
        if self._dispatcher is not None:
            done = self._dispatcher.wait_empty(max(0.0, deadline - time.monotonic())) and done
        return done

    def close(self, timeout_s: float | None = None) -> PublisherCounts:
        """Flush, disconnect, and return the final counts; returns within the timeout and some seconds.

        The timeout begins when this process has imported what delivers events, about a second after `connect`. What the
        broker has not confirmed by then is dropped, or written to the log. Idempotent. Raises InvalidSettings for a
        wrong timeout.
        """
        if timeout_s is not None:
            _check_seconds("timeout_s", timeout_s)
        if not self._is_mine:
            return self.counts
        with self._closing:
            if not self._closed:
                self._closed = True
                timeout_s = self._close_timeout_s if timeout_s is None else timeout_s
                if timeout_s > 0 and self.counts.buffered:
                    self._delivery.wait_ready()
                self.flush(timeout_s)
                if self._dispatcher is not None:
                    self._dispatcher.stop(_HANDLER_S)
                self._delivery.stop()
                atexit.unregister(self.close)
                self._report_sum()
        return self.counts

    async def aclose(self, timeout_s: float | None = None) -> PublisherCounts:
        """`close` without blocking the running event loop."""
        return await asyncio.to_thread(self.close, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def _is_mine(self) -> bool:
        """Whether this is the process that connected; in a forked one locks may be held by threads that it lacks."""
        return self._pid == os.getpid()

    def _make_room(self) -> bool:
        return self._delivery.make_room()

    def _report_drop(self, reason: str) -> None:
        # What is given up by closing is summed up there.
        summed = self._closed and reason != AFTER_CLOSE
        if len(self._reported) < 10 and reason not in self._reported and not summed:
            self._reported.add(reason)
            _log.warning("%s: an event is dropped: %s; further ones are counted in publisher.counts", self.run, reason)

    def _report_sum(self) -> None:
        counts = self.counts
        if counts.dropped or counts.logged:
            reasons = ", ".join(f"{number:,} because {reason}" for reason, number in counts.reasons.items())
            _log.warning(
                "%s: %s of %s events were not delivered: %s dropped%s%s",
                self.run,
                f"{counts.dropped + counts.logged:,}",
                f"{counts.emitted:,}",
                f"{counts.dropped:,}",
                f" ({reasons})" if reasons else "",
                "" if self._missed_path is None else f", {counts.logged:,} written to {self._missed_path}",
            )
