"""A declared stream, copied by its key, in a live worker: its dead letters, a mended declaration, and their retry."""

import asyncio
import json
import subprocess
import sys

import orjson

from astrocyte import load_rules
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.worker import environment_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import DEAD_LETTERS, LATE, MULTI_EVENTS
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.logs import produce, write_log
from tests.support.waiting import wait_until

RULES = """
streams:
  - name: orders
    topic: shop.orders
    decoder: debezium
    key: customer
    time: {field: after.at, unit: us}
    fields: {amount: {path: after.amount, type: int64}}
rules:
  - {name: big, by: customer, seq: [{as: a, stream: orders, where: "amount > 5"}], emit: {amount: a.amount}}
"""
MENDED = RULES.replace("int64", "float64")
NOON_MS = 1_772_366_400_000
HOUR_MS = 3_600_000
MAIN = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()"]


def change(offset: int, ms: int, amount: float | None) -> ConsumedRecord:
    """A changed row (without an amount: the tombstone after a deletion), with the Kafka time of its event."""
    row = {"id": offset, "customer": offset % 2, "amount": amount, "at": ms * 1000}
    body = {"op": "u", "before": None, "after": row, "source": {"ts_ms": NOON_MS - HOUR_MS}}
    value = None if amount is None else orjson.dumps(body)
    return ConsumedRecord("shop.orders", 0, offset, ms, b'{"id": %d}' % offset, value)


def bodies(address: str, topic: str) -> list[dict]:
    if topic not in asyncio.run(topic_partitions(address)):
        return []
    return [orjson.loads(record.value) for records in read_all(address, topic).values() for record in records]


def test_a_mended_declaration_and_a_retry_give_what_the_mended_rules_give_over_the_log(own_embedded, tmp_path):  # noqa: F811
    address = own_embedded.address
    rules, mended = tmp_path / "rules.yaml", tmp_path / "mended.yaml"
    rules.write_text(RULES)
    mended.write_text(MENDED)
    records = [
        change(0, NOON_MS, 9),
        change(1, NOON_MS + 1, 9.5),
        change(2, NOON_MS + 2, 2.5),
        change(3, NOON_MS + 3, None),
    ]
    last = change(4, NOON_MS + 5 * HOUR_MS, 7)
    log = write_log(tmp_path / "log.jsonl", [*records, last], partitions=1)
    run, outputs = run_rules(load_rules(mended), [log], lateness_us=2 * HOUR_MS * 1000)
    found_offline = [orjson.loads(each.value) for output in outputs for each in output.multi_events]
    assert (len(found_offline), run.counters.dead, run.counters.skipped) == (3, 0, 1)
    # The newest event only moves the live worker's event time past the others.
    wanted = {body["event_id"] for body in found_offline if body["timestamp"] < iso_from_us(last.timestamp_ms * 1000)}

    settings = load_settings(
        broker=address, group="declared", rules=(rules,), partitions=1, snapshot_interval="200ms", idle_timeout="1s",
        lateness="2h", roles=("correlate", "repartition"),
    )  # fmt: skip
    asyncio.run(produce(address, records, partitions=1))
    worker_log = tmp_path / "worker.log"
    with worker_log.open("wb") as out:
        worker = subprocess.Popen([*MAIN, "worker"], env=environment_of(settings), stdout=out, stderr=out)
    try:

        def logged(text: str) -> None:
            wait_until(lambda: text in worker_log.read_text(), 60, lambda: worker_log.read_text()[-3000:])

        wait_until(lambda: len(bodies(address, DEAD_LETTERS)) == 2, 60, lambda: worker_log.read_text()[-3000:])
        assert {letter["stage"] for letter in bodies(address, DEAD_LETTERS)} == {"decode"}
        subprocess.run([*MAIN, "rules", "publish", str(mended), "--broker", address], check=True)
        logged("the changed rules copy or declare other streams")
        logged("rules changed")
        retry = [*MAIN, "dead-letters", "retry", "--all", "--json", "-b", address]
        done = json.loads(subprocess.run(retry, check=True, capture_output=True).stdout)
        assert (len(done["sent"]), done["refused"]) == (2, [])
        asyncio.run(produce(address, [last], partitions=1))

        def found() -> set[str]:
            return {body["event_id"] for body in bodies(address, MULTI_EVENTS)}

        wait_until(lambda: found() == wanted, 60, lambda: f"{found()}; {worker_log.read_text()[-3000:]}")
        assert len(bodies(address, MULTI_EVENTS)) == len(wanted)
        assert bodies(address, LATE) == []
        assert len(bodies(address, DEAD_LETTERS)) == 2
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(30)
    assert "Traceback" not in worker_log.read_text()
