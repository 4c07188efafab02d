"""A rule over one event alerts when the event arrives: no watermark, no idle timeout, and still once after a crash."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client, topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.topics import ALERTS, LATE
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.waiting import wait_until

RULES = """
rules:
  - name: overheated
    seq: [{as: a, stream: readings, where: "heat > 90"}]
    alert: {severity: critical, message: "{a.heat}"}
  - name: twice
    within: 1h
    seq: [{as: one, stream: overheated}, {as: two, stream: overheated}]
    alert: {severity: critical, message: "twice"}
"""
NEVER = {"ASTROCYTE_IDLE_TIMEOUT": "1h", "ASTROCYTE_SNAPSHOT_INTERVAL": "1h", "ASTROCYTE_SESSION_TIMEOUT": "2s"}
"""Nothing that waits for the watermark comes, and no snapshot is stored before the worker ends."""


@contextlib.contextmanager
def worker(address: str, rules: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    code = "from astrocyte.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", code, "worker", "--rules", str(rules), "--role", "correlate", "-b", address]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=rules.parent, env=os.environ | environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_until(lambda: "is ready" in log.read_text(), 60, log.read_text)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


async def send(address: str, heat: float) -> None:
    async with producer_client(address) as producer:
        body = {"timestamp": time.time_ns() // 1000, "heat": heat}
        await producer.send_and_wait("mono.readings", orjson.dumps(body), key=b"k")


def alerts(address: str) -> list[tuple[str, str]]:
    """Id and message of every record of the topic."""
    if ALERTS not in asyncio.run(topic_partitions(address)):
        return []
    found = [orjson.loads(each.value) for part in read_all(address, ALERTS).values() for each in part]
    return [(each["alert_id"], each["message"]) for each in found]


def test_a_lone_alert_waits_for_nothing_and_a_killed_worker_repeats_its_id(own_embedded, tmp_path):  # noqa: F811
    address = own_embedded.address
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    asyncio.run(ensure_topics(address, {"mono.readings": 4}))
    with worker(address, rules, tmp_path / "first.log", **NEVER) as process:
        asyncio.run(send(address, 95.0))
        wait_until(lambda: len(alerts(address)) == 1, 30)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with worker(address, rules, tmp_path / "second.log", ASTROCYTE_IDLE_TIMEOUT="1s") as process:
        asyncio.run(send(address, 96.0))
        wait_until(
            lambda: {message for _, message in alerts(address)} == {"95.0", "96.0", "twice"},
            40,
            lambda: str(alerts(address)),
        )
    made = alerts(address)
    assert len(set(made)) == 3
    assert sorted(message for _, message in made) in (
        ["95.0", "95.0", "96.0", "twice"],  # repeated after the crash, with the same id
        ["95.0", "96.0", "twice"],
    )
    assert not read_all(address, LATE) or not any(read_all(address, LATE).values())

    log = tmp_path / "recorded.jsonl.zst"
    asyncio.run(record(address, ["mono.*"], log))
    _, outputs = run_rules(read_rule_files([rules]), [log], lateness_us=1_000_000)
    offline = [orjson.loads(each.value) for output in outputs for each in output.alerts]
    assert {(each["alert_id"], each["message"]) for each in offline} == set(made)
