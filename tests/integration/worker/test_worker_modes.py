"""A real worker process on the embedded broker: eventual matches, rules that change while it runs, JSON records."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from astrocyte import Engine, load_rules
from astrocyte.pipeline.kafka.client import producer_client
from astrocyte.pipeline.roles.correlation.unsettled import Unsettled, output_since
from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.pipeline.topology.topics import make_topics, mono_topics
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS, LATE, MULTI_EVENTS, RULES
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

BOTH = """
  - name: both
    within: 400ms
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
"""
RISING = """
  - name: rising
    within: 600ms
    seq: [{as: low, stream: axon_1}, {as: high, stream: axon_2, where: "value > low.value + 0.7"}]
    skip: past_last
"""
RULE_TEXT = f"rules:{BOTH}{RISING}"
STREAMS = ("axon_1", "axon_2")
START_US, TICK_US, TICKS = 1_750_000_000_000_000, 200_000, 16


def spikes() -> list[list[Frame]]:
    """Frames by tick; a stream's rows of a tick come before all rows of the other one, so arrival is out of order."""
    dice = np.random.default_rng(11)
    ticks = []
    for tick in range(TICKS):
        frames = []
        for stream in STREAMS:
            columns = {
                "timestamp": START_US + tick * TICK_US + np.sort(dice.integers(0, TICK_US, 40)),
                "key": [f"k{number}" for number in dice.integers(0, 6, 40)],
                "type": ["A" if stream == "axon_1" else "B"] * 40,
                "value": dice.random(40),
            }
            meta = {"origin": "run", "peers": STREAMS, "watermark_us": START_US + (tick + 1) * TICK_US}
            frames.append(Frame.from_columns(stream, "run", columns, first_seq=40 * tick, **meta))
        ticks.append(frames)
    ticks[-1] = [replace(frame, end=True) for frame in ticks[-1]]
    return ticks


def strong(text: str, ticks: Iterable[list[Frame]]) -> dict[str, str]:
    """Name of the rule by id of every match."""
    engine = Engine(load_rules(text))
    for frame in (frame for frames in ticks for frame in frames):
        engine.push(frame)
    return {match.id: match.rule for match in engine.flush().matches}


def settings_of(address: str, folder: Path, **overrides: object) -> Settings:
    """Settings of a worker that correlates, and its topics."""
    rules = folder / "rules.yaml"
    rules.write_text(RULE_TEXT)
    given: dict[str, object] = {"snapshot_interval": "200ms", **overrides}
    settings = load_settings(
        broker=address, group="modes", rules=(rules,), partitions=2, streams=STREAMS, roles=("correlate",), **given
    )
    asyncio.run(make_topics(settings, [*mono_topics(STREAMS), MULTI_EVENTS, ALERTS, LATE, DEAD_LETTERS]))
    return settings


@contextmanager
def worker(address: str, folder: Path, **overrides: object) -> Iterator[tuple[Settings, Path]]:
    """A worker that correlates, with its settings and its log; it must exit with status 0."""
    settings = settings_of(address, folder, **overrides)
    log = folder / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(worker_command(), env=environment_of(settings), stdout=out, stderr=out)
    try:
        yield settings, log
    except BaseException:
        process.kill()
        sys.stderr.write(log.read_text(errors="replace")[-3000:])
        raise
    finally:
        process.terminate()
        status = process.wait(30)
    assert status == 0


def made(address: str) -> list[dict[str, str]]:
    """Id, rule, version and status of every record in multi.events, in the order of each partition."""
    found = []
    for records in read_all(address, MULTI_EVENTS).values():
        for record in records:
            headers = {name: value.decode() for name, value in record.headers}
            found.append(
                {
                    "id": orjson.loads(record.value)["event_id"],
                    "rule": headers["ce_source"].rsplit("/", 1)[1],
                    "version": headers["ce_ruleversion"],
                    "status": headers.get("ce_status", "final"),
                }
            )
    return found


def last_status(records: list[dict[str, str]]) -> dict[str, str]:
    return {record["id"]: record["status"] for record in records}


def test_eventual_matches_that_a_worker_confirms_are_those_of_the_strong_run(own_embedded, tmp_path):
    ticks = spikes()
    wanted = set(strong(RULE_TEXT, ticks))
    with worker(own_embedded.address, tmp_path, consistency="eventual") as (settings, _):
        with KafkaSink(settings.broker, partitions=2) as sink:
            for frame in (frame for frames in ticks for frame in frames):
                sink.write(frame)

        def held() -> set[str]:
            return {name for name, status in last_status(made(settings.broker)).items() if status != "retracted"}

        wait_until(lambda: held() == wanted, 60, lambda: f"{len(held() ^ wanted)} ids differ")
        records = made(settings.broker)
    early = {record["id"] for record in records if record["status"] == "provisional"}
    assert early - wanted  # arrival out of order made matches that had to be retracted
    assert "provisional" not in last_status(records).values()
    assert {record["id"] for record in records if record["status"] == "confirmed"} == early & wanted


async def open_matches(broker: str) -> int:
    """What a worker that begins anew would have to settle."""
    found = Unsettled()
    for partition in range(2):
        async for records in output_since(broker, partition, 0):
            found.read(records, {"both", "rising"})
    return len(found)


def test_what_a_worker_that_was_killed_matched_on_arrival_is_settled_by_the_next_one(own_embedded, tmp_path):
    ticks, half = spikes(), TICKS // 2
    wanted = set(strong(RULE_TEXT, ticks))
    # The last frames before the kill say nothing of how far time is: what they give on arrival is open.
    ticks[half - 1] = [replace(frame, watermark_us=START_US + (half - 1) * TICK_US) for frame in ticks[half - 1]]
    settings = settings_of(own_embedded.address, tmp_path, consistency="eventual", snapshot_interval="1h")
    with KafkaSink(settings.broker, partitions=2) as sink, (tmp_path / "first.log").open("wb") as out:
        process = subprocess.Popen(worker_command(), env=environment_of(settings), stdout=out, stderr=out)
        try:
            for frame in (frame for frames in ticks[:half] for frame in frames):
                sink.write(frame)
            sink.flush()

            def statuses() -> set[str]:
                return set(last_status(made(settings.broker)).values())

            wait_until(lambda: statuses() >= {"provisional", "final"}, 60, lambda: f"only {statuses()}")
        finally:
            process.kill()
            process.wait(30)
        with worker(own_embedded.address, tmp_path, consistency="eventual"):
            for frame in (frame for frames in ticks[half:] for frame in frames):
                sink.write(frame)
            sink.flush()

            def held() -> dict[str, str]:
                return {name: each for name, each in last_status(made(settings.broker)).items() if each != "retracted"}

            wait_until(lambda: held().keys() == wanted, 60, lambda: f"{len(held().keys() ^ wanted)} ids differ")
            wait_until(lambda: "provisional" not in held().values(), 60, lambda: str(held()))
    assert not asyncio.run(open_matches(settings.broker)), "the next life finds nothing to settle"


def test_a_worker_applies_a_changed_rule_refuses_an_invalid_one_and_keeps_the_rest(own_embedded, tmp_path):
    ticks, half = spikes(), TICKS // 2
    changed = tmp_path / "changed.yaml"
    changed.write_text(f"rules:{RISING}".replace("0.7", "0.4"))
    versions = [load_rules(text).rules[-1].content_version for text in (RULE_TEXT, changed.read_text())]
    wanted = {name for name, rule in strong(RULE_TEXT, ticks).items() if rule == "both"}
    halves = {name for part in (ticks[:half], ticks[half:]) for name in strong(RULE_TEXT, part)}
    assert wanted - halves  # some matches begin before the change and end after it
    with worker(own_embedded.address, tmp_path) as (settings, log):
        with KafkaSink(settings.broker, partitions=2) as sink:
            for frame in (frame for frames in ticks[:half] for frame in frames):
                sink.write(frame)
            wait_until(lambda: any(record["rule"] == "rising" for record in made(settings.broker)), 60)
            publish = ["rules", "publish", str(changed), "--broker", settings.broker]
            subprocess.run(
                [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *publish], check=True
            )
            asyncio.run(send_rules(settings.broker, b"rules: [{name: rising, within: 1s}]"))
            # The topic is read in order: once this one is refused, the one before it is in force.
            wait_until(lambda: "were refused" in log.read_text(), 30, "the broken rule was not refused")
            assert "rules changed" in log.read_text()
            for frame in (frame for frames in ticks[half:] for frame in frames):
                sink.write(frame)

        def both() -> set[str]:
            return {record["id"] for record in made(settings.broker) if record["rule"] == "both"}

        wait_until(lambda: both() == wanted, 60, lambda: f"{len(both() ^ wanted)} ids differ")
        rising = [record for record in made(settings.broker) if record["rule"] == "rising"]
    assert {record["version"] for record in rising} == set(versions)
    assert {record["id"] for record in rising if record["version"] == versions[0]} <= set(strong(RULE_TEXT, ticks))


async def send_rules(broker: str, text: bytes) -> None:
    """Write the rule without the check of the command."""
    async with producer_client(broker) as producer:
        await producer.send_and_wait(RULES, text, key=b"broken", partition=0)


@pytest.mark.parametrize("form", ["frames", "json"])
def test_a_worker_finds_the_same_ids_in_frames_and_in_single_records(own_embedded, tmp_path, form):
    ticks = spikes()
    wanted = set(strong(RULE_TEXT, ticks))
    with worker(own_embedded.address, tmp_path, lateness="1s", idle_timeout="2s") as (settings, _):
        with KafkaSink(settings.broker, partitions=2, form=form) as sink:
            for frame in (frame for frames in ticks for frame in frames):
                sink.write(frame)

        def found() -> set[str]:
            return {record["id"] for record in made(settings.broker)}

        wait_until(lambda: len(found()) >= len(wanted), 60, lambda: f"{len(found())} of {len(wanted)}")
        records = made(settings.broker)
    assert sorted(record["id"] for record in records) == sorted(wanted)
