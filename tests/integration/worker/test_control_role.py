"""The role control on a broker: killed in the midst of its work, it commands what a controller does over all scores."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from astrocyte.agents.controllers.genetic import GeneticController
from astrocyte.pipeline.kafka.client import ensure_topics, topic_partitions
from astrocyte.pipeline.roles.sink.decode import decode_for_sink
from astrocyte.pipeline.simulation.controls import KafkaControls
from astrocyte.pipeline.simulation.publish import KafkaSink
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.live_cases import world_frames
from tests.support.waiting import wait_until

TOPIC = "control.ga"


@contextmanager
def role(address: str, log: Path) -> Iterator[subprocess.Popen[Any]]:
    environment = {**os.environ, "ASTROCYTE_BROKER": address, "ASTROCYTE_PARTITIONS": "1", "ASTROCYTE_GROUP": "killed"}
    command = [
        sys.executable,
        "-c",
        "from astrocyte.pipeline.cli.app import main; main()",
        "worker",
        "--role",
        "control",
    ]
    with log.open("w") as output, subprocess.Popen(
        command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def commanded(address: str) -> list[bytes]:
    if TOPIC not in asyncio.run(topic_partitions(address)):
        return []
    return [each.value for part in read_all(address, TOPIC).values() for each in part]


def test_a_killed_role_repeats_at_most_its_last_commands_and_a_simulation_takes_each_once(own_embedded, tmp_path):  # noqa: F811
    address = own_embedded.address
    frames = [frame for frame in world_frames("dna") if frame.stream == "dna.karma_updated" and frame.num_rows]
    run = frames[0].run
    controller, wanted, by_frame = GeneticController(), [], []
    state = controller.initial()
    for frame in frames:
        state, commands = controller.step(state, frame)
        wanted += [command.model_dump_json().encode() for command in commands]
        by_frame.append(len(wanted))
    half = next(place for place, count in enumerate(by_frame, 1) if count > len(wanted) // 2)
    assert 0 < by_frame[half - 1] < len(wanted)
    asyncio.run(ensure_topics(address, {"mono.dna.karma_updated": 1, TOPIC: 1}))
    controls = KafkaControls(address, ["ga"], run=run)
    with role(address, tmp_path / "first.log"):
        publish(address, frames[:half])
        wait_until(lambda: commanded(address), 60, (tmp_path / "first.log").read_text)
    # Killed, wherever it was: between commands and state, or between state and acknowledgement.
    with role(address, tmp_path / "second.log"):
        publish(address, frames[half:])
        wait_until(lambda: set(commanded(address)) >= set(wanted), 60, (tmp_path / "second.log").read_text)
    made = commanded(address)
    assert list(dict.fromkeys(made)) == wanted
    taken: list[Any] = []

    def come() -> bool:
        taken.extend(controls())
        return len(taken) >= len(wanted)

    wait_until(come, 30)
    controls.close()
    assert taken == [("ga", orjson.loads(each)["values"]) for each in wanted]


def test_a_repeated_command_is_one_entry_of_the_audit_log_and_a_message_sent_by_hand_is_one_each_time():
    command = orjson.dumps(
        {"control": "ga", "timestamp": "2025-01-01T00:00:01Z", "run": "r", "values": {"action": "x"}}
    )
    values = [command, b'{"difficulty": 2}', command, b'{"difficulty": 2}', b"not json"]
    records = [RawRecord(offset, 0, None, value) for offset, value in enumerate(values)]
    (item,) = decode_for_sink(TOPIC, 0, records).items
    ids = [entry["event_id"] for entry in item.records]
    assert ids[0] == ids[2]
    assert len(set(ids)) == 4


def publish(address: str, frames: list[Frame]) -> None:
    with KafkaSink(address, partitions=1) as sink:
        for frame in frames:
            sink.write(frame)
