"""Live workers over repartitioned streams emit what `astrocyte match` finds in the log, row by row."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.client import topic_partitions
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import Frame, decode_frame
from astrocyte.schemas.topics import ALERTS, LATE, MULTI_EVENTS, metrics_topic
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.worker import wait_until

RULES = (Path("cells"),)
PLANTS = [{"kind": "collapse", "at_tick": 300, "ticks": 5, "strength": 0.8}]
SIMULATION = ("cells", "--seconds", "9", "--size", "1024", "--seed", "7", "--set", f"plants={json.dumps(PLANTS)}")
PLACE = ("topic", "partition", "offset")


def astrocyte(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", *arguments]


@contextmanager
def workers(address: str, folder: Path) -> Iterator[None]:
    """``astrocyte worker --rules cells`` with default settings; the repartition role is added automatically."""
    command = astrocyte("worker", "--rules", "cells", "--role", "correlate", "--broker", address)
    log = folder / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        yield
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-3000:])
        raise
    finally:
        process.terminate()
        process.wait(30)


def simulate(address: str, folder: Path) -> None:
    subprocess.run(astrocyte("simulate", *SIMULATION, "--json", "--broker", address), check=True, cwd=folder)


def without_places(body: dict[str, Any]) -> dict[str, Any]:
    """A multi event without the offsets in internal topics: they depend on how frames were cut on the way."""
    for entry in body["lineage"].values():
        for each in (entry, *entry.get("also", ())):
            for name in PLACE:
                each.pop(name, None)
    return body


def by_id(bodies: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(bodies, key=lambda body: body[name])


def rows(frames: list[Frame]) -> list[dict[str, Any]]:
    """Results of windows, each with its window's name."""
    found = [{"stream": frame.stream, **row} for frame in frames for row in frame.batch.to_pylist()]
    return sorted(found, key=repr)


def offline(folder: Path, log: Path) -> dict[str, list[dict[str, Any]]]:
    settings = load_settings()
    _, outputs = run_rules(read_rule_files(RULES), [log], lateness_us=settings.lateness)
    made = list(outputs)
    return {
        "multi": by_id(
            [without_places(orjson.loads(each.value)) for out in made for each in out.multi_events], "event_id"
        ),
        "alerts": by_id([orjson.loads(each.value) for out in made for each in out.alerts], "alert_id"),
        "windows": rows([frame for out in made for frame in out.frames]),
        "late": [orjson.loads(each.value) for out in made for each in out.late],
    }


def live(address: str) -> dict[str, list[dict[str, Any]]]:
    topics = asyncio.run(topic_partitions(address))

    def values(topic: str) -> list[bytes]:
        parts = read_all(address, topic) if topic in topics else {}
        return [each.value for part in parts.values() for each in part]

    windows = [metrics_topic(window.name) for window in read_rule_files(RULES).windows]
    return {
        "multi": by_id([without_places(orjson.loads(value)) for value in values(MULTI_EVENTS)], "event_id"),
        "alerts": by_id([orjson.loads(value) for value in values(ALERTS)], "alert_id"),
        "windows": rows([decode_frame(value) for topic in windows for value in values(topic)]),
        "late": [orjson.loads(value) for value in values(LATE)],
    }


def drained(address: str) -> bool:
    """Whether all that is in Kafka was processed: the streams were repartitioned, then correlated."""
    return all(asyncio.run(group_lag(address, f"astrocyte-{role}")) == 0 for role in ("repartition", "correlate"))


@pytest.mark.parametrize("order", ["worker first", pytest.param("simulation first", marks=pytest.mark.soak)])
def test_live_windows_and_alerts_are_those_of_the_recorded_log(own_embedded, tmp_path, order):  # noqa: F811
    address = own_embedded.address
    if order == "simulation first":
        simulate(address, tmp_path)
    with workers(address, tmp_path):
        if order == "worker first":
            # Until the repartition role has reported every partition as idle, as it does after the idle timeout.
            wait_until(lambda: reported_silent(address) == {f"/{number}" for number in range(4)}, 60)
            simulate(address, tmp_path)
        wait_until(lambda: drained(address), 60, lambda: f"live {counts(live(address))}")
        log = tmp_path / "recorded.jsonl.zst"
        asyncio.run(record(address, ["mono.*"], log))
        wanted = offline(tmp_path, log)
        assert len(wanted["windows"]) >= 20
        assert wanted["alerts"]
        wait_until(
            lambda: counts(live(address)) == counts(wanted),
            30,
            lambda: f"{counts(live(address))}, not {counts(wanted)}",
        )
    assert live(address) == wanted
    assert wanted["late"] == []


def counts(found: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    return {name: len(items) for name, items in found.items()}


def reported_silent(address: str) -> set[str]:
    """Origins whose end is in every keyed topic's first partition."""
    names = [topic for topic in asyncio.run(topic_partitions(address)) if topic.startswith("keyed.")]
    ended = []
    for topic in names:
        frames = [decode_frame(each.value) for each in read_all(address, topic)[0]]
        ended.append({frame.origin for frame in frames if frame.end})
    return set.intersection(*ended) if ended else set()
