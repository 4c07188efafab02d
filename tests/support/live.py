"""Real workers that correlate while a producer sends, and what must be true of them after any fault.

No event is late, the matches are those that ``match`` finds in the recorded log, and every event is accounted for.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from astrocyte import Engine, load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import ensure_topics, topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, CLOCK, DEAD_LETTERS, LATE, MULTI_EVENTS, STATS, mono_topic
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

FORMS: tuple[Form, ...] = ("json", "frames")
PAIR = ("quiet_a", "quiet_b")
NEIGHBOUR = "neighbour"
TICK_S = 0.05
ROWS = 10
"""Events of each stream in a tick."""
PLUGIN = "tests.support.slow_validator"
PARTITIONS = 2
WRONG_KEY = "k3"
AHEAD_US = 2 * 3_600_000_000
OUTPUTS = (MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, CLOCK)


def rules_text(by: str, streams: Sequence[str], slow: Sequence[str]) -> str:
    """A rule for each stream with the next one, correlated by a field; some streams have a slow validator."""
    text = "rules:\n"
    for first, second in pairwise(streams):
        text += f"  - {{name: {first}_{second}, by: {by}, within: 100ms, "
        text += f"all: [{{as: a, stream: {first}}}, {{as: b, stream: {second}}}]}}\n"
    return text + ("validators:\n" + "".join(f"  - {{stream: {each}, use: slow}}\n" for each in slow) if slow else "")


class Sending:
    """Events of the streams, with the time of now, from a thread until asked to stop."""

    def __init__(self, settings: Settings, form: Form) -> None:
        self._settings = settings
        self._form: Form = form
        self._stop = threading.Event()
        self._dice = np.random.default_rng(7)
        self._sequence = 0
        self.frames: list[Frame] = []
        self.right: list[Frame] = []
        """The same without the events of a wrong clock."""
        self.wrong_clock = False
        """Whether the clock of the key `WRONG_KEY` is two hours ahead."""
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until events of so many seconds more were sent."""
        enough = len(self.frames) + len(self._settings.streams) * seconds / TICK_S
        wait_until(lambda: len(self.frames) >= enough, seconds * 3 + 10, "the producer does not go on")

    def history(self, seconds: float, tick_s: float) -> None:
        """Send events of so many seconds before now at once; returns when the broker has them."""
        now_us = time.time_ns() // 1000
        ticks = int(seconds / tick_s)
        with self._sink() as sink:
            for tick in range(ticks):
                for frame in self.tick(now_us - int((ticks - tick) * tick_s * 1e6), tick_s):
                    sink.write(frame)

    def stop(self) -> None:
        """Returns when the broker has everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(120)
            assert not self._thread.is_alive()

    @property
    def events(self) -> int:
        """Number of events so far."""
        return sum(frame.num_rows for frame in self.frames)

    @property
    def refused(self) -> int:
        """Number of events with a wrong clock."""
        return self.events - sum(frame.num_rows for frame in self.right)

    def _sink(self) -> KafkaSink:
        return KafkaSink(self._settings.broker, partitions=self._settings.partitions, form=self._form)

    def _send(self) -> None:
        with self._sink() as sink:
            while not self._stop.wait(TICK_S):
                for frame in self.tick(time.time_ns() // 1000):
                    sink.write(frame)

    def tick(self, now_us: int, tick_s: float = TICK_S) -> list[Frame]:
        """Events of the last 50 ms."""
        made = []
        for stream in self._settings.streams:
            keys = [f"k{number}" for number in self._dice.integers(0, 8, ROWS)]
            wrong = np.array([self.wrong_clock and key == WRONG_KEY for key in keys])
            times = now_us - np.sort(self._dice.integers(0, int(tick_s * 1e6), ROWS))[::-1]
            columns = {
                "timestamp": times + np.where(wrong, AHEAD_US, 0),
                "key": keys,
                "place": [f"p{number}" for number in self._dice.integers(0, 8, ROWS)],
                "value": self._dice.random(ROWS),
            }
            made.append(Frame.from_columns(stream, "run", columns, first_seq=self._sequence))
            self.right.append(made[-1].take(np.flatnonzero(~wrong)) if wrong.any() else made[-1])
        self._sequence += ROWS
        self.frames += made
        return made


class Worker:
    """One role as a process that may be started again."""

    def __init__(self, settings: Settings, role: str, log: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self.log = log
        self._environment = environment_of(settings) | {"ASTROCYTE_ROLES": role} | environment
        self.start()

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(worker_command(), env=self._environment, stdout=out, stderr=out)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """A clean end, with status 0."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text(errors="replace")[-3000:]

    def ready(self) -> None:
        """Return when it reads partitions."""
        wait_until(
            lambda: f"role {self.role} is ready and reads (".encode() in self.log.read_bytes(), 120, "a worker's start"
        )


@dataclass(slots=True)
class Live:
    """A broker, the workers and the producer of one experiment."""

    broker: Any
    settings: Settings
    sending: Sending
    folder: Path
    environment: Mapping[str, str]
    workers: list[Worker] = field(default_factory=list)

    @property
    def worker(self) -> Worker:
        """The first worker, which correlates."""
        return self.workers[0]

    def add(self, role: str) -> Worker:
        """Start one more worker."""
        log = self.folder / f"worker{len(self.workers)}-{role}.log"
        self.workers.append(Worker(self.settings, role, log, self.environment))
        return self.workers[-1]

    # -- what came of the events

    def records(self, topic: str) -> list[Any]:
        """All records of a topic; none where it does not exist."""
        if topic not in asyncio.run(topic_partitions(self.settings.broker)):
            return []
        return [each for part in read_all(self.settings.broker, topic).values() for each in part]

    def matches(self) -> list[str]:
        """Ids of what was emitted."""
        return [orjson.loads(each.value)["event_id"] for each in self.records(MULTI_EVENTS)]

    def counters(self) -> dict[str, int]:
        """The newest counters of the domains, summed."""
        newest: dict[bytes, dict[str, Any]] = {}
        for each in self.records(STATS):
            if each.key.startswith(b"correlate/"):
                newest[each.key] = orjson.loads(each.value)
        names = ("received", "processed", "late", "dead", "duplicate", "sampled", "skipped", "matches")
        return {name: sum(stats[name] for stats in newest.values()) for name in names}

    def expected(self) -> set[str]:
        """Ids of all matches: what an engine finds that gets every event before its end."""
        engine = Engine(load_rules(self.settings.rules[0]))
        for frame in self.sending.right:
            engine.push(frame)
        return {match.id for match in engine.flush().matches}

    def offline(self) -> tuple[list[str], dict[str, int]]:
        """Ids and counters of ``match`` over the recorded log."""
        path = self.folder / "recorded.jsonl.zst"
        asyncio.run(record(self.settings.broker, [*mono_topics(self.settings.streams), CLOCK], path))
        run, outputs = run_rules(
            load_rules(self.settings.rules[0]),
            [path],
            lateness_us=self.settings.lateness,
            clock_tolerance_us=self.settings.clock_tolerance,
        )
        ids = [orjson.loads(each.value)["event_id"] for output in outputs for each in output.multi_events]
        return ids, run.counters.as_dict()

    def check(self, *, repeats: bool = False, timeout_s: float = 90) -> dict[str, int]:
        """Nothing is late, the matches are those of the log, all events are accounted for; returns the numbers.

        ``repeats``: a worker was killed, so that it may have emitted matches twice.
        """
        self.sending.stop()
        wanted, events, refused = self.expected(), self.sending.events, self.sending.refused
        assert len(wanted) > 300
        found: list[str] = []
        counters: dict[str, int] = {}

        def done() -> bool:
            if self.records(LATE):
                return True
            # A worker at its end has counted everything in the snapshot that it stored last.
            counters.update(self.counters())
            if counters["received"] < events:
                return False
            found[:] = self.matches()
            return len(set(found)) >= len(wanted)

        wait_until(done, timeout_s, lambda: f"{len(set(found))} of {len(wanted)} matches, counters {counters}")
        late = len(self.records(LATE))
        assert (late, counters["late"]) == (0, 0), f"{late} late of {events} events, counters {counters}"
        assert sorted(set(found) if repeats else found) == sorted(wanted)
        letters = [orjson.loads(each.value) for each in self.records(DEAD_LETTERS)]
        assert {each["stage"] for each in letters} <= {"clock"}
        assert len({each["letter_id"] for each in letters}) == refused
        assert repeats or len(letters) == refused
        accounted = {"received": events, "processed": events - refused, "dead": refused, "late": 0}
        assert {name: counters[name] for name in accounted} == accounted
        ids, offline = self.offline()
        assert sorted(ids) == sorted(wanted)
        assert {name: offline[name] for name in accounted} == accounted
        return {"events": events, "late": late, "matches": len(set(found)), "offline": len(ids)}


@contextmanager
def correlating(
    broker: Any,
    folder: Path,
    *,
    form: Form = "json",
    by: Literal["key", "place"] = "key",
    slow: Mapping[str, float] | None = None,
    backlog_s: tuple[float, float] | None = None,
    uneven: Mapping[str, int] | None = None,
    **wishes: object,
) -> Iterator[Live]:
    """Workers of the roles that the rules need, and a producer that begins once they read.

    ``slow``: seconds for which a validator is busy with an event, by stream. ``backlog_s``: before the workers start,
    events of so many seconds are in the topics, in ticks of so many seconds, and no others follow. ``uneven``: streams
    whose topics have another number of partitions. The workers must end well.
    """
    slow, uneven = slow or {}, uneven or {}
    rules = folder / "rules.yaml"
    streams = (*PAIR, NEIGHBOUR) if NEIGHBOUR in slow else PAIR
    rules.write_text(rules_text(by, streams, tuple(slow)))
    settings = load_settings(
        broker=broker.address, group=f"live-{folder.name}", rules=(rules,), partitions=PARTITIONS, streams=streams,
        snapshot_interval="500ms", roles=("correlate",), plugins=(PLUGIN,) if slow else (), **wishes,
    )  # fmt: skip
    asyncio.run(ensure_topics(settings.broker, {mono_topic(stream): count for stream, count in uneven.items()}))
    asyncio.run(make_topics(settings, [*mono_topics(streams), *OUTPUTS]))
    sending = Sending(settings, form)
    live = Live(broker, settings, sending, folder, {"SLOW_VALIDATOR_S": str(max(slow.values(), default=0.0))})
    with stopping(live.workers):
        try:
            if backlog_s is not None:
                sending.history(*backlog_s)
            roles = ("correlate",) if by == "key" and not uneven else ("correlate", "repartition")
            for role in roles:
                live.add(role)
            if backlog_s is None:
                for worker in live.workers:
                    worker.ready()
                sending.start()
            yield live
        finally:
            sending.stop()


@contextmanager
def stopping(workers: Sequence[Worker]) -> Iterator[None]:
    """The workers that run end well after the block; where it fails, their logs are shown."""
    try:
        yield
    except BaseException:
        for worker in workers:
            sys.stderr.write(f"\n{worker.log.name}: {worker.log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.stop()
