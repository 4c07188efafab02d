"""Workers that stand still or are overloaded, and brokers that go away, make no event late.

Two streams of single JSON records are correlated by a real worker. Whatever happens to it, the matches are those of
all events, and those that `match` finds in the recorded log.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, CLOCK, DEAD_LETTERS, LATE, MULTI_EVENTS
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

STREAMS = ("quiet_a", "quiet_b")
RULES = """
rules:
  - name: together
    within: 100ms
    all: [{as: a, stream: quiet_a}, {as: b, stream: quiet_b}]
"""
SLOW = """
validators:
  - {stream: quiet_a, use: slow}
"""
TICK_S = 0.05
ROWS = 10
"""Events of each stream in a tick."""
PLUGIN = "tests.support.slow_validator"


class Sending:
    """Events of both streams, with the time of now, from a thread until asked to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._dice = np.random.default_rng(7)
        self._sequence = 0
        self.frames: list[Frame] = []
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until events of so many seconds more were sent."""
        enough = len(self.frames) + len(STREAMS) * seconds / TICK_S
        wait_until(lambda: len(self.frames) >= enough, seconds * 3 + 10, "the producer does not go on")

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(60)

    @property
    def events(self) -> int:
        return sum(frame.num_rows for frame in self.frames)

    def _send(self) -> None:
        with KafkaSink(self._settings.broker, partitions=self._settings.partitions, form="json") as sink:
            while not self._stop.wait(TICK_S):
                for frame in self.tick(time.time_ns() // 1000):
                    sink.write(frame)

    def tick(self, now_us: int) -> list[Frame]:
        """Events of the last 50 ms."""
        made = []
        for stream in STREAMS:
            columns = {
                "timestamp": now_us - np.sort(self._dice.integers(0, int(TICK_S * 1e6), ROWS))[::-1],
                "key": [f"k{number}" for number in self._dice.integers(0, 8, ROWS)],
                "value": self._dice.random(ROWS),
            }
            made.append(Frame.from_columns(stream, "run", columns, first_seq=self._sequence))
        self._sequence += ROWS
        self.frames += made
        return made


class Worker:
    """A worker that correlates, as a process."""

    def __init__(self, settings: Settings, log: Path, **environment: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                worker_command(), env=environment_of(settings) | environment, stdout=out, stderr=out
            )

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@contextmanager
def correlating(
    address: str, folder: Path, *, slow_s: float = 0.0, backlog_s: float = 0.0, **wishes: object
) -> Iterator[tuple[Settings, Sending, Worker]]:
    """Settings, a producer that begins before the worker or once it reads, and the worker, which must end well."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES + (SLOW if slow_s else ""))
    settings = load_settings(
        broker=address, group=f"idle-{folder.name}", rules=(rules,), partitions=2, streams=STREAMS,
        snapshot_interval="500ms", roles=("correlate",), plugins=(PLUGIN,) if slow_s else (), **wishes,
    )  # fmt: skip
    asyncio.run(make_topics(settings, [*mono_topics(STREAMS), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS, CLOCK]))
    begun = recorded(address)
    sending = Sending(settings)
    worker = None
    try:
        if backlog_s:
            sending.start()
            sending.wait(backlog_s)
        worker = Worker(settings, folder / "worker.log", SLOW_VALIDATOR_S=str(slow_s))
        if not backlog_s:
            # A worker records where each of its domains begins.
            wait_until(lambda: recorded(address) >= begun + settings.partitions, 120, "the worker does not begin")
            sending.start()
        yield settings, sending, worker
    except BaseException:
        if worker is not None:
            sys.stderr.write(worker.log.read_text(errors="replace")[-3000:])
        raise
    finally:
        sending.stop()
        if worker is not None:
            worker.signal(signal.SIGCONT)
            worker.process.terminate()
            assert worker.process.wait(60) == 0


def recorded(address: str) -> int:
    """Number of records about idleness."""
    return sum(len(part) for part in read_all(address, CLOCK).values())


def matches(address: str) -> list[str]:
    """Ids of what was emitted, in the order of the partitions."""
    return [
        orjson.loads(each.value)["event_id"]
        for part in read_all(address, MULTI_EVENTS).values()
        for each in part
        if dict(each.headers)["ce_source"].endswith(b"/together")
    ]


def late(address: str) -> list[bytes]:
    return [each.value for part in read_all(address, LATE).values() for each in part if b'"quiet_' in each.value]


def expected(settings: Settings, frames: list[Frame]) -> set[str]:
    """Ids of all matches: what an engine finds that gets every event before its end."""
    engine = Engine(load_rules(Path(settings.rules[0])))
    for frame in frames:
        engine.push(frame)
    return {match.id for match in engine.flush().matches}


def in_the_log(settings: Settings, path: Path, *topics: str) -> tuple[set[str], int]:
    """Ids and number of late events that `match` finds in the recorded log."""
    asyncio.run(record(settings.broker, [*mono_topics(STREAMS), *topics], path))
    ruleset = load_rules(Path(settings.rules[0]))
    run, outputs = run_rules(ruleset, [path], lateness_us=settings.lateness)
    ids = {orjson.loads(each.value)["event_id"] for output in outputs for each in output.multi_events}
    return ids, run.counters.late


def check(fault: str, settings: Settings, sending: Sending, folder: Path, *topics: str) -> None:
    """Nothing is late, and the worker's matches are all there are; prints a line about it."""
    sending.stop()
    wanted = expected(settings, sending.frames)
    assert len(wanted) > 300
    found: list[str] = []

    def done() -> bool:
        found[:] = matches(settings.broker)
        return len(found) >= len(wanted) or bool(late(settings.broker))

    try:
        wait_until(done, 90, lambda: f"{len(found)} of {len(wanted)} matches")
    finally:
        line = f"{sending.events} events, {len(late(settings.broker))} late, {len(found)} matches of {len(wanted)}"
        print(f"\n{fault}: {line}", flush=True)
    assert late(settings.broker) == []
    assert sorted(found) == sorted(wanted)
    assert in_the_log(settings, folder / "recorded.jsonl.zst", *topics) == (wanted, 0)


@pytest.mark.parametrize("seconds", [7, 15])
def test_a_worker_that_is_stopped_and_goes_on_makes_nothing_late(own_embedded, tmp_path, seconds):
    with correlating(own_embedded.address, tmp_path) as (settings, sending, worker):
        sending.wait(2)
        worker.signal(signal.SIGSTOP)
        sending.wait(seconds)
        worker.signal(signal.SIGCONT)
        sending.wait(3)
        check(f"worker stopped for {seconds} s", settings, sending, tmp_path, CLOCK)


def test_a_worker_that_gets_little_time_makes_nothing_late(own_embedded, tmp_path):
    with correlating(own_embedded.address, tmp_path, idle_timeout="1s") as (settings, sending, worker):
        for _ in range(5):
            worker.signal(signal.SIGSTOP)
            sending.wait(1.5)
            worker.signal(signal.SIGCONT)
            sending.wait(0.1)
        check("worker stopped five times", settings, sending, tmp_path, CLOCK)


def test_a_worker_at_a_third_of_the_speed_that_it_needs_makes_nothing_late(own_embedded, tmp_path):
    limits = {"lateness": "200ms", "idle_timeout": "1s"}
    with correlating(own_embedded.address, tmp_path, slow_s=0.015, **limits) as (settings, sending, _):
        sending.wait(8)
        check("worker overloaded threefold", settings, sending, tmp_path, CLOCK)


def test_what_was_written_before_the_worker_starts_is_not_late(own_embedded, tmp_path):
    limits = {"lateness": "200ms", "idle_timeout": "1s"}
    with correlating(own_embedded.address, tmp_path, slow_s=0.005, backlog_s=8, **limits) as (settings, sending, _):
        check("backlog before the start", settings, sending, tmp_path, CLOCK)


def killed_for(broker, seconds: float, sending: Sending) -> None:
    broker.kill()
    sending.wait(seconds)
    broker.start()


def test_a_broker_that_is_killed_and_started_makes_nothing_late(own_broker, tmp_path):
    # A Kafka that other tests use as well holds what their workers found idle.
    topics = () if type(own_broker).__name__ == "Kafka" else (CLOCK,)
    with correlating(own_broker.address, tmp_path) as (settings, sending, _):
        sending.wait(2)
        killed_for(own_broker, 7, sending)
        sending.wait(3)
        check("broker killed for 7 s", settings, sending, tmp_path, *topics)
