"""Controls over Kafka: messages reach a running simulation, apply from the recorded tick, and a replay repeats them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astrocyte.pipeline.kafka.client import ensure_topics, producer_client, topic_partitions
from astrocyte.pipeline.simulation.controls import KafkaControls
from astrocyte.scenario import MemorySink, configure, load_scenario, simulate
from astrocyte.schemas.frames import Frame, decode_frame
from astrocyte.simulator.runtime.controls import Control
from tests.support.broker import BrokerThread
from tests.support.brokers import read_all
from tests.support.waiting import wait_until

TOPIC = "control.difficulty"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with BrokerThread(tmp_path / "broker", default_partitions=1) as running:
        yield running.address


def make(broker: str, partitions: int = 1) -> None:
    asyncio.run(ensure_topics(broker, {TOPIC: partitions}))


def send(broker: str, *messages: Any) -> None:
    async def deliver() -> None:
        async with producer_client(broker) as producer:
            for message in messages:
                value = message if isinstance(message, bytes) else json.dumps(message).encode()
                await producer.send_and_wait(TOPIC, value)

    asyncio.run(deliver())


def received(controls: KafkaControls, count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def come() -> bool:
        found.extend(controls())
        return len(found) >= count

    wait_until(come, what=f"{count} control messages")
    return found


def test_messages_of_an_existing_topic_are_returned_from_the_start_of_the_run(broker: str) -> None:
    make(broker, 2)
    send(broker, {"difficulty": 9.0})
    controls = KafkaControls(broker, ["difficulty"], run="r")
    send(broker, {"difficulty": 2.0}, {"control": "difficulty", "run": "r", "values": {"reward": 0.5}})
    found = received(controls, 2)
    controls.close()
    assert sorted(found, key=repr) == [("difficulty", {"difficulty": 2.0}), ("difficulty", {"reward": 0.5})]


def test_a_topic_that_is_made_later_is_read_from_its_first_message(broker: str) -> None:
    controls = KafkaControls(broker, ["difficulty"], run="r")
    make(broker)
    send(broker, {"difficulty": 2.0}, b"not json", [1])
    assert received(controls, 3) == [
        ("difficulty", {"difficulty": 2.0}),
        ("difficulty", b"not json"),
        ("difficulty", [1]),
    ]
    controls.close()


def test_messages_for_another_run_are_skipped(broker: str) -> None:
    make(broker)
    controls = KafkaControls(broker, ["difficulty"], run="r")
    send(broker, {"run": "other", "values": {"difficulty": 2.0}}, {"run": "r", "values": {"difficulty": 3.0}})
    assert received(controls, 1) == [("difficulty", {"difficulty": 3.0})]
    controls.close()


def test_a_command_that_a_controller_repeats_applies_once_and_one_sent_by_hand_each_time(broker: str) -> None:
    make(broker)
    controls = KafkaControls(broker, ["difficulty"], run="r")
    command = {"control": "difficulty", "timestamp": "2025-01-01T00:00:01Z", "run": "r", "values": {"difficulty": 2.0}}
    later = {**command, "timestamp": "2025-01-01T00:00:02Z"}
    send(broker, command, later, command, later, {"difficulty": 5.0}, {"difficulty": 5.0})
    found = received(controls, 4)
    controls.close()
    assert [values["difficulty"] for _, values in found] == [2.0, 2.0, 5.0, 5.0]


def test_messages_sent_around_an_outage_of_the_broker_are_not_missed(tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "broker", default_partitions=1) as running:
        make(running.address)
        port = int(running.address.rpartition(":")[2])
        controls = KafkaControls(running.address, ["difficulty"], run="r")
        send(running.address, {"difficulty": 2.0})
        assert received(controls, 1) == [("difficulty", {"difficulty": 2.0})]
    with BrokerThread(tmp_path / "broker", port=port, default_partitions=1) as running:
        send(running.address, {"difficulty": 3.0})
        assert received(controls, 1) == [("difficulty", {"difficulty": 3.0})]
        controls.close()


def rows_of(frames: list[Frame], stream: str) -> list[dict[str, Any]]:
    return [row for frame in frames if frame.stream == stream for row in frame.rows()]


@pytest.mark.parametrize("existing", [pytest.param(True, marks=pytest.mark.soak), False])
def test_a_running_simulation_applies_controls_and_its_record_repeats_it(broker: str, existing: bool) -> None:
    if existing:
        make(broker)
    options = "--size 1024 --set routine_share=0.2 --seed 3 --seconds 600 --realtime --json"
    command = ["simulate", "cells", *options.split()]
    process = subprocess.Popen(
        [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()",
         *command, "-b", broker, "--partitions", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: "mono.population_metrics" in asyncio.run(topic_partitions(broker)), timeout_s=120)
        make(broker)
        send(broker, {"difficulty": 3.0}, {"values": {"reward": 0.5, "accuracy": 0.7}}, {"difficulty": -1})

        def recorded() -> list[dict[str, Any]]:
            frames = [decode_frame(record.value) for record in read_all(broker, "mono.simulation_controls")[0]]
            return rows_of(frames, "simulation_controls")

        wait_until(lambda: len(recorded()) == 3, timeout_s=240, what="three controls in the stream")
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "refused: control.difficulty at tick" in errors
    assert time.monotonic() - began < 20
    summary = json.loads(out)
    controls = [Control(**each) for each in summary["controls"]]
    control_rows = recorded()
    assert [(row["tick"], row["type"]) for row in control_rows] == [
        (each.tick, "refused" if each.error else "applied") for each in controls
    ]
    assert [row["type"] for row in control_rows] == ["applied", "applied", "refused"]
    world = load_scenario("cells")
    again = MemorySink()
    config = configure(world.Config, {"size": 1024, "routine_share": 0.2})
    simulate(world, config, seed=3, ticks=summary["end_tick"], sink=again, controls=controls)
    for stream in ("simulation_controls", "population_metrics", "evolutionary_events", "problem_solving"):
        live = [decode_frame(record.value) for record in read_all(broker, f"mono.{stream}")[0]]
        assert rows_of(live, stream) == rows_of(again.frames, stream)
        assert rows_of(live, stream)
