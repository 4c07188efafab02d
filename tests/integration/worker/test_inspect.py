"""From a topic that nobody has declared to the first match of a worker, by what `astrocyte inspect` writes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner

from astrocyte.pipeline.analysis.inspect.report import NothingFound
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.client import UnknownTopic, ensure_topics, producer_client, topic_partitions
from astrocyte.schemas.topics import MULTI_EVENTS
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

START = datetime(2025, 9, 28, 10, 30, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


async def send_orders(address: str) -> None:
    """Changes of 20 orders over 2 partitions, some of them reported 700 ms late, and a tombstone."""
    await ensure_topics(address, {"shop.orders": 2})
    async with producer_client(address) as producer:
        for number in range(200):
            row = {"order_id": number % 20, "customer_id": number % 3, "amount": 2.5 * (number * 37 % 101)}
            row["status"] = ("new", "paid", "shipped", "refunded")[number // 20 % 4]
            when = START_MS + 1000 * number - (700 if number % 9 == 0 else 0)
            change = {"op": "u", "before": None, "after": row, "source": {"ts_ms": when, "table": "orders"}}
            key = orjson.dumps({"schema": {}, "payload": {"order_id": row["order_id"]}})
            await producer.send("shop.orders", orjson.dumps({"schema": {}, "payload": change}), key=key)
        await producer.send("shop.orders", None, key=b'{"schema":{},"payload":{"order_id":1}}')


async def send_readings(address: str) -> None:
    """CloudEvents of both modes over 2 partitions."""
    await ensure_topics(address, {"home.readings": 2, "home.empty": 1})
    async with producer_client(address) as producer:
        for number in range(200):
            room = f"room-{number % 5}"
            data = {"room": room, "celsius": 20 + number * 31 % 17 / 2, "state": "open" if number % 7 else "closed"}
            time = (START + timedelta(seconds=number)).isoformat()
            names = {"specversion": "1.0", "id": str(number), "source": f"/{room}", "type": "reading", "time": time}
            if number % 2:
                headers = [(f"ce_{name}", text.encode()) for name, text in names.items()]
                await producer.send("home.readings", orjson.dumps(data), key=room.encode(), headers=headers)
            else:
                await producer.send("home.readings", orjson.dumps({**names, "data": data}), key=room.encode())


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def groups(address: str) -> list[object]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return list(await admin.list_consumer_groups())
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("topic", "send", "form", "key"),
    [
        ("shop.orders", send_orders, "debezium", {"field": "order_id", "partitioned": True}),
        pytest.param("home.readings", send_readings, "cloudevents", "room", marks=pytest.mark.soak),
    ],
)
def test_a_topic_goes_from_inspect_to_the_first_match(own_embedded, tmp_path, monkeypatch, topic, send, form, key):
    monkeypatch.chdir(tmp_path)
    address = own_embedded.address
    asyncio.run(send(address))
    before = asyncio.run(topic_partitions(address))
    done = run("inspect", topic, "-b", address, "--write", "rules.yaml")
    assert "refused" in done.stdout
    assert asyncio.run(topic_partitions(address)) == before
    assert asyncio.run(groups(address)) == []

    (stream,) = yaml.safe_load((tmp_path / "rules.yaml").read_text())["streams"]
    assert (stream["topic"], stream["decoder"], stream["key"]) == (topic, form, key)
    commands = [line.strip() for line in done.stderr.splitlines() if " astrocyte " in f" {line}"]
    record, match, worker = commands[-3:]
    run(*record.split()[1:])
    found = run(*match.split()[1:])
    wanted = {json.loads(line)["event_id"] for line in found.stdout.splitlines()}
    assert len(wanted) > 5
    assert "(0 late, 0 refused" in found.stderr

    settings, _, arguments = worker.partition(" astrocyte ")
    assert settings.startswith("ASTROCYTE_PARTITIONS=2")
    environment = dict(pair.split("=") for pair in settings.split()) | {"ASTROCYTE_IDLE_TIMEOUT": "1s"}
    code = "from astrocyte.pipeline.cli.app import main; main()"
    with (tmp_path / "worker.log").open("wb") as out:
        command = [sys.executable, "-c", code, *arguments.split()]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={"PATH": os.environ["PATH"]} | environment, stdout=out, stderr=out
        )
    try:
        wait_until(
            lambda: wanted <= multi_events(address),
            120,
            lambda: f"{len(multi_events(address))} of {len(wanted)}; {(tmp_path / 'worker.log').read_text()[-2000:]}",
        )
    finally:
        process.terminate()
        process.wait(30)


def multi_events(address: str) -> set[str]:
    if MULTI_EVENTS not in asyncio.run(topic_partitions(address)):
        return set()
    parts = read_all(address, MULTI_EVENTS)
    return {orjson.loads(each.value)["event_id"] for records in parts.values() for each in records}


@pytest.fixture(scope="module")
def readings(shared_embedded):
    asyncio.run(send_readings(shared_embedded.address))
    return shared_embedded.address


def test_a_sample_is_the_newest_part_of_each_partition(readings):
    body = json.loads(run("inspect", "home.readings", "-b", readings, "--json", "--limit", "100").stdout)
    (report,) = body["reports"]
    assert (body["complete"], report["messages"]["held"]) == (False, 200)
    assert sum(report["partitions"].values()) == 100
    assert report["time"]["last"] == "2025-09-28T10:33:19Z"
    everything = json.loads(run("inspect", "home.readings", "-b", readings, "--json").stdout)
    assert (everything["complete"], everything["reports"][0]["events"]) == (True, 200)


def test_a_topic_that_is_not_there_is_named_with_the_nearest_one(readings):
    with pytest.raises(UnknownTopic, match=r"no topic 'home\.reading'; .* did you mean 'home\.readings'\?"):
        run("inspect", "home.reading", "-b", readings)


def test_a_topic_without_messages_is_an_error(readings):
    with pytest.raises(NothingFound, match=r"topic home\.empty on .*: no messages"):
        run("inspect", "home.empty", "-b", readings)


def test_a_pattern_reports_every_topic_and_says_which_are_empty(readings):
    done = run("inspect", "home.*", "-b", readings)
    assert "topic home.readings: all 200 messages" in done.stdout
    assert "topic home.empty: no messages" in done.stdout


def test_rules_are_held_against_a_topic(readings, tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "streams: [{name: readings, topic: home.readings, key: room}]\n"
        "rules: [{name: warm, by: room, seq: [{as: a, stream: readings, where: \"celsius > '20'\"}]},\n"
        "        {name: shut, by: room, seq: [{as: a, stream: doors}]}]\n"
    )
    done = run("inspect", "home.readings", "-b", readings, "--rules", str(path), "--json")
    found = json.loads(done.stdout)["rules"]
    assert [rule["matches"] for rule in found["rules"]] == [0, 0]
    assert "compares 'celsius' of readings with the text '20'" in found["problems"][1]
    assert found["problems"][0].startswith("topic mono.doors, which rule 'shut' reads, is not on the broker")
