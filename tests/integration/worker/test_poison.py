"""A live worker goes on over messages that it cannot use, says so, and stops where it can use almost nothing."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from typer.testing import CliRunner

from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.roles.refusals import STOPPED_STATUS
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.schemas.topics import DEAD_LETTERS, MULTI_EVENTS
from tests.support.brokers import read_all
from tests.support.logs import produce
from tests.support.waiting import wait_until

RULES = "rules: [{name: by_device, by: device, seq: [{as: a, stream: meters}]}]"


def settings_of(address: str, folder: Path, *roles: str) -> Settings:
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    return load_settings(
        broker=address, group="poison", rules=(rules,), partitions=1, snapshot_interval="200ms", idle_timeout="1s",
        roles=roles,
    )  # fmt: skip


@contextmanager
def started(settings: Settings, command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment_of(settings), stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def meter(offset: int, **fields: object) -> ConsumedRecord:
    body = {"timestamp": f"2026-03-01T10:00:{offset:02}Z"} | fields
    return ConsumedRecord("mono.meters", 0, offset, 1_772_359_200_000, b"k", orjson.dumps(body))


def records_of(address: str, topic: str) -> list[dict]:
    return [orjson.loads(record.value) for records in read_all(address, topic).values() for record in records]


def test_a_worker_goes_on_and_health_says_what_it_did_not_use(own_embedded, tmp_path):
    settings = settings_of(own_embedded.address, tmp_path, "correlate", "repartition")
    broken = ConsumedRecord("mono.meters", 0, 1, 1_772_359_200_000, b"k", b"no json")
    records = [meter(0, status="alive"), broken, meter(2, device=None), meter(3, device="d1")]
    asyncio.run(produce(settings.broker, records, partitions=1))
    main = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker"]
    log = tmp_path / "worker.log"
    with started(settings, main, log) as process:
        wait_until(lambda: records_of(settings.broker, MULTI_EVENTS), 60, lambda: log.read_text()[-2000:])
        (letter,) = records_of(settings.broker, DEAD_LETTERS)
        assert (letter["stage"], letter["offset"]) == ("decode", 1)

        def reported() -> dict[str, int]:
            done = CliRunner().invoke(app, ["health", "--json", "-b", settings.broker], env=environment_of(settings))
            unused = json.loads(done.stdout)["correlate"].get("unused", [])
            return {each["cause"]: each["count"] for each in unused}

        wait_until(lambda: reported() == {"dead": 1, "no_key": 2}, 30, lambda: str(reported()))
        wait_until(lambda: "took part in none of the rules" in log.read_text(), 30, lambda: log.read_text()[-2000:])
        assert process.poll() is None
    assert "Traceback" not in log.read_text()


def test_a_role_that_can_use_almost_nothing_stops_with_one_line(own_embedded, tmp_path):
    settings = settings_of(own_embedded.address, tmp_path, "correlate")
    records = [ConsumedRecord("mono.meters", 0, number, 1_772_359_200_000, b"k", b"no json") for number in range(1200)]
    asyncio.run(produce(settings.broker, records, partitions=1))
    log = tmp_path / "worker.log"
    with started(settings, worker_command(), log) as process:
        assert process.wait(60) == STOPPED_STATUS
    (line,) = [line for line in log.read_text().splitlines() if "became dead letters" in line]
    assert "the role stops" in line
    assert "mono.meters[0]@" in line
    assert "Traceback" not in log.read_text()
    assert len(records_of(settings.broker, DEAD_LETTERS)) >= 1000
