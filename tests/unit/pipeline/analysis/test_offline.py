"""Rules over recorded logs without a broker: the matches of the pipeline."""

from __future__ import annotations

import random

import orjson

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inputs import survey
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.replays.shift import repartition
from astrocyte.schemas.topics import CLOCK, MULTI_EVENTS
from tests.support.logs import T0_US, axon_frame, write_log
from tests.support.pair_log import LATENESS, SECOND, in_frames, in_json, matches, spikes


def test_matches_have_the_shape_of_multi_events_and_lead_back_to_their_messages(pair, log):
    found = matches(pair, log)
    assert len(found) == 12 * 8
    first = found[0]
    assert first["event_type"] == "MULTI_ORIGINATED"
    assert first["correlation_rule"] == "pair"
    assert len(first["source_events"]) == 2
    assert first["lineage"].keys() == {"axon_1", "axon_2"}
    entry = first["lineage"]["axon_1"]
    assert (entry["topic"], entry["step"]) == ("mono.axon_1", "a")
    ids = {text for record in read_log(log) if (record.topic, record.partition, record.offset) ==
           ("mono.axon_1", entry["partition"], entry["offset"]) for text in _ids(record)}  # fmt: skip
    assert entry["event_id"] in ids


def _ids(record: ConsumedRecord) -> list[str]:
    from astrocyte.pipeline.recording.frames import frames_of

    return [text for *_, frame in frames_of([record]) for text in frame.id_strings()]


def test_ids_depend_neither_on_the_form_nor_on_the_partitions_nor_on_the_order(pair, tmp_path, log):
    expected = {match["event_id"] for match in matches(pair, log)}
    assert len(expected) == 96
    json_log = write_log(tmp_path / "json.jsonl.zst", in_json(spikes()))
    assert {match["event_id"] for match in matches(pair, json_log)} == expected
    five = write_log(tmp_path / "five.jsonl.zst", in_frames(spikes(), partitions=5), partitions=5)
    assert {match["event_id"] for match in matches(pair, five)} == expected
    records = in_json(spikes())
    numbers = random.Random(3)
    shuffled = sorted(records, key=lambda item: item.timestamp_ms + numbers.randrange(400))
    shuffled_log = write_log(tmp_path / "shuffled.jsonl", _with_offsets(shuffled))
    assert {match["event_id"] for match in matches(pair, shuffled_log)} == expected


def test_frames_that_a_replay_repartitions_give_the_same_ids(pair, log, tmp_path):
    divided = [part for record in read_log(log) for part in repartition(record, 2, 5)]
    path = write_log(tmp_path / "divided.jsonl.zst", _with_offsets(divided), partitions=5)
    run, outputs = run_rules(pair, [path], lateness_us=0)
    found = [orjson.loads(record.value)["event_id"] for output in outputs for record in output.multi_events]
    assert run.counters.late == 0
    assert sorted(found) == sorted(match["event_id"] for match in matches(pair, log))


def _with_offsets(records: list[ConsumedRecord]) -> list[ConsumedRecord]:
    offsets: dict[tuple[str, int], int] = {}
    placed = []
    for record in records:
        place = (record.topic, record.partition)
        placed.append(record._replace(offset=offsets.get(place, 0)))
        offsets[place] = offsets.get(place, 0) + 1
    return placed


def test_records_that_are_not_events_are_counted_and_the_others_are_matched(pair, tmp_path):
    records = in_json(spikes(2))
    bad = [
        ConsumedRecord("mono.axon_1", 0, 900 + n, 0, b"k", value)
        for n, value in enumerate((b"{", None, b"\xff\xff\xff\xff"))
    ]
    path = write_log(tmp_path / "a.jsonl", [*records[:4], *[item for item in records[4:] if item.topic != "x"], *bad])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert sum(len(output.multi_events) for output in outputs) == 16
    assert run.counters.dead == 3
    assert run.counters.received == 32 + 3


def test_late_events_are_counted_and_not_matched(pair, tmp_path):
    records = in_json(
        [axon_frame("axon_1", ["k"], [0], types="A"), axon_frame("axon_2", ["k"], [60 * SECOND], types="B")], 1
    )
    late = in_json([axon_frame("axon_2", ["k"], [1000], types="B", seq=9)], 1)
    path = write_log(tmp_path / "a.jsonl", _with_offsets(records + late), partitions=1)
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert sum(len(output.multi_events) for output in outputs) == 0
    assert run.counters.late == 1


def test_a_topic_missing_from_the_log_does_not_delay_the_watermark(pair, tmp_path):
    path = write_log(tmp_path / "a.jsonl", in_frames([frame for frame in spikes() if frame.stream == "axon_1"]))
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    assert list(outputs) == []
    assert run.counters.processed == 96


def about_idleness(offset: int, positions: dict[str, int], **meta) -> ConsumedRecord:
    body = {"partition": 0, "idle": [], "until_us": None, "active": [], "asserting": False, "positions": positions}
    body |= {"life": "first", "number": offset + 1}
    return ConsumedRecord(CLOCK, 0, offset, 0, b"0", orjson.dumps(body | meta))


def test_the_idleness_that_a_worker_recorded_is_repeated_with_its_end(pair, tmp_path):
    events = in_json(spikes(), partitions=1)
    topics = sorted({record.topic for record in events})
    first = dict.fromkeys(topics, 1)
    gone = about_idleness(0, first, idle=topics, until_us=T0_US + 3_600_000_000)
    path = write_log(tmp_path / "gone.jsonl", [*events, gone])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    list(outputs)
    assert run.counters.late > 0, "event time went on for an hour while all was idle"
    back = about_idleness(1, {}, active=topics, restored=True, life="second", number=1)
    path = write_log(tmp_path / "back.jsonl", [*events, gone, back])
    run, outputs = run_rules(pair, [path], lateness_us=LATENESS)
    list(outputs)
    assert run.counters.late == 0, "the worker crashed after this and read again from the beginning"


def test_the_idleness_that_a_worker_recorded_is_repeated_for_every_group_that_reads_events(tmp_path):
    rules = load_rules(
        """
        streams: [{name: axon_1, key: key}, {name: axon_2, key: key}]
        rules:
          - {name: pair, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2}]}
          - {name: typed, by: type, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_1}]}
        """
    )
    events = in_json(spikes(), partitions=1)
    topics = sorted({record.topic for record in events})
    gone = about_idleness(0, dict.fromkeys(topics, 1), idle=topics, until_us=T0_US + 3_600_000_000)
    late = []
    for name, records in (("without", events), ("with", [*events, gone])):
        _, outputs = run_rules(rules, [write_log(tmp_path / f"{name}.jsonl", records)], lateness_us=LATENESS)
        late.append(sum(len(output.late) for output in outputs))
    assert late[0] == 0
    assert late[1] > 0


def test_the_trust_of_a_worker_s_clock_is_repeated(pair, tmp_path):
    """Without the record, the event that is ahead waits and is contradicted by what follows it."""
    hour = 3600 * SECOND
    times = [("k", 0), ("j", 1), ("k", 3 * hour), ("j", 2), ("k", 3)]
    events = []
    for seq, (key, at) in enumerate(times):
        (message,) = in_json([axon_frame("axon_1", [key], [at], types="A", seq=seq)], 1)
        events.append(message._replace(offset=seq, timestamp_ms=(T0_US + at) // 1000))
    trusted = about_idleness(0, {"mono.axon_1": 3}, trusted_us=T0_US + 3 * hour)
    counts = []
    for name, records in (("without", events), ("with", [*events, trusted])):
        run, outputs = run_rules(pair, [write_log(tmp_path / f"{name}.jsonl", records)], lateness_us=LATENESS)
        list(outputs)
        counts.append((run.counters.processed, run.counters.dead, run.counters.late))
    assert counts == [(4, 1, 0), (3, 0, 2)]


def test_the_trust_of_a_repartition_role_s_clock_is_repeated(tmp_path):
    """The copy of an event that is ahead is matched where the role has accepted it, and refused without the record."""
    hour = 3600 * SECOND
    times = [("k", 0), ("j", 1), ("k", 3 * hour), ("j", 2), ("k", 3)]
    events = []
    for seq, (key, at) in enumerate(times):
        (message,) = in_json([axon_frame("axon_1", [key], [at], types="A", seq=seq)], 1)
        events.append(message._replace(offset=seq, timestamp_ms=(T0_US + at) // 1000))
    rules = load_rules(
        """
        streams: [{name: axon_1, key: key}]
        rules:
          - {name: near, by: type, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_1}]}
        """
    )
    copy, source = "keyed.type.axon_1", {"mono.axon_1": 3}
    trusted = [
        about_idleness(0, {"mono.axon_1": 3}, trusted_us=T0_US + 3 * hour),
        about_idleness(1, source, repartition=copy, idle=False, trusted_us=T0_US + 3 * hour),
    ]
    counts = []
    for name, records in (("without", events), ("with", [*events, *trusted])):
        run, outputs = run_rules(rules, [write_log(tmp_path / f"{name}.jsonl", records)], lateness_us=LATENESS)
        late = sum(len(output.late) for output in outputs)
        counts.append((run.counters.processed, run.counters.dead, run.counters.late, late))
    # The two late events are reported where they are counted and where their copies are read.
    assert counts == [(4, 1, 0, 0), (3, 0, 2, 4)]


def test_the_pipeline_s_own_topics_are_no_input(pair, log, tmp_path):
    made = [ConsumedRecord("metrics.x", 0, 0, 1, b"k", b"{}"), ConsumedRecord(MULTI_EVENTS, 0, 0, 1, b"k", b"{}")]
    path = write_log(tmp_path / "b.jsonl", [*read_log(log), *made])
    assert len(matches(pair, path)) == 96
    assert survey([path]).count == 2


def test_rules_by_another_field_than_the_streams_key_find_their_matches(tmp_path):
    rules = load_rules(
        """
        streams: [{name: orders, key: order_id}, {name: refunds, key: refund_id}]
        rules:
          - name: bought_and_returned
            by: customer
            within: 10s
            seq:
              - {as: bought, stream: orders}
              - {as: returned, stream: refunds}
        """
    )
    base = T0_US // SECOND
    records = []
    for n in range(10):
        for topic, time in (("orders", base + n), ("refunds", base + n + 0.5)):
            value = orjson.dumps({"timestamp": time, "customer": f"c{n % 5}"})
            record = ConsumedRecord(f"mono.{topic}", 0, n, round(time * 1000), f"{topic}{n}".encode(), value)
            records += repartition(record, 1, 3)
    three = write_log(tmp_path / "three.jsonl", _with_offsets(records), partitions=3)
    one = write_log(
        tmp_path / "one.jsonl", _with_offsets([item._replace(partition=0) for item in records]), partitions=1
    )
    customers = [match["correlation_rule"] for match in matches(rules, three)]
    # Each order of a customer is followed by the refunds of both of its rounds, the second order by one.
    assert customers == ["bought_and_returned"] * 10
    assert len(matches(rules, one)) == 10
