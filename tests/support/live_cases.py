"""Real workers over five simulated worlds, and the comparison of what they make with what `verify` recomputes.

A case says when workers start, with which timeouts, how many partitions and workers there are, and how events travel.
Multi events, alerts, results of windows, late events, dead letters and the rows of the SQL store must be those that the
offline run makes of the topics' events, all of them, with nothing left out.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from astrocyte.pipeline.analysis.verify import Verification, verify
from astrocyte.pipeline.analysis.verify.text import lines_of
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.roles.worker import needed_roles
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, METRICS_PREFIX, MULTI_EVENTS, TOPOLOGY
from astrocyte.simulator.emission.emitter import MemorySink
from astrocyte.simulator.run import simulate
from tests.support.role_worker import Worker, stopping
from tests.support.small_worlds import SMALL_WORLDS
from tests.support.waiting import wait_until

__all__ = ["MOMENTS", "SHIPPED", "TIMEOUTS", "Case", "check_case", "covering", "world_frames"]

Moment = Literal["before", "after", "middle", "restarted", "frozen"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "middle", "restarted")
TIMEOUTS: dict[str, dict[str, str]] = {
    "default": {},
    "short": {"idle_timeout": "300ms", "producer_timeout": "3s", "snapshot_interval": "200ms", "session_timeout": "3s"},
    "long": {"idle_timeout": "20s", "producer_timeout": "1h", "snapshot_interval": "3s", "session_timeout": "4s"},
}
DOMAINS = ("repartition", "insight", "correlate")
"""Roles that process events, in the order in which they follow one another."""
LIMIT_S = 240.0
"""Longest wait for one step; on an idle machine each takes seconds."""
SHIPPED = ("axons", "cells", "dna", "ecology", "kernels")


@dataclass(frozen=True)
class Case:
    """How the workers of one experiment run, and how events reach them."""

    moment: Moment = "before"
    timeouts: str = "default"
    partitions: int = 2
    form: Form = "frames"
    workers: int = 1
    broker: str = "embedded"
    scenarios: tuple[str, ...] = SHIPPED
    roles: tuple[str, ...] = ("correlate", "sql")
    frozen: str = ""
    """Role whose workers stand still at the moment ``frozen``: from before the first event until others are idle."""

    def __str__(self) -> str:
        worlds = "all" if self.scenarios == SHIPPED else "+".join(self.scenarios)
        return f"{worlds}-{self.moment}-{self.timeouts}-{self.partitions}p-{self.form}-{self.workers}w-{self.broker}"


def covering(
    factors: Mapping[str, Sequence[Any]], allowed: Callable[[Mapping[str, Any]], bool] = lambda _each: True
) -> list[dict[str, Any]]:
    """Combinations in which every pair of values of two factors occurs that is allowed, always the same ones."""
    names = list(factors)

    def pairs(chosen: Mapping[str, Any]) -> set[tuple[str, Any, str, Any]]:
        return {(a, chosen[a], b, chosen[b]) for i, a in enumerate(names) for b in names[i + 1 :]}

    everything = [dict(zip(names, values, strict=True)) for values in product(*factors.values())]
    everything = [each for each in everything if allowed(each)]
    missing = set[tuple[str, Any, str, Any]]().union(*map(pairs, everything))
    found = []
    while missing:
        best = max(everything, key=lambda each: len(pairs(each) & missing))
        found.append(best)
        missing -= pairs(best)
    return found


@cache
def world_frames(scenario: str) -> tuple[Frame, ...]:
    """Frames of a small world in which everything happens that the scenario can emit, in the order of emission."""
    ticks, settings = SMALL_WORLDS[scenario]
    kept = MemorySink()
    simulate(scenario, settings, seed=5, ticks=ticks, sink=kept)
    return tuple(kept.frames)


def _together(scenarios: Sequence[str]) -> list[Frame]:
    """Frames of several worlds by event time, as they come where these run at the same time."""
    placed = []
    for scenario in scenarios:
        reached_us = NEVER_US
        for number, frame in enumerate(world_frames(scenario)):
            newest_us = int(frame.timestamps().max()) if frame.num_rows else NEVER_US
            reached_us = max(reached_us, newest_us, frame.watermark_us or NEVER_US)
            placed.append(((reached_us, scenario, number), frame))
    return [frame for _, frame in sorted(placed, key=lambda item: item[0])]


@dataclass(slots=True)
class _Run:
    case: Case
    settings: Settings
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    # -- workers

    def start(self) -> None:
        """Start the workers, and return when all have joined their groups."""
        roles = needed_roles(self.settings)
        for role in roles:
            for number in range(self.case.workers if role in DOMAINS else 1):
                log = self.folder / f"{role}-{number}.log"
                own = {"ASTROCYTE_FILE_FOLDER": str(self.folder / "events")}
                self.workers.append(Worker(self.settings, role, log, own))
        self._wait_for(dict.fromkeys(self.workers, 0))

    def _wait_for(self, joined: Mapping[Worker, int]) -> None:
        """Until each worker has joined its group once more than it had."""
        for worker, before in joined.items():
            wait_until(
                lambda worker=worker, before=before: _joined(worker) > before,
                LIMIT_S,
                lambda worker=worker: f"{worker.role}: {worker.log.read_text(errors='replace')[-2000:]}",
            )

    @contextmanager
    def away(self, *, kill: bool) -> Iterator[None]:
        """The workers that correlate end, and start again after the block."""
        gone = [worker for worker in self.workers if worker.role in DOMAINS]
        for worker in gone:
            if kill:
                worker.kill()
            else:
                worker.stop()
        joined = {worker: _joined(worker) for worker in gone}
        yield
        for worker in gone:
            worker.start()
        self._wait_for(joined)

    @contextmanager
    def still(self, role: str) -> Iterator[None]:
        """The workers of a role are stopped (SIGSTOP), until those that correlate have read all and were long idle."""
        stopped = [worker for worker in self.workers if worker.role == role]
        for worker in stopped:
            worker.signal(signal.SIGSTOP)
        yield
        group = f"{self.settings.group}-correlate"
        wait_until(lambda: asyncio.run(group_lag(self.settings.broker, group)) == 0, LIMIT_S)
        long_s = (3 * self.settings.idle_timeout + self.settings.lateness) / 1e6 + 2
        read_s = time.monotonic()
        wait_until(lambda: time.monotonic() - read_s > long_s, LIMIT_S)
        for worker in stopped:
            worker.signal(signal.SIGCONT)

    # -- what the workers made

    def drained(self) -> bool:
        """Whether the roles have processed all that was in Kafka, in the order in which they follow one another."""
        group, running = self.settings.group, {each.role for each in self.workers}
        roles = [role for role in (*DOMAINS, "sql") if role in running]
        return all(asyncio.run(group_lag(self.settings.broker, f"{group}-{role}")) == 0 for role in roles)

    def verified(self) -> Verification:
        """The topics and the database against what should be there."""
        return verify(self.settings, where=("topics", "sql"), now_us=0)


def _joined(worker: Worker) -> int:
    return worker.log.read_bytes().count(f"role {worker.role} is ready and reads".encode())


def _differences(done: Verification) -> str:
    return "\n".join(line[:600] for line in lines_of(done))


def _end(sink_of: Settings, streams: Iterable[str]) -> None:
    """Producers of JSON records say that they have ended, so that windows close without waiting for the clock."""
    with KafkaSink(sink_of.broker, partitions=sink_of.partitions) as sink:
        for stream in sorted(streams):
            sink.write(Frame.from_columns(stream, "", {"timestamp": [], "key": []}, origin="", end=True))


def check_case(case: Case, address: str, folder: Path, rules: Sequence[Path] = ()) -> dict[str, Any]:
    """Run a case on an empty broker; returns what came out. Fails where live and offline differ."""
    rules = tuple(rules) or tuple(Path(name) for name in case.scenarios)
    settings = load_settings(
        broker=address, group=f"case-{folder.name}"[:60], rules=rules, partitions=case.partitions, roles=case.roles,
        sql_url=f"sqlite:///{folder}/rows.db", influx_dir=folder / "influx", **TIMEOUTS[case.timeouts],
    )  # fmt: skip
    frames = _together(case.scenarios)
    streams = {frame.stream for frame in frames}
    run = _Run(case, settings, folder)
    asyncio.run(make_topics(settings, mono_topics(sorted(streams))))
    first, rest = frames[: len(frames) // 2], frames[len(frames) // 2 :]

    def publish(some: Sequence[Frame]) -> None:
        with KafkaSink(address, partitions=case.partitions, form=case.form) as sink:
            for frame in some:
                sink.write(frame)
        if some is rest and case.form == "json":
            _end(settings, streams)

    with stopping(run.workers):
        if case.moment == "before":
            run.start()
            publish(first)
            publish(rest)
        elif case.moment == "after":
            publish(first)
            publish(rest)
            run.start()
        elif case.moment == "middle":
            publish(first)
            run.start()
            publish(rest)
        elif case.moment == "frozen":
            run.start()
            with run.still(case.frozen):
                publish(first)
                publish(rest)
        else:
            run.start()
            publish(first)
            with run.away(kill=case.timeouts != "default"):
                publish(rest)
        return _compare(run)


def _compare(run: _Run) -> dict[str, Any]:
    wait_until(run.drained, LIMIT_S, lambda: _differences(run.verified()))
    last: list[Verification] = []

    def done() -> bool:
        # The role repartition goes on to write after the last event: that a source has ended.
        last[:] = [run.verified()]
        return not any(place.waiting for place in last[0].places) and not last[0].not_compared

    wait_until(done, LIMIT_S, lambda: _differences(last[0]))
    (verification,) = last
    assert verification.holds, _differences(verification)
    assert not any(place.left_out for place in verification.places), _differences(verification)
    return _counts(verification)


def _counts(done: Verification) -> dict[str, Any]:
    found = {place.name: place.found for place in done.places}
    return {
        "multi": found[f"topic {MULTI_EVENTS}"],
        "alerts": found[f"topic {ALERTS}"],
        "late": found[f"topic {LATE}"],
        "dead": found[f"topic {DEAD_LETTERS}"],
        "topology": found.get(f"topic {TOPOLOGY}", 0),
        "windows": sum(count for name, count in found.items() if name.startswith(f"topic {METRICS_PREFIX}")),
        "rows": sum(count for name, count in found.items() if name.startswith("sql ")),
    }
