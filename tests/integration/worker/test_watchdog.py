"""A role whose process stands still is ended by its supervisor and started again: nothing is lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from astrocyte import Engine, load_rules
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import MULTI_EVENTS
from tests.support.brokers import read_all
from tests.support.kafka import free_port
from tests.support.waiting import wait_until

TOKEN = "not-to-be-shown-7351"
START_US = 1_750_000_000_000_000
RULES = """
rules: [{name: pair, by: key, within: 1s, seq: [{as: a, stream: moves}, {as: b, stream: moves}]}]
validators: [{stream: moves, use: blocking}]
"""


def moves(first: int, count: int, key: str = "") -> Frame:
    columns = {
        "timestamp": [START_US + number * 10_000 for number in range(first, first + count)],
        "key": [key or f"k{number % 7}" for number in range(count)],
    }
    return Frame.from_columns("moves", "run", columns, first_seq=first)


class Supervised:
    """`astrocyte worker` with several roles."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log = folder / "worker.log"
        code = "from astrocyte.pipeline.cli.app import main; main()"
        environment = environment_of(settings) | {
            "BLOCKED_ONCE": str(folder / "blocked"), "PYTHONPATH": str(Path.cwd()), "ASTROCYTE_FILE_FOLDER": "events",
        }  # fmt: skip
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "worker"], cwd=folder, env=environment, stdout=out, stderr=out
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str, token: str = TOKEN) -> tuple[int, str]:
        """Status and body of a page; status 0 while nobody listens."""
        url = f"http://127.0.0.1:{self.settings.metrics_port}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=20
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def roles(self) -> dict[str, dict]:
        return json.loads(self.get("/readyz")[1] or '{"roles": {}}')["roles"]

    def ready(self) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200, 120, lambda: f"{self.roles()} {self.text()[-3000:]}")

    def metrics(self) -> list[Metric]:
        """The families of the metrics of all roles."""
        status, text = self.get("/metrics")
        assert status == 200, text + self.text()[-3000:]
        return [*text_string_to_metric_families(text)]

    def restarts(self) -> dict[tuple[str, str], float]:
        """The metric of restarts, by role and cause."""
        return {
            (sample.labels["role"], sample.labels["cause"]): sample.value
            for family in self.metrics()
            for sample in family.samples
            if sample.name == "astrocyte_restarts_total"
        }

    def values(self, *names: str) -> list[float]:
        """Values of all samples of these names."""
        return [sample.value for family in self.metrics() for sample in family.samples if sample.name in names]

    def pid_of(self, role: str) -> int:
        """The process of a role, by its environment."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if f"ASTROCYTE_ROLES={role}\0" in Path(f"/proc/{child}/environ").read_text():
                return int(child)
        raise AssertionError(f"no process of {role} among {children}: {self.text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0, self.text()[-3000:]


@pytest.fixture(params=["file"])
def worker(own_embedded, tmp_path, request) -> Iterator[Supervised]:
    """A worker of correlate and of another role."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = load_settings(
        broker=own_embedded.address, group="watchdog", rules=(rules,), partitions=2, roles=("correlate", request.param),
        streams=("moves",), idle_timeout="1s", snapshot_interval="300ms", liveness_timeout="4s", stall_timeout="1s",
        plugins=("tests.support.blocking_plugin",), metrics_port=free_port(), metrics_token=TOKEN,
    )  # fmt: skip
    running = Supervised(settings, tmp_path)
    yield running
    if running.process.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(30)


def send(settings: Settings, frame: Frame) -> None:
    with KafkaSink(settings.broker, partitions=settings.partitions, form="json") as sink:
        sink.write(frame)


def matches(settings: Settings) -> list[str]:
    found = [record for part in read_all(settings.broker, MULTI_EVENTS).values() for record in part]
    return [orjson.loads(each.value)["event_id"] for each in found]


def expected(*frames: Frame) -> set[str]:
    engine = Engine(load_rules("rules: [" + RULES.split("rules: [", 1)[1].split("]\nvalidators", 1)[0] + "]"))
    for frame in frames:
        engine.push(frame)
    return {match.id for match in engine.flush().matches}


def test_roles_that_stand_still_are_started_again_and_nothing_is_lost_or_twice(worker, tmp_path):
    worker.ready()
    # Far apart, since event time goes on with the clock while all is silent.
    first, second, last = moves(0, 40), moves(100_000, 1, key="block"), moves(100_001, 40)
    send(worker.settings, first)
    wait_until(lambda: set(matches(worker.settings)) == expected(first), 60, worker.text)
    # All of it is in a snapshot, so that no match is emitted again under its id.
    wait_until(lambda: not any(worker.values("astrocyte_held_chunks", "astrocyte_snapshot_age_seconds")), 60)

    # The process of one role is stopped, and the event loop of the other is blocked by a validator.
    stopped = worker.pid_of("file")
    os.kill(stopped, signal.SIGSTOP)
    send(worker.settings, second)
    wait_until((tmp_path / "blocked").exists, 60, worker.text)
    send(worker.settings, last)
    wait_until(lambda: len(worker.restarts()) == 2, 120, worker.text)
    assert worker.restarts() == {("correlate", "blocked"): 1, ("file", "silent"): 1}
    assert "the event loop of role correlate is blocked" in worker.text()
    assert "blocking_plugin.py" in worker.text()

    wanted = expected(first, second, last)
    wait_until(lambda: set(matches(worker.settings)) >= wanted, 90, worker.text)
    worker.ready()
    assert sorted(matches(worker.settings)) == sorted(wanted)
    assert worker.pid_of("file") != stopped

    # One page for all roles, which any Prometheus can read; each family stands once.
    families = worker.metrics()
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["role"] for sample in samples} == {"correlate", "file"}
    processed = [each.value for each in samples if each.name == "astrocyte_events_total"]
    assert sum(processed) >= 81
    assert worker.get("/metrics", token="another")[0] == worker.get("/healthz", token="another")[0] == 401
    assert worker.get("/healthz")[0] == 200
    worker.stop()
    assert TOKEN not in worker.text()


@pytest.mark.soak
@pytest.mark.parametrize("worker", ["hanging"], indirect=True)
def test_an_agent_that_does_not_return_is_started_again_and_loses_nothing(worker):
    # Not by the validator, which the other role has.
    Path(worker.settings.rules[0]).write_text(RULES.split("validators")[0])
    worker.ready()
    first, second = moves(0, 1, key="block"), moves(100_000, 40)
    send(worker.settings, first)
    send(worker.settings, second)
    wait_until(lambda: worker.restarts() == {("hanging", "hangs"): 1}, 120, worker.text)
    assert "nothing was read or acknowledged for" in worker.text()

    def copied() -> set[tuple[int, int]]:
        records = [record for part in read_all(worker.settings.broker, "pages").values() for record in part]
        bodies = [orjson.loads(each.value) for each in records]
        return {(each["partition"], each["offset"]) for each in bodies}

    wait_until(lambda: len(copied()) == 41, 60, worker.text)
    worker.ready()
    worker.stop()
