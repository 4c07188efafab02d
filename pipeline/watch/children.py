"""What a supervisor knows and decides of its children: which must end, when they start again, their merged pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric

from astrocyte.pipeline.watch.link import Link
from astrocyte.pipeline.watch.progress import LONG
from astrocyte.pipeline.watch.running_time import RunningTime
from astrocyte.pipeline.watch.web import METRICS_TYPE, Answer, json_answer
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["Cause", "ChildWatch", "Restarts", "merged_metrics", "pages_of"]

Cause = Literal["ended", "asked", "blocked", "hangs", "silent"]
"""Why a role was started again: it ended by itself, or asked for it; its event loop was blocked, it made no progress,
or nothing was heard of it."""

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_LONGEST_WAIT_S: Final = 60.0
_METRICS_S: Final = 6.0
"""How long a request of the metrics waits for a child."""


@dataclass(slots=True)
class ChildWatch:
    """Decides whether a child has to be ended. ``timeout_s`` 0: never."""

    timeout_s: float
    _time: RunningTime = field(default_factory=RunningTime)
    _heard: int = 0
    _heard_s: float = 0.0

    @property
    def quiet_s(self) -> float:
        """For how long nothing has been heard of it, in time in which this process ran."""
        return self._time.seconds - self._heard_s

    def look(self, heard: int, status: Mapping[str, Any] | None, now_s: float) -> tuple[Cause, str] | None:
        """The cause and a line, or None; ``heard`` is the number of reports so far, ``status`` the last one."""
        self._time.look(now_s)
        if heard != self._heard:
            self._heard, self._heard_s = heard, self._time.seconds
        if not self.timeout_s:
            return None
        if status is not None and status["end"]:
            return status["end"], status["line"]
        # Before its first report a child imports libraries and plugins.
        if self.quiet_s >= self.timeout_s * (1 if heard else LONG):
            return "silent", (
                f"nothing has been heard for {self.quiet_s:.0f} s: its process is stopped, or its interpreter blocked"
            )
        return None


@dataclass(slots=True, eq=False)
class Restarts:
    """When a role may be started again, and when no more: back-off, a bound, and the counts.

    A role that ends by itself ``most`` times within a minute and then once more is given up; so is one that had to be
    ended ``most`` times within an hour, or longer where the time limit is long.
    """

    most: int = 5
    timeout_s: float = 120.0
    counts: Counter[tuple[str, Cause]] = field(default_factory=Counter)
    _recent: dict[tuple[str, bool], list[float]] = field(default_factory=dict)

    def ended(self, role: str, cause: Cause, status: int | str, now_s: float) -> float:
        """A role has ended: returns after how many seconds it is started again. Raises AstrocyteError."""
        if cause == "asked":
            self.counts[role, cause] += 1
            return 0.0
        by_itself = cause == "ended"
        within_s = _MINUTE_S if by_itself else max(_HOUR_S, 2 * (self.most + 1) * self.timeout_s)
        recent = [moment for moment in self._recent.get((role, by_itself), []) if now_s - moment < within_s]
        if len(recent) >= self.most:
            raise AstrocyteError(
                f"role {role!r} ended {len(recent) + 1} times within a minute, last with status {status}; "
                "see its log above"
                if by_itself
                else f"role {role!r} had to be ended {len(recent) + 1} times within {within_s / 60:.0f} minutes, last "
                f"because {status}; see the lines above for what it was at"
            )
        self._recent[role, by_itself] = [*recent, now_s]
        self.counts[role, cause] += 1
        return min(2.0 ** (len(recent) - 1), _LONGEST_WAIT_S) if recent else 0.0

    def collect(self) -> Iterable[Metric]:
        """The counts as a metric."""
        family = CounterMetricFamily(
            "astrocyte_restarts", "Processes of roles that were started again", labels=("role", "cause")
        )
        for (role, cause), number in sorted(self.counts.items()):
            family.add_metric((role, cause), number)
        return [family]


def pages_of(
    path: str,
    links: Mapping[str, Link],
    waits: Mapping[str, str],
    restarts: Restarts,
    *,
    alive: bool,
) -> Answer | None:
    """The pages of all roles of a supervisor.

    ``waits`` says of roles without a process for what they wait; ``alive``: the supervisor looks after them.
    """
    if path == "/metrics":
        own = generate_latest(_registry(restarts)).decode()
        # All at once: each child may take as long as a scrape.
        with ThreadPoolExecutor(max(1, len(links))) as pool:
            theirs = pool.map(lambda link: link.metrics(_METRICS_S), links.values())
            return Answer(200, METRICS_TYPE, merged_metrics([own, *theirs]).encode())
    if path not in ("/healthz", "/readyz"):
        return None
    roles = {role: _status(role, link.status, waits.get(role, "")) for role, link in links.items()}
    healthy = alive and all(each["healthy"] for each in roles.values())
    ready = healthy and all(each["ready"] for each in roles.values())
    for role, each in roles.items():
        each["restarts"] = {cause: number for (name, cause), number in sorted(restarts.counts.items()) if name == role}
    good = healthy if path == "/healthz" else ready
    return json_answer(200 if good else 503, {"healthy": healthy, "ready": ready, "roles": roles})


def _registry(collector: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _status(role: str, status: Mapping[str, Any] | None, waits: str) -> dict[str, Any]:
    if status is None or waits:
        return {"role": role, "healthy": True, "ready": False, "waits": [waits or "it starts"]}
    return dict(status)


_FAMILY: Final = re.compile(r"# (HELP|TYPE) (\S+)")


def merged_metrics(pages: Iterable[str]) -> str:
    """One Prometheus text of several: the samples of a family must stand together, below one head."""
    heads: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for text in pages:
        name = ""
        for line in text.splitlines():
            found = _FAMILY.match(line)
            if found is not None:
                name = found[2]
                heads.setdefault(name, {}).setdefault(found[1], line)
                samples.setdefault(name, [])
            elif line:
                samples[name].append(line)
    lines = (line for name, head in heads.items() for line in (*head.values(), *samples[name]))
    return "".join(f"{line}\n" for line in lines)
