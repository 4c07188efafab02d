"""The watch over one role's process: what it is at, whether it is alive, healthy and ready, and its metrics.

The event loop notes once a second what it sees; a thread notes when the loop no longer does. The thread reports to the
supervisor, which ends and restarts the process, or ends the process itself where it has no supervisor of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from astrocyte.pipeline.watch.link import Supervisor
from astrocyte.pipeline.watch.progress import LONG, Observation, ProgressWatch
from astrocyte.pipeline.watch.running_time import RunningTime
from astrocyte.pipeline.watch.web import METRICS_TYPE, Answer, json_answer
from astrocyte.schemas.times import iso_from_us

__all__ = ["RoleWatch", "metrics_of"]

logger = logging.getLogger(__name__)

End = Literal["", "blocked", "hangs"]
"""Why the process must be started again."""

_BEAT_S: Final = 0.25
"""Time between two beats of the event loop."""
_LOOK_S: Final = 1.0
_COLLECT_S: Final = 4.0
"""How long a request of the metrics waits for the event loop."""
_END_S: Final = 20.0
"""Time to end by itself, for a process that makes no progress and has no supervisor."""


@dataclass(slots=True)
class _Seen:
    """What the event loop saw last."""

    waits: list[str] = field(default_factory=list)
    """Why the role is not ready."""
    standstills: list[dict[str, Any]] = field(default_factory=list)
    stalls: list[dict[str, Any]] = field(default_factory=list)
    hangs: str = ""
    restoring: bool = False


class RoleWatch:
    """The watch of one process. Roles tell it what they wait for; everything else it finds out itself.

    ``observe`` is called once a second on the event loop and gives None before the role reads; ``stalls`` says what
    event time waits for; ``crash`` ends the app in order.
    """

    def __init__(
        self,
        role: str,
        progress: ProgressWatch,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.role = role
        self.progress = progress
        self.observe: Callable[[], Observation | None] = lambda: None
        self.stalls: Callable[[], Iterable[dict[str, Any]]] = tuple
        self.should_stop: Callable[[], bool] = lambda: False
        """Asked on the event loop."""
        self.crash: Callable[[str], None] = lambda _line: None
        self.assigned = False
        """Whether the group has given this member its partitions."""
        self.collectors: list[Any] = []
        """Collectors of metrics, called on the event loop."""
        self._monotonic = monotonic
        self._now_us = now_us
        self._began_us = now_us()
        self._broker = ""
        """Why the broker cannot be reached, before there is a consumer."""
        self._store = ""
        self._store_since_us = 0
        self._busy: dict[int, tuple[str, float]] = {}
        self._tokens = count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._beats = 0
        self._stopping = False
        self._process = ProcessCollector(namespace="astrocyte", registry=None)
        self._seen = _Seen()
        # Of the thread that watches the loop.
        self._time = RunningTime()
        self._beats_seen = -1
        self._beat_s = 0.0
        self._stopping_s: float | None = None
        self._end: tuple[End, str] = ("", "")
        self._said_blocked = False

    # -- what roles tell

    def broker_away(self, reason: str) -> None:
        """The broker cannot be reached; empty if it can."""
        self._broker = reason

    def store_away(self, reason: str) -> None:
        """The store does not take what is written; empty if it does."""
        if bool(reason) != bool(self._store):
            self._store_since_us = self._now_us()
        self._store = reason

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Within this context the role is at one piece of work that may take long; what it is in a few words."""
        token = next(self._tokens)
        self._busy[token] = (what, self._monotonic())
        try:
            yield
        finally:
            del self._busy[token]

    @property
    def work(self) -> tuple[str, float]:
        """The oldest work that may take long, and the seconds that it has lasted; empty if there is none."""
        if not self._busy:
            return "", 0.0
        what, since_s = min(self._busy.values(), key=lambda item: item[1])
        return what, self._monotonic() - since_s

    # -- the event loop

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop runs, on this thread."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._beat()

    def _beat(self) -> None:
        assert self._loop is not None
        if self._beats % round(_LOOK_S / _BEAT_S) == 0:
            try:
                self.look()
            except Exception:
                logger.exception("the look at the progress of role %s failed", self.role)
        self._beats += 1
        self._stopping = self._stopping or self.should_stop()
        self._loop.call_later(_BEAT_S, self._beat)

    def look(self) -> None:
        """See what the role waits for; called once a second on the event loop."""
        observation = self.observe()
        waits = [f"the broker is away: {self._broker}"] if self._broker else []
        waits += [f"the store does not take what is written: {self._store}"] if self._store else []
        if observation is None:
            self._seen = _Seen([*waits, "it starts"])
            return
        work, work_s = self.work
        observation = replace(observation, store=self._store, busy=work, busy_s=work_s)
        self.progress.look(observation, self._monotonic(), self._now_us())
        if not observation.connected:
            waits.append("the broker is away: the group coordinator does not answer")
        elif observation.dividing or not self.assigned:
            waits.append("partitions are being divided among the members of its group")
        if observation.unwritten:
            waits.append(f"the broker does not take what is written: {observation.unwritten}")
        restoring = sum(not position.placed for position in observation.positions.values())
        if restoring:
            waits.append(f"the state of {restoring} partitions of topics is being restored")
        stills = [each.as_json() for each in self.progress.standstills]
        self._seen = _Seen(waits, stills, list(self.stalls()), self.progress.hangs, bool(restoring))

    # -- the thread

    def watch(self) -> tuple[End, str]:
        """One look of the thread, about once a second: why the process must be started again, and a line; or empty."""
        now_s = self._monotonic()
        self._time.look(now_s)
        if self._beats != self._beats_seen or (self._loop is None and self._broker):
            self._beats_seen, self._beat_s = self._beats, self._time.seconds
        if not self._end[0]:
            self._end = self._judge()
        self._say_blocked()
        return self._end

    def _judge(self) -> tuple[End, str]:
        limit_s = self.progress.timeout_s
        if not limit_s:
            return "", ""
        if self._stopping:
            if self._stopping_s is None:
                self._stopping_s = self._time.seconds
            stopping_s = self._time.seconds - self._stopping_s
            if stopping_s >= limit_s:
                return "hangs", f"role {self.role} was asked to stop {stopping_s:.0f} s ago and has not ended"
            return "", ""
        # A start may compile kernels, and a restored state is unpacked in one piece.
        long = self._loop is None or not self.assigned or self._seen.restoring
        blocked_s = self.blocked_s
        if blocked_s >= limit_s * (LONG if long else 1):
            return "blocked", f"the event loop of role {self.role} is blocked for {blocked_s:.0f} s, {self._place()}"
        if self._seen.hangs:
            return "hangs", f"role {self.role}: {self._seen.hangs}"
        return "", ""

    @property
    def blocked_s(self) -> float:
        """For how long the event loop has not run, in time in which this process did; 0 while it does."""
        late_s = self._time.seconds - self._beat_s
        return late_s if late_s > _LOOK_S + _BEAT_S else 0.0

    def _place(self) -> str:
        """Where the event loop's thread is, innermost first."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "before it has begun"
        calls = reversed(traceback.extract_stack(frame)[-3:])
        return "at " + ", called from ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in calls)

    def _say_blocked(self) -> None:
        blocked_s = self.blocked_s
        if self._loop is None or self._stopping:
            return
        if blocked_s >= self.progress.report_s and not self._said_blocked:
            self._said_blocked = True
            logger.warning("the event loop of role %s is blocked for %.0f s, %s", self.role, blocked_s, self._place())
        elif not blocked_s and self._said_blocked:
            self._said_blocked = False
            logger.warning("the event loop of role %s goes on", self.role)

    def status(self) -> dict[str, Any]:
        """The state of the role as JSON values; from any thread."""
        seen, (end, line) = self._seen, self._end
        waits = list(seen.waits)
        blocked_s = self.blocked_s
        if self._loop is None:
            waits = [f"the broker is away: {self._broker}"] if self._broker else ["it starts"]
        elif blocked_s:
            waits.append(f"the event loop is blocked for {blocked_s:.0f} s")
        if self._stopping:
            waits = ["it stops"]
        return {
            "role": self.role,
            "healthy": not end,
            "ready": self._loop is not None and self.assigned and not waits,
            "since": iso_from_us(self._began_us),
            "end": end,
            "line": line,
            "waits": waits,
            "blocked_s": round(blocked_s, 1),
            "standstills": seen.standstills,
            "stalls": seen.stalls,
        }

    # -- pages

    def page(self, path: str) -> Answer | None:
        """The web pages of a process without a supervisor of ours."""
        if path == "/metrics":
            return Answer(200, METRICS_TYPE, self.metrics().encode())
        status = self.status()
        if path == "/healthz":
            return json_answer(200 if status["healthy"] else 503, status)
        if path == "/readyz":
            return json_answer(200 if status["ready"] and status["healthy"] else 503, status)
        return None

    def metrics(self) -> str:
        """`families` as Prometheus text."""
        return _text(self.families())

    def families(self) -> list[Metric]:
        """All metrics; without what the role counts while its event loop is blocked or does not run yet.

        From any thread but that of the event loop.
        """
        found: list[Metric] = []
        loop = self._loop
        if loop is not None and loop.is_running():
            asked = asyncio.run_coroutine_threadsafe(self._collect(), loop)
            try:
                found = asked.result(_COLLECT_S)
            except (TimeoutError, RuntimeError, asyncio.CancelledError):
                asked.cancel()
        return [*found, *_of_role([self], self.role)]

    async def _collect(self) -> list[Metric]:
        # On the event loop, which changes what is counted.
        return list(_of_role(self.collectors, self.role))

    def collect(self) -> Iterable[Metric]:
        """Whether the role is alive: what can be said from any thread."""
        status = self.status()
        for name, text, value in (
            ("astrocyte_healthy", "1 if the role makes progress or waits for good reason", status["healthy"]),
            ("astrocyte_ready", "1 if the role has its partitions, their state, broker and store", status["ready"]),
            ("astrocyte_loop_blocked_seconds", "For how long the event loop has not run", status["blocked_s"]),
            ("astrocyte_store_waiting_seconds", "For how long the store has not taken what is written", self._away_s()),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        family = GaugeMetricFamily(
            "astrocyte_standstill_seconds",
            "For how long a partition has not advanced though records wait",
            labels=("topic", "partition", "why"),
        )
        for still in list(self.progress.standstills):
            labels = (still.place.topic, str(still.place.partition), still.why)
            family.add_metric(labels, (self._now_us() - still.since_us) / 1e6)
        yield family
        yield from self._process.collect()

    def _away_s(self) -> float:
        return (self._now_us() - self._store_since_us) / 1e6 if self._store else 0.0

    # -- the process

    def start(self, supervisor: Supervisor | None) -> None:
        """Watch from now on, on a daemon thread; report to the supervisor, or without one act on one's own."""
        if supervisor is not None:
            supervisor.answer_with(self.metrics)
        threading.Thread(target=self._run, args=(supervisor,), name="watch", daemon=True).start()

    def _run(self, supervisor: Supervisor | None) -> None:
        acted = False
        while True:
            end, line = self.watch()
            if supervisor is not None:
                supervisor.report(self.status())
            elif end and not acted:
                acted = True
                self._act(end, line)
            time.sleep(_LOOK_S)

    def _act(self, end: End, line: str) -> None:
        logger.critical("%s; the process ends, to be started again", line)
        loop = self._loop
        if end == "hangs" and loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self.crash, line)
            time.sleep(_END_S)
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(1)


class _Collected:
    """Metrics that are collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_of(collectors: Iterable[Any], role: str) -> str:
    """Prometheus text of collectors, with the label ``role``."""
    return _text(_of_role(collectors, role))


def _of_role(collectors: Iterable[Any], role: str) -> Iterator[Metric]:
    """Metrics of several collectors, each sample with the name of the role."""
    for collector in collectors:
        for family in collector.collect():
            family.samples = [sample._replace(labels={**sample.labels, "role": role}) for sample in family.samples]
            yield family


def _text(families: Iterable[Metric]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry).decode()
