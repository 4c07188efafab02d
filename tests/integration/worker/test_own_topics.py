"""A worker reads topics that keep their own names: by a declaration, and where no topic with the prefix exists."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client, topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.topics import MULTI_EVENTS
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.waiting import wait_until

RULES = """
streams:
  - name: orders
    topic: shop.orders
    decoder: debezium
    key: customer_id
    fields: {amount: {path: after.amount, type: float64}}
rules:
  - {name: big, by: customer_id, seq: [{as: a, stream: orders, where: "amount > 5"}]}
  - {name: visit, seq: [{as: a, stream: visits}]}
"""
START_MS = 1_759_055_400_000


async def send(address: str) -> None:
    await ensure_topics(address, {"shop.orders": 2, "visits": 2})
    async with producer_client(address) as producer:
        for number in range(6):
            change = {"op": "c", "after": {"order_id": number, "customer_id": number % 3, "amount": 3 * number}}
            change["source"] = {"ts_ms": START_MS + number}
            key = orjson.dumps({"order_id": number})
            await producer.send_and_wait("shop.orders", orjson.dumps(change), key=key)
            visit = orjson.dumps({"timestamp": START_MS + number})
            await producer.send_and_wait("visits", visit, key=b"v%d" % number)
        await producer.send_and_wait("shop.orders", None, key=b'{"order_id": 0}')


def test_a_worker_reads_topics_under_their_own_names_as_match_does(own_embedded, tmp_path):  # noqa: F811
    address = own_embedded.address
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    asyncio.run(send(address))
    log = tmp_path / "recorded.jsonl.zst"
    asyncio.run(record(address, ["shop.orders", "visits"], log))
    run, outputs = run_rules(read_rule_files([rules]), [log], lateness_us=1_000_000)
    wanted = {orjson.loads(each.value)["event_id"] for output in outputs for each in output.multi_events}
    assert (len(wanted), run.counters.dead) == (4 + 6, 0)

    with worker(address, rules) as log_of:
        wait_until(lambda: found(address) == wanted, 50, lambda: f"{found(address)}; {log_of()[-2000:]}")
    topics = asyncio.run(topic_partitions(address))
    assert not {"mono.orders", "mono.visits"} & topics.keys()


def test_a_worker_says_that_it_creates_a_declared_topic_and_which_one_may_be_meant(own_embedded, tmp_path):  # noqa: F811
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        RULES.replace("topic: shop.orders", "topic: shop.order").replace("decoder: debezium", "decoder: json")
    )
    asyncio.run(send(own_embedded.address))
    line = "topic 'shop.order', which the declaration of stream 'orders' names, was not on the broker and is created"
    with worker(own_embedded.address, rules) as log_of:
        wait_until(lambda: "is ready" in log_of(), 50, log_of)
        assert log_of().count(line) == 1
        assert "did you mean 'shop.orders'?" in log_of()


@contextlib.contextmanager
def worker(address: str, rules: Path) -> Iterator[Callable[[], str]]:
    """A worker that correlates by the rules; gives its log."""
    code = "from astrocyte.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", code, "worker", "--rules", str(rules), "--role", "correlate", "--broker", address]
    log = rules.parent / "worker.log"
    with log.open("wb") as out:
        environment = {"ASTROCYTE_PARTITIONS": "2", "ASTROCYTE_IDLE_TIMEOUT": "1s", "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, cwd=rules.parent, env=environment, stdout=out, stderr=out)
    try:
        yield log.read_text
    finally:
        process.terminate()
        process.wait(30)


def found(address: str) -> set[str]:
    if MULTI_EVENTS not in asyncio.run(topic_partitions(address)):
        return set()
    parts = read_all(address, MULTI_EVENTS)
    return {orjson.loads(each.value)["event_id"] for records in parts.values() for each in records}
