"""Whether a role's process is alive and ready, in virtual time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from astrocyte.pipeline.kafka.partition_end import Position
from astrocyte.pipeline.watch.progress import Observation, ProgressWatch
from astrocyte.pipeline.watch.role import RoleWatch
from astrocyte.schemas.topics import TopicPartition

PLACE = TopicPartition("mono.a", 0)
DONE = Position(placed=True, read=10, unread=0, held=0, acknowledged=10, acks=1, paused=False, answered=True)
READS = Observation({PLACE: DONE})
TIMEOUT_S = 120.0


class Loop:
    """An event loop that runs what was scheduled when the test says so."""

    def __init__(self) -> None:
        self.due: list = []

    def call_later(self, _seconds, step) -> None:
        self.due.append(step)

    def turn(self) -> None:
        """One second of the loop."""
        for _ in range(4):
            due, self.due = self.due, []
            for step in due:
                step()

    def is_running(self) -> bool:
        return False


class Process:
    """A role in virtual time; ``observed`` is what it sees."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.now_s = 0.0
        self.loop = Loop()
        self.observed: Observation | None = READS
        progress = ProgressWatch(timeout_s, 15.0, 0.0, lambda _line: None)
        self.watch = RoleWatch("sql", progress, monotonic=lambda: self.now_s, now_us=lambda: int(self.now_s * 1e6))
        self.watch.observe = lambda: self.observed
        self.watch.assigned = True

    def begin(self) -> Process:
        self.watch.begin(self.loop)
        return self.run(2)

    def run(self, seconds: float, *, blocked: bool = False) -> Process:
        for _ in range(int(seconds)):
            self.now_s += 1
            if not blocked:
                self.loop.turn()
            self.watch.watch()
        return self

    @property
    def end(self) -> str:
        return self.watch.status()["end"]

    def get(self, path: str) -> tuple[int, dict]:
        answer = self.watch.page(path)
        assert answer is not None
        return answer.status, json.loads(answer.body)

    @property
    def waits(self) -> list[str]:
        status, body = self.get("/readyz")
        assert (status == 200) == (body["waits"] == [])
        return body["waits"]


def test_a_role_that_reads_is_healthy_and_ready():
    process = Process().begin()
    assert process.get("/healthz")[0] == process.get("/readyz")[0] == 200
    assert process.watch.page("/other") is None


def test_a_blocked_event_loop_is_not_ready_and_after_the_limit_not_healthy():
    process = Process().begin().run(30, blocked=True)
    assert process.waits == ["the event loop is blocked for 30 s"]
    assert process.get("/healthz")[0] == 200
    process.run(TIMEOUT_S - 31, blocked=True)
    assert process.end == ""
    process.run(2, blocked=True)
    status, body = process.get("/healthz")
    assert (status, body["end"]) == (503, "blocked")
    assert body["line"].startswith("the event loop of role sql is blocked for 12")
    assert "role.py:" in body["line"], "where the thread of the loop is"


def test_a_loop_that_goes_on_in_time_is_not_ended():
    process = Process().begin()
    for _ in range(5):
        process.run(TIMEOUT_S - 10, blocked=True).run(1)
    assert process.end == ""
    assert process.waits == []


def test_time_in_which_the_process_was_stopped_is_not_time_in_which_the_loop_was_blocked():
    process = Process().begin()
    process.now_s += 100 * TIMEOUT_S
    process.watch.watch()
    assert (process.end, process.waits) == ("", ["the event loop is blocked for 2 s"])


@pytest.mark.parametrize("of", ["start", "join", "restore"])
def test_a_start_and_a_restored_state_have_ten_times_the_limit(of):
    process = Process()
    if of != "start":
        process.watch.assigned = of != "join"
        process.observed = Observation({PLACE: replace(DONE, placed=of != "restore")})
        process.begin()
    process.run(10 * TIMEOUT_S - 10, blocked=True)
    assert process.end == ""
    process.run(20, blocked=True)
    assert process.end == "blocked"


def test_a_start_that_waits_for_the_broker_is_healthy_for_ever():
    process = Process()
    process.watch.broker_away("no Kafka broker answers at kafka:9092")
    process.run(100 * TIMEOUT_S)
    assert process.get("/healthz")[0] == 200
    assert process.waits == ["the broker is away: no Kafka broker answers at kafka:9092"]


def test_a_role_is_ready_only_with_partitions_their_state_the_broker_and_the_store():
    process = Process()
    process.observed = None
    assert process.begin().waits == ["it starts"]
    process.observed = READS
    process.watch.assigned = False
    assert process.run(1).waits == ["partitions are being divided among the members of its group"]
    process.watch.assigned = True
    process.observed = Observation({PLACE: replace(DONE, placed=False)})
    assert process.run(1).waits == ["the state of 1 partitions of topics is being restored"]
    process.observed = replace(READS, connected=False)
    assert process.run(1).waits == ["the broker is away: the group coordinator does not answer"]
    process.observed = replace(READS, unwritten="there is no connection")
    assert process.run(1).waits == ["the broker does not take what is written: there is no connection"]
    process.observed = READS
    process.watch.store_away("connection refused")
    assert process.run(1).waits == ["the store does not take what is written: connection refused"]
    process.watch.store_away("")
    assert process.run(1).waits == []


def test_a_member_without_partitions_is_ready():
    process = Process()
    process.observed = Observation({})
    assert process.begin().waits == []


def test_a_role_without_progress_is_not_healthy_after_the_limit():
    process = Process().begin()
    process.observed = Observation({PLACE: replace(DONE, unread=5, held=1, acknowledged=9)})
    process.run(30)
    status, body = process.get("/healthz")
    assert (status, [each["why"] for each in body["standstills"]]) == (200, ["hangs"])
    process.run(TIMEOUT_S)
    status, body = process.get("/healthz")
    assert (status, body["end"]) == (503, "hangs")
    assert body["line"].startswith("role sql: nothing was read or acknowledged for 12")


def test_a_store_that_is_away_is_healthy_for_ever():
    process = Process().begin()
    process.observed = Observation({PLACE: replace(DONE, unread=5, held=1, acknowledged=9)})
    process.watch.store_away("connection refused")
    process.run(100 * TIMEOUT_S)
    status, body = process.get("/healthz")
    assert (status, [each["why"] for each in body["standstills"]]) == (200, ["store"])


def test_work_that_takes_long_is_named_with_its_time():
    process = Process().begin()
    with process.watch.busy("a snapshot is not stored"):
        process.run(5)
        with process.watch.busy("another"):
            assert process.watch.work == ("a snapshot is not stored", 5.0)
    assert process.watch.work == ("", 0.0)


def test_a_stop_that_does_not_end_is_no_healthy_state():
    process = Process().begin()
    process.watch.should_stop = lambda: True
    process.run(1).run(TIMEOUT_S - 2, blocked=True)
    assert (process.end, process.waits) == ("", ["it stops"])
    process.run(3, blocked=True)
    assert process.end == "hangs"


def test_a_limit_of_zero_ends_nothing():
    process = Process(timeout_s=0.0).begin().run(1000, blocked=True)
    assert process.get("/healthz")[0] == 200
    assert process.get("/readyz")[0] == 503


def test_metrics_are_collected_on_the_event_loop_while_it_runs():
    """The loop changes what is counted: another thread could see it change size."""

    class Threads:
        def collect(self):
            found.append(threading.current_thread())
            return []

    async def scrape() -> str:
        watch = Process().watch
        watch.collectors.append(Threads())
        watch.begin(asyncio.get_running_loop())
        return await asyncio.to_thread(watch.metrics)

    found: list[threading.Thread] = []
    text = asyncio.run(scrape())
    assert found == [threading.main_thread()]
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["astrocyte_ready"].samples[0].labels == {"role": "sql"}
    assert families["astrocyte_process_resident_memory_bytes"].samples[0].value > 1_000_000


def test_metrics_of_a_blocked_process_say_that_it_is():
    process = Process().begin().run(30, blocked=True)
    families = {family.name: family for family in text_string_to_metric_families(process.watch.metrics())}
    assert families["astrocyte_loop_blocked_seconds"].samples[0].value == 30
    assert families["astrocyte_ready"].samples[0].value == 0


ALONE = """
import asyncio, sys, time
from astrocyte.pipeline.watch.progress import Observation, ProgressWatch
from astrocyte.pipeline.watch.role import RoleWatch

async def run():
    watch = RoleWatch("sql", ProgressWatch(1.0, 0.5))
    watch.assigned = True
    watch.observe = lambda: Observation({})
    ended = asyncio.Event()
    watch.crash = lambda line: (print("crashed:", line, flush=True), ended.set())
    watch.begin(asyncio.get_running_loop())
    watch.start(None)
    if sys.argv[1] == "blocked":
        time.sleep(60)
    watch.progress.hangs = "nothing was read"
    watch.look = lambda: None
    watch._seen.hangs = watch.progress.hangs
    await ended.wait()
    sys.exit(3)

asyncio.run(run())
"""


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [("blocked", 1, "is blocked for"), ("hangs", 3, "crashed: role sql: nothing was read")],
)
def test_a_process_without_a_supervisor_of_ours_ends_itself(what, status, said):
    """What hangs ends in order, by its own event loop; a blocked one cannot."""
    done = subprocess.run([sys.executable, "-c", ALONE, what], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "the process ends, to be started again" in done.stderr
