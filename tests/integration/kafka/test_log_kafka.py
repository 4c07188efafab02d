"""Tap, record and replay on a real Kafka: messages are copied from one broker to another byte for byte."""

from __future__ import annotations

import json
import math

import pytest

from astrocyte.pipeline.kafka.client import consumer_client, ensure_topics, read_at, topic_partitions
from astrocyte.pipeline.kafka.offsets import Start
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_header, read_log
from astrocyte.pipeline.recording.record import record
from astrocyte.pipeline.recording.replays.pacing import Tempo
from astrocyte.pipeline.recording.replays.replay import Selection, make_plan, replay
from astrocyte.pipeline.recording.tap import Selector, json_line, tap
from tests.support.broker import BrokerThread
from tests.support.logs import T0_US, axon_frame, frame_messages, produce, read_topics

pytestmark = pytest.mark.kafka

STRANGE = [
    ConsumedRecord("strange", 0, 0, T0_US // 1000, b"\xff", b"\x00\xff", (("h", b"\xfe"), ("h", b"text"), ("", None))),
    ConsumedRecord("strange", 1, 0, T0_US // 1000 + 1, None, b""),
    ConsumedRecord("strange", 0, 1, T0_US // 1000 + 2, b"gone", None),
]


@pytest.fixture
def kafka(request):
    return request.getfixturevalue("empty_kafka").address


def frames() -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    records = []
    for step in range(6):
        frame = axon_frame("axon_1", [f"d{i}" for i in range(8)], [step * 10_000 + i for i in range(8)], seq=step * 8)
        records += frame_messages(frame, 2, offsets)
    return records


async def test_a_log_of_kafka_is_replayed_to_the_embedded_broker_and_back(kafka, tmp_path):
    await ensure_topics(kafka, {"strange": 2}, config={"strange": {"max.message.bytes": "2000000"}})
    await produce(kafka, STRANGE + frames())
    path = tmp_path / "kafka.jsonl.zst"
    done = await record(kafka, ["strange", "mono.*"], path)
    assert done.records == len(STRANGE) + 12
    assert sorted(read_log(path), key=str) == sorted(STRANGE + frames(), key=str)
    assert read_header(path).config["strange"] == {"max.message.bytes": "2000000"}
    plan = make_plan([path], Selection(remap={"strange": "odd"}))
    with BrokerThread(tmp_path / "broker") as embedded:
        await replay(plan, embedded.address, tempo=Tempo(math.inf))
        assert [item._replace(topic="strange") for item in await read_topics(embedded.address, "odd")] == STRANGE
        back = tmp_path / "embedded.jsonl.zst"
        await record(embedded.address, ["mono.axon_1"], back)
    plan = make_plan([back], Selection(remap={"mono.axon_1": "copy"}))
    await replay(plan, kafka, tempo=Tempo(math.inf))
    assert sorted(item._replace(topic="mono.axon_1") for item in await read_topics(kafka, "copy")) == sorted(frames())


async def test_times_offsets_and_counts_bound_a_tap(kafka):
    await produce(kafka, [item._replace(topic="tapped") for item in STRANGE])
    seen: list[bytes] = []
    start = Start("time", T0_US // 1000 + 1)
    await tap(kafka, ["tapped"], lambda event: seen.append(json_line(event)), selector=Selector(), start=start)
    assert [json.loads(line)["offset"] for line in seen] == [0, 1]
    assert await tap(kafka, ["tapped"], seen.append, selector=Selector(), until_ms=T0_US // 1000 + 1) == 1
    assert await tap(kafka, ["tapped"], seen.append, selector=Selector(), start=Start("tail", 1)) == 2
    assert await tap(kafka, ["tapped"], seen.append, selector=Selector(), start=Start("latest")) == 0


async def test_one_message_is_read_at_its_place(kafka):
    await produce(kafka, [item._replace(topic="placed") for item in STRANGE])
    async with consumer_client(kafka) as client:
        assert (await read_at(client, "placed", 0, 1)).key == b"gone"
        assert await read_at(client, "placed", 0, 2) is None


async def test_the_end_of_a_compacted_topic_is_reached(kafka):
    settings = {"cleanup.policy": "compact", "segment.ms": "1", "min.cleanable.dirty.ratio": "0.0"}
    await ensure_topics(kafka, {"squeezed": 1}, config={"squeezed": settings})
    for n in range(5):
        await produce(kafka, [ConsumedRecord("squeezed", 0, 0, T0_US // 1000 + n, b"same", b"%d" % n)], partitions=1)
    after = await read_topics(kafka, "squeezed")
    assert after[-1].value == b"4"
    assert (await topic_partitions(kafka))["squeezed"] == 1
