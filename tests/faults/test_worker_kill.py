"""kill -9 of workers at random moments: every expected multi event is in SQL, once, and no other."""

import asyncio
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from astrocyte import Engine, load_rules
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS
from tests.support.waiting import wait_until

RULES = """
rules:
  - name: both
    by: key
    within: 400ms
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {integrated_value: "a.value + b.value"}
  - name: rising
    by: key
    within: 600ms
    seq:
      - {as: low, stream: axon_1}
      - {as: high, stream: axon_1, where: "value > low.value + 0.7"}
    skip: past_last
"""
STREAMS = ("axon_1", "axon_2")
START_US = 1_750_000_000_000_000
TICK_US = 200_000


def spikes(run: str) -> Iterator[list[Frame]]:
    """Frames of 200 ms, for ever, dense enough that partial matches are open at every moment; with watermarks."""
    random_numbers = np.random.default_rng(11)
    sequence = dict.fromkeys(STREAMS, 0)
    for tick in count():
        frames = []
        for stream in STREAMS:
            rows = int(random_numbers.integers(80, 160))
            times = START_US + tick * TICK_US + np.sort(random_numbers.integers(0, TICK_US, rows))
            columns = {
                "timestamp": times,
                "key": [f"k{number}" for number in random_numbers.integers(0, 12, rows)],
                "type": ["A" if stream == "axon_1" else "B"] * rows,
                "value": random_numbers.random(rows),
            }
            meta = {"origin": run, "peers": STREAMS, "watermark_us": START_US + (tick + 1) * TICK_US}
            frames.append(Frame.from_columns(stream, run, columns, first_seq=sequence[stream], **meta))
            sequence[stream] += rows
        yield frames


def expected_ids(frames: list[Frame]) -> set[str]:
    engine = Engine(load_rules(RULES))
    for frame in frames:
        engine.push(frame)
    return {match.id for match in engine.flush().matches}


class Worker:
    """One role as a process that is started again after each kill."""

    def __init__(self, settings: Settings, role: str, log: Path) -> None:
        self._environment = environment_of(settings) | {"ASTROCYTE_ROLES": role}
        self._log = log.open("ab")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            worker_command(), env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        status = self._process.wait(30)
        self._log.close()
        return status


def stored_ids(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT event_id FROM multi_events")]


@pytest.mark.parametrize(
    ("own_broker", "kills"),
    [
        ("embedded", 4),
        pytest.param("embedded", 10, marks=pytest.mark.soak),
        pytest.param("kafka", 10, marks=[pytest.mark.soak, pytest.mark.kafka]),
    ],
    indirect=["own_broker"],
)
def test_every_expected_multi_event_is_in_sql_once_after_workers_were_killed(own_broker, tmp_path, kills):
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    database = tmp_path / "out.db"
    settings = load_settings(
        broker=own_broker.address,
        group=f"kill-{tmp_path.name}",
        instance="one",  # a static member: its restart does not wait for the session of the dead one to end
        rules=(rules,),
        sql_url=f"sqlite:///{database}",
        partitions=2,
        snapshot_interval="200ms",
        streams=STREAMS,
    )
    frames: list[Frame] = []
    topics = [*mono_topics(STREAMS), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]
    asyncio.run(make_topics(settings, topics))
    workers = {role: Worker(settings, role, tmp_path / f"{role}.log") for role in ("correlate", "sql")}
    stop = threading.Event()

    def publish() -> None:
        with KafkaSink(settings.broker, partitions=settings.partitions) as sink:
            for some in spikes(f"run-{tmp_path.name}"):
                last = stop.wait(TICK_US / 1e6)  # the pace of the events, so that kills fall into the middle
                for frame in some:
                    frames.append(replace(frame, end=last))
                    sink.write(frames[-1])
                if last:
                    return

    publisher = threading.Thread(target=publish)
    publisher.start()
    dice = random.Random(5)
    try:
        for number in range(kills):
            before = progress(settings, database)
            # At least one store or commit between two kills: a worker that is never allowed to start proves nothing.
            wait_until(
                lambda before=before: progress(settings, database) > before, 150, "no progress between two kills"
            )
            time.sleep(dice.uniform(0.0, 0.7))
            role = ("correlate", "sql")[number % 2] if number < 8 else dice.choice(("correlate", "sql"))
            workers[role].kill()
            workers[role].start()
        stop.set()
        publisher.join(60)
        wanted = expected_ids(frames)
        assert len(wanted) > 1000
        wait_until(lambda: len(stored_ids(database)) >= len(wanted), 150, lambda: f"{len(stored_ids(database))} stored")
        wait_until(lambda: lags(settings) == (0, 0), 30, lambda: f"lags {lags(settings)}")
        found = stored_ids(database)
        assert len(found) == len(set(found))
        assert set(found) == wanted
    finally:
        stop.set()
        publisher.join(60)
        statuses = [worker.stop() for worker in workers.values()]
    assert statuses == [0, 0]


def lags(settings: Settings) -> tuple[int | None, ...]:
    return tuple(asyncio.run(group_lag(settings.broker, f"{settings.group}-{role}")) for role in ("correlate", "sql"))


def progress(settings: Settings, database: Path) -> int:
    if not database.exists():
        return 0
    try:
        return len(stored_ids(database))
    except sqlite3.OperationalError:
        return 0  # no table yet
