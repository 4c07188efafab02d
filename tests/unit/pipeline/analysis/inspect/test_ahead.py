"""Clocks that are ahead of Kafka's time: what a worker would hold back is said, and sets no figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from astrocyte.agents.domain import Domain
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter
from astrocyte.pipeline.analysis.inspect.text import render
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.topics import TopicPartition
from tests.support.logs import write_log

START_S = 1_759_055_400
DAY_S = 86_400
TOPIC = "plant.sensors"


def readings(devices: Sequence[str], partition: int, count: int, *, ahead_s: float = 0) -> list[ConsumedRecord]:
    """A reading of one of the devices each second."""
    found = []
    for number in range(count):
        device = devices[number % len(devices)]
        body = {"ts": START_S + number + ahead_s, "device": device, "celsius": 20 + number % 9}
        stamp_ms = (START_S + number) * 1000
        found.append(ConsumedRecord(TOPIC, partition, number, stamp_ms, device.encode(), orjson.dumps(body)))
    return found


def inspected(tmp_path, records: Sequence[ConsumedRecord], partitions: int = 2):
    path = write_log(tmp_path / f"log{len(list(tmp_path.iterdir()))}.jsonl", records, partitions=partitions)
    request = Request(str(path), Settings())
    sample = take_sample(request)
    return request, sample, inspect(request, sample)


def held_by_a_worker(records: Sequence[ConsumedRecord], declaration: dict[str, Any]) -> int:
    """Events that wait in the domains of a worker which has read all, at the time of the newest message."""
    decoders = Decoders(Contracts([StreamDeclaration.model_validate(declaration)]))
    now_us = max(record.timestamp_ms for record in records) * 1000
    waiting = 0
    for partition in {record.partition for record in records}:
        domain = Domain(partition, (), topics=[TOPIC], decoders=decoders)
        domain.feed(TOPIC, [raw_record(record) for record in records if record.partition == partition])
        domain.trust(now_us, [TopicPartition(TOPIC, partition)])
        waiting += domain.waiting
    return waiting


USUAL = readings(["d0", "d1", "d2", "d3"], 0, 400)


@pytest.mark.parametrize("count", [1, 3, 80])
def test_a_device_that_is_ahead_alone_in_its_partition_is_said_to_be_held(tmp_path, count):
    records = [*USUAL, *readings(["fast"], 1, count, ahead_s=2 * DAY_S)]
    _, _, found = inspected(tmp_path, records)
    (report,) = found.reports
    assert held_by_a_worker(records, report.proposal.declaration) == count
    (line,) = report.problems
    events, held = ("1 event", "it") if count == 1 else (f"{count} events", "them")
    assert line.startswith(f"{events} of device 'fast' {'is' if count == 1 else 'are'} 2d ahead of Kafka's time, ")
    assert f"a worker would hold {held} until that time has come" in line
    assert report.as_json()["clocks_ahead"] == [
        {"key": "fast", "events": count, "held": count, "lead_us": 2 * DAY_S * 1_000_000}
    ]
    assert "the events of a wrong clock, which are named under problems, are left out" in render(found, width=120)


def test_a_clock_that_is_ahead_sets_neither_rate_nor_window_nor_lateness(tmp_path):
    request, sample, usual = inspected(tmp_path, USUAL)
    wanted = make_starter(request, sample, usual, path="rules.yaml").ruleset.windows
    request, sample, found = inspected(tmp_path, [*USUAL, *readings(["fast"], 1, 80, ahead_s=2 * DAY_S)])
    (report,), (before,) = found.reports, usual.reports
    assert (report.rate, report.usual_span_us, report.peak) == (before.rate, before.usual_span_us, before.peak)
    assert found.recommended_us == usual.recommended_us
    windows = make_starter(request, sample, found, path="rules.yaml").ruleset.windows
    assert [each.size_us for each in windows] == [each.size_us for each in wanted]


def test_two_devices_that_confirm_each_other_are_named_although_a_worker_takes_them(tmp_path):
    records = [*USUAL, *readings(["fast", "faster"], 1, 80, ahead_s=2 * DAY_S)]
    _, _, found = inspected(tmp_path, records)
    (report,) = found.reports
    held = held_by_a_worker(records, report.proposal.declaration)
    assert sum(each.held for each in report.reading.clocks.ahead) == held
    assert [each.key for each in report.reading.clocks.ahead] == ["fast", "faster"]
    assert report.usual_span_us == 399_000_000


def test_an_event_that_a_worker_holds_makes_none_late(tmp_path):
    far = readings(["fast"], 1, 1, ahead_s=365 * DAY_S)
    _, _, found = inspected(tmp_path, [*USUAL, *far])
    assert "late" not in " ".join(found.reports[0].problems).replace("lateness", "")


@pytest.mark.parametrize("ahead_s", [0, -30 * DAY_S, 600])
def test_times_that_kafka_explains_are_not_named(tmp_path, ahead_s):
    records = [*USUAL, *readings(["d9"], 1, 80, ahead_s=ahead_s)]
    _, _, found = inspected(tmp_path, records)
    assert found.reports[0].reading.clocks.ahead == []
    assert held_by_a_worker(records, found.reports[0].proposal.declaration) == 0


def test_clocks_of_which_most_are_ahead_are_what_is_usual(tmp_path):
    _, _, found = inspected(tmp_path, readings(["d0", "d1"], 0, 100, ahead_s=2 * 3600), partitions=1)
    (report,) = found.reports
    assert (report.problems, report.reading.clocks.left_out) == ([], 0)
    assert report.rate == pytest.approx(100 / 99)


def test_a_file_has_no_kafka_time_by_which_a_clock_is_ahead(tmp_path):
    path = tmp_path / "sensors.jsonl"
    rows = [{"ts": START_S + n + (2 * DAY_S if n > 370 else 0), "device": f"d{n // 100}"} for n in range(400)]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    request = Request(str(path), Settings())
    (report,) = inspect(request, take_sample(request)).reports
    assert report.reading.clocks.ahead == []
