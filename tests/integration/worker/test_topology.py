"""`astrocyte topology` of a broker: what is linked now and was before, also after a worker was killed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
from typer.testing import CliRunner

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.topics import TOPOLOGY
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.role_worker import Worker, stopping
from tests.support.waiting import wait_until

EXAMPLE = Path(__file__).parents[3] / "examples" / "transfers"
RULES = EXAMPLE / "habits.yaml"
LINES = (EXAMPLE / "habits.jsonl").read_bytes().splitlines()
LIMIT_S = 120.0


async def send(address: str, lines: list[bytes]) -> None:
    async with producer_client(address) as producer:
        for line in lines:
            row = orjson.loads(line)
            await producer.send_and_wait("bank.transfers", line, key=row["sender"].encode(), timestamp_ms=row["ts"])


def topology(address: str, *options: str) -> dict[str, Any]:
    command = ["topology", str(RULES), "--broker", address, "--json", *options]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def records(address: str) -> list[Any]:
    return [record for part in read_all(address, TOPOLOGY).values() for record in part]


def moves(address: str) -> list[dict[str, Any]]:
    return [orjson.loads(each.value) for each in records(address) if each.key != b"habit"]


def test_it_shows_workers_and_what_is_joined_now_and_at_a_past_instant(own_embedded, tmp_path, monkeypatch):  # noqa: F811
    address = own_embedded.address
    settings = load_settings(broker=address, group="habits", rules=(RULES,), partitions=3, roles=("correlate",),
                             idle_timeout="500ms", session_timeout="3s", snapshot_interval="200ms")  # fmt: skip
    monkeypatch.setenv("ASTROCYTE_GROUP", "habits")
    monkeypatch.setenv("ASTROCYTE_PARTITIONS", "3")
    asyncio.run(ensure_topics(address, {"bank.transfers": 3}))
    before = [line for line in LINES if orjson.loads(line)["ts"] < 1_759_056_600_000]  # 10:50
    workers = [Worker(settings, "correlate", tmp_path / f"{number}.log", {}) for number in range(2)]

    def log() -> str:
        return "\n".join(worker.said[-1500:] for worker in workers)

    def joined() -> list[dict[str, Any]]:
        return list(topology(address)["junctions"][0]["joined"])

    with stopping(workers):
        wait_until(lambda: all("is ready" in worker.said for worker in workers), LIMIT_S, log)
        asyncio.run(send(address, before))
        wait_until(joined, LIMIT_S, log)
        link = {"from": "acc-03", "to": "acc-07", "since": "2025-09-28T10:40:00Z", "co_activity": 4}
        found = topology(address)
        assert found["junctions"][0]["joined"] == [link]
        assert sorted(number for each in found["workers"] for number in each["partitions"]) == [0, 1, 2]
        assert len(found["workers"]) == 2
        workers[0].kill()
        workers[0].start()
        asyncio.run(send(address, LINES[len(before) :]))
        wait_until(lambda: topology(address)["junctions"][0]["dissolved"], LIMIT_S, log)
        wait_until(lambda: "is ready" in workers[0].said, LIMIT_S, log)
        wait_until(lambda: moves(address), LIMIT_S, log)  # it is given domains again

    assert joined() == []
    past = topology(address, "--at", "2025-09-28T11:00:00Z")
    assert (past["junctions"][0]["joined"], past["workers"]) == ([link], None)
    assert {(each["kind"], each["role"]) for each in moves(address)} == {("moved", "correlate")}
    _, outputs = run_rules(read_rule_files([RULES]), [EXAMPLE / "habits.jsonl"], lateness_us=settings.lateness)
    wanted = {record.value for output in outputs for record in output.topology}
    assert {record.value for record in records(address) if record.key == b"habit"} == wanted
