"""A worker reads topics that keep their own names: by a declaration, and where no topic with the prefix exists."""

import asyncio
import subprocess
import sys

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

    code = "from astrocyte.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", code, "worker", "--rules", str(rules), "--role", "correlate", "--broker", address]
    with (tmp_path / "worker.log").open("wb") as out:
        environment = {"ASTROCYTE_PARTITIONS": "2", "ASTROCYTE_IDLE_TIMEOUT": "1s", "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    try:
        wait_until(
            lambda: found(address) == wanted,
            50,
            lambda: f"{found(address)}; {(tmp_path / 'worker.log').read_text()[-2000:]}",
        )
    finally:
        process.terminate()
        process.wait(30)
    topics = asyncio.run(topic_partitions(address))
    assert not {"mono.orders", "mono.visits"} & topics.keys()


def found(address: str) -> set[str]:
    if MULTI_EVENTS not in asyncio.run(topic_partitions(address)):
        return set()
    parts = read_all(address, MULTI_EVENTS)
    return {orjson.loads(each.value)["event_id"] for records in parts.values() for each in records}
