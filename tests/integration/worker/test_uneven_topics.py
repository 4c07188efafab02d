"""A worker over topics of 2 and 3 partitions: they keep them, and it finds what `match` finds in their log."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from typer.testing import CliRunner

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client, topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.health import correlate_health
from astrocyte.pipeline.roles.worker import RESTART_STATUS
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.topics import ALERTS, LATE, MULTI_EVENTS, STATS
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

RULES = """
streams:
  - {name: orders, topic: shop.orders, id: id}
  - {name: payments, id: id}
rules:
  - name: paid
    within: 10s
    seq: [{as: a, stream: orders}, {as: b, stream: payments}]
    alert: {severity: info, message: "paid"}
    group: {within: 1s, by: null}
"""
ON_KAFKA = (pytest.mark.kafka, pytest.mark.soak)
TOPICS = {"shop.orders": 2, "mono.payments": 3}
START_MS = 1_759_055_400_000


async def send(address: str, numbers: range, late: int = 0, start_ms: int = START_MS) -> None:
    """An order and its payment for each number, and then ``late`` payments of a minute before, all of one customer."""
    async with producer_client(address) as producer:
        for number in numbers:
            for topic, at_ms in (("shop.orders", 0), ("mono.payments", 50)):
                body = {"timestamp": start_ms + number * 100 + at_ms, "id": number}
                await producer.send_and_wait(topic, orjson.dumps(body), key=b"c%d" % (number % 7))
        for number in range(late):
            body = {"timestamp": start_ms - 60_000, "id": f"late{number}"}
            await producer.send_and_wait("mono.payments", orjson.dumps(body), key=b"c0")


@contextmanager
def worker(address: str, folder: Path, *roles: str, status: int = 0) -> Iterator[Callable[[], str]]:
    """A worker with the rules, which ends with ``status``, asked to if that is 0; gives its log."""
    code = "from astrocyte.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", code, "worker", "--rules", "rules.yaml", "--broker", address]
    command += [part for role in roles for part in ("--role", role)]
    log = folder / "worker.log"
    environment = {
        "PATH": "/usr/bin:/bin", "ASTROCYTE_PARTITIONS": "2", "ASTROCYTE_IDLE_TIMEOUT": "1s",
        "ASTROCYTE_SESSION_TIMEOUT": "3s", "ASTROCYTE_SNAPSHOT_INTERVAL": "500ms",
    }  # fmt: skip
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        yield log.read_text
        if status:
            assert process.wait(60) == status
    finally:
        process.terminate()
        process.wait(30)


def values(address: str, topic: str) -> list[dict[str, Any]]:
    if topic not in asyncio.run(topic_partitions(address)):
        return []
    return [orjson.loads(each.value) for part in read_all(address, topic).values() for each in part]


def found(address: str) -> list[str]:
    return sorted(each["event_id"] for each in values(address, MULTI_EVENTS))


def alerts(address: str) -> list[str]:
    return sorted(orjson.dumps(each, option=orjson.OPT_SORT_KEYS).decode() for each in values(address, ALERTS))


def offline(address: str, folder: Path) -> tuple[list[str], dict[str, int], list[str]]:
    """Ids of multi events, counters and alerts of `match` over the topics."""
    log = folder / "recorded.jsonl.zst"
    asyncio.run(record(address, list(TOPICS), log, overwrite=True))
    run, outputs = run_rules(read_rule_files([folder / "rules.yaml"]), [log], lateness_us=1_000_000)
    made = list(outputs)
    ids = [orjson.loads(each.value)["event_id"] for output in made for each in output.multi_events]
    raised = [orjson.loads(each.value) for output in made for each in output.alerts]
    strings = sorted(orjson.dumps(each, option=orjson.OPT_SORT_KEYS).decode() for each in raised)
    return sorted(ids), run.counters.as_dict(), strings


def counters(address: str) -> dict[str, int]:
    """The newest counters of the domains, summed."""
    newest = {}
    for part in read_all(address, STATS).values():
        newest |= {each.key: orjson.loads(each.value) for each in part if each.key.startswith(b"correlate/")}
    return {name: sum(stats[name] for stats in newest.values()) for name in ("received", "processed", "late", "dead")}


@pytest.mark.parametrize("own_broker", ["embedded", pytest.param("kafka", marks=ON_KAFKA)], indirect=True)
def test_a_worker_over_topics_of_2_and_3_partitions_finds_what_match_finds(own_broker, tmp_path):
    address = own_broker.address
    (tmp_path / "rules.yaml").write_text(RULES)
    asyncio.run(ensure_topics(address, TOPICS))
    asyncio.run(send(address, range(60), late=5))
    wanted, expected, before = offline(address, tmp_path)
    assert (len(wanted), expected["late"]) == (60, 5)
    arguments = ["rules", "check", str(tmp_path / "rules.yaml"), "--broker", address]
    checked = CliRunner().invoke(app, arguments, env={"ASTROCYTE_PARTITIONS": "2"})
    assert "repartition mono.payments (3 partitions) by key -> keyed.key.payments" in checked.output.splitlines()
    with worker(address, tmp_path, "correlate") as log:
        wait_until(lambda: found(address) == wanted, 60, lambda: f"{len(found(address))}; {log()[-3000:]}")
        assert "repartition mono.payments (3 partitions) by key -> keyed.key.payments" in log()
        wait_until(lambda: counters(address)["received"] == expected["received"], 30, lambda: str(counters(address)))
        # Only now is there a worker whose number of domains the log can tell.
        raised = offline(address, tmp_path)[2]
        assert raised != before
        wait_until(lambda: alerts(address) == raised, 60, lambda: f"{alerts(address)}\n{raised}")
        assert counters(address) == {name: expected[name] for name in counters(address)}
    assert len({each["event_id"] for each in values(address, LATE)}) == 5
    there = asyncio.run(topic_partitions(address))
    assert {topic: there[topic] for topic in (*TOPICS, "keyed.key.payments", "keyed.key.orders")} == {
        **TOPICS, "keyed.key.payments": 2, "keyed.key.orders": 2,
    }  # fmt: skip
    assert (
        "mono.payments (3 partitions) is read repartitioned, from keyed.key.payments (2)"
        in (asyncio.run(correlate_health(address))["copies"])
    )


async def grow(address: str, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})
    finally:
        await admin.close()


CHANGED = "topic 'mono.payments' has 3 partitions now, and had 2 when this worker began"


def test_a_worker_says_that_a_topic_has_more_partitions_and_ends_to_be_started_again(own_embedded, tmp_path):
    address = own_embedded.address
    (tmp_path / "rules.yaml").write_text(RULES)
    asyncio.run(ensure_topics(address, dict.fromkeys(TOPICS, 2)))
    with worker(address, tmp_path, "correlate", status=RESTART_STATUS) as log:
        wait_until(lambda: "role correlate is ready" in log(), 60, lambda: log()[-3000:])
        assert "repartition" not in log()
        asyncio.run(grow(address, "mono.payments", 3))
    assert CHANGED in log()


@pytest.mark.soak
def test_a_topic_that_grows_is_repartitioned_from_then_on(own_embedded, tmp_path):
    address = own_embedded.address
    (tmp_path / "rules.yaml").write_text(RULES)
    asyncio.run(ensure_topics(address, dict.fromkeys(TOPICS, 2)))
    asyncio.run(send(address, range(30)))
    with worker(address, tmp_path, "correlate", "file") as log:
        wait_until(lambda: len(found(address)) > 15, 60, lambda: log()[-3000:])
        assert "role repartition is ready" not in log()
        asyncio.run(grow(address, "mono.payments", 3))
        wait_until(lambda: CHANGED in log(), 40, lambda: log()[-3000:])
        wait_until(lambda: "role repartition is ready and reads" in log(), 120, lambda: log()[-3000:])
        # While all was idle event time has gone on with the clock: these events are of an hour's time after that.
        asyncio.run(send(address, range(30, 90), start_ms=START_MS + 3_000_000))
        wanted, *_ = offline(address, tmp_path)
        assert len(wanted) == 90
        wait_until(lambda: set(found(address)) == set(wanted), 90, lambda: f"{len(found(address))}; {log()[-3000:]}")
    assert len(found(address)) == len(wanted)
    assert values(address, LATE) == []
