"""A domain as a pure step: its input, its output, and that a restart changes nothing."""

from collections import defaultdict

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.domain import Domain, DomainGroup, DomainOutput
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.events import Alert, MultiEvent
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.topics import TopicPartition
from tests.support.search import examples

START_US = 1_750_000_000_000_000
RULES = load_rules(
    """
rules:
  - name: both
    by: key
    within: 300ms
    all: [{as: a, stream: axon_1, where: "type == 'A'"}, {as: b, stream: axon_2, where: "type == 'B'"}]
    emit: {integrated_value: "a.value + b.value"}
    alert: {severity: info, message: "A {a.value:.1f} and B {b.value:.1f}"}
  - name: rising
    by: key
    within: 500ms
    seq: [{as: low, stream: axon_1}, {as: high, stream: axon_1, where: "value > low.value + 0.5"}]
    skip: past_last
"""
)
TOPICS = {"axon_1": "mono.axon_1", "axon_2": "mono.axon_2"}


def new_domain(**options) -> Domain:
    return Domain(0, [DomainGroup("key", Engine(RULES), TOPICS)], topics=TOPICS.values(), **options)


def spikes(stream: str, times_ms, *, run="run", first_seq=0, seed=0, **meta) -> Frame:
    random = np.random.default_rng(seed)
    count = len(times_ms)
    columns = {
        "timestamp": START_US + np.asarray(times_ms, np.int64) * 1000,
        "key": [f"k{number}" for number in random.integers(0, 3, count)],
        "type": ["A" if stream == "axon_1" else "B"] * count,
        "value": random.random(count),
    }
    return Frame.from_columns(stream, run, columns, first_seq=first_seq, origin=run, **meta)


class Log:
    """Offsets of what is fed, as Kafka would give them."""

    def __init__(self) -> None:
        self.records: list[tuple[str, RawRecord]] = []
        self._next: dict[str, int] = defaultdict(int)

    def add(self, topic: str, value: bytes | None, key: bytes | None = b"k") -> None:
        self.records.append((topic, RawRecord(self._next[topic], START_US // 1000, key, value)))
        self._next[topic] += 1


def stream_log(ticks: int, seed: int) -> Log:
    log = Log()
    sequence = dict.fromkeys(TOPICS, 0)
    for tick in range(ticks):
        for stream, topic in TOPICS.items():
            times = np.sort(np.random.default_rng([seed, tick, len(topic)]).integers(0, 100, 8)) + tick * 100
            frame = spikes(stream, times, first_seq=sequence[stream], seed=seed * 1000 + tick, peers=tuple(TOPICS),
                           watermark_us=START_US + (tick + 1) * 100_000, end=tick == ticks - 1)  # fmt: skip
            sequence[stream] += 8
            log.add(topic, encode_frame(frame))
    return log


def feed(domain: Domain, records) -> list[DomainOutput]:
    return [domain.feed(topic, [record]) for topic, record in records]


def ids(outputs) -> list[str]:
    return [orjson.loads(record.value)["event_id"] for output in outputs for record in output.multi_events]


def test_multi_events_and_alerts_have_the_documented_shapes_and_their_lineage():
    log = stream_log(6, seed=1)
    outputs = feed(new_domain(), log.records)
    records = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    assert records
    for record in records:
        event = MultiEvent.model_validate(record)
        for entry in event.lineage.values():
            assert (entry.topic, entry.partition) in (("mono.axon_1", 0), ("mono.axon_2", 0))
    alerts = [Alert.model_validate_json(record.value) for output in outputs for record in output.alerts]
    assert {alert.multi_event_id for alert in alerts} == {
        record["event_id"] for record in records if record["correlation_rule"] == "both"
    }


def test_a_finished_run_leaves_no_state_and_every_event_is_accounted_for():
    domain = new_domain()
    feed(domain, stream_log(6, seed=2).records)
    assert domain.counters.received == domain.counters.processed == 6 * 8 * 2
    assert domain.groups[0].engine.low_water_us() is None
    assert domain.newest_us is None


@examples(8, search=25)
@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 24), max_size=4), overlap=st.integers(0, 6))
def test_restarts_from_snapshots_give_the_same_matches_once(seed, cuts, overlap):
    log = stream_log(12, seed).records
    expected = ids(feed(new_domain(), log))
    domain, found, done = new_domain(), [], 0
    for cut in sorted(cuts):
        found += ids(feed(domain, log[done:cut]))
        snapshot = domain.snapshot()
        domain = new_domain()
        domain.restore(snapshot)
        # A restarted reader may get records again that the snapshot holds already.
        done = max(0, cut - overlap)
    found += ids(feed(domain, log[done:]))
    assert found == expected
    assert domain.counters.processed == 12 * 8 * 2


def test_a_stream_that_starts_slowly_is_waited_for():
    domain = new_domain()
    log = stream_log(4, seed=3).records
    first = [record for record in log if record[0] == "mono.axon_1"]
    second = [record for record in log if record[0] == "mono.axon_2"]
    outputs = feed(domain, first)
    assert ids(outputs) == []
    outputs += feed(domain, second)
    assert domain.counters.late == 0
    assert sorted(ids(outputs)) == sorted(ids(feed(new_domain(), log)))


def test_a_late_event_goes_to_late_with_its_place_and_is_not_matched():
    domain = new_domain()
    log = Log()
    log.add("mono.axon_1", encode_frame(spikes("axon_1", [1000], watermark_us=START_US + 1_000_000)))
    log.add("mono.axon_1", encode_frame(spikes("axon_1", [10, 2000], first_seq=1)))
    outputs = feed(domain, log.records)
    (late,) = [record for output in outputs for record in output.late]
    assert orjson.loads(late.value)["timestamp"].endswith("40.010000Z")
    assert dict(late.headers)["source_offset"] == b"1"
    assert dict(late.headers)["late_watermark_us"] == str(START_US + 1_000_000).encode()
    assert (domain.counters.processed, domain.counters.late) == (2, 1)


def test_bad_records_are_dead_letters_with_reason_place_and_bytes():
    domain = new_domain()
    log = Log()
    good = frame_to_records(spikes("axon_1", [0]))[0].value
    for value in (good, b"{", None, good.replace(b'"value":', b'"value":"x","v":'), b"\xff\xff\xff\xffgarbage"):
        log.add("mono.axon_1", value)
    (letters,) = [domain.feed("mono.axon_1", [record for _, record in log.records]).dead_letters]
    assert [letter.offset for letter in letters] == [1, 2, 3, 4]
    assert all(letter.reason and letter.topic == "mono.axon_1" for letter in letters)
    assert letters[0].payload_b64 == "ew=="
    counters = domain.counters
    assert (counters.received, counters.processed, counters.dead) == (5, 1, 4)


def test_one_bad_row_of_a_frame_is_a_dead_letter_of_its_own():
    frame = spikes("axon_1", [0, 1, 2])
    broken = Frame.from_columns("axon_1", "run", {
        "timestamp": frame.timestamps(), "key": ["a", "b", "c"], "type": ["A"] * 3, "value": [1.0, float("nan"), 3.0],
    })  # fmt: skip
    domain = new_domain()
    output = domain.feed("mono.axon_1", [RawRecord(7, 0, None, encode_frame(broken))])
    (letter,) = output.dead_letters
    assert (letter.offset, letter.row, letter.stage) == (7, 1, "validate")
    assert domain.counters.processed == 2


def test_an_event_that_is_delivered_again_under_another_offset_counts_once():
    domain = new_domain(lateness_us=1_000_000)
    payload = encode_frame(spikes("axon_1", [0, 1, 2]))
    domain.feed("mono.axon_1", [RawRecord(0, 0, None, payload), RawRecord(1, 0, None, payload)])
    assert (domain.counters.processed, domain.counters.duplicate) == (3, 3)


def test_records_without_watermarks_are_matched_once_their_topics_are_idle():
    domain = new_domain()
    for stream, at in (("axon_1", 0), ("axon_2", 50)):
        columns = {"timestamp": [START_US + at * 1000], "key": ["k"], "type": ["B" if at else "A"], "value": [1.0]}
        frame = Frame.from_columns(stream, "", columns)
        record = frame_to_records(frame)[0]
        assert ids([domain.feed(TOPICS[stream], [RawRecord(0, START_US // 1000, record.key, record.value)])]) == []
    domain.mark_idle([TopicPartition(topic, 0) for topic in TOPICS.values()])
    output = domain.mark_all_idle(START_US + 10_000_000)
    assert len(ids([output])) == 1


def test_a_topic_that_no_rule_reads_is_counted_all_the_same():
    domain = Domain(0, [DomainGroup("key", Engine(RULES), TOPICS)], topics=[*TOPICS.values(), "mono.axon_3"])
    domain.feed("mono.axon_3", [RawRecord(0, 0, None, encode_frame(spikes("axon_3", [0, 1])))])
    assert domain.counters.processed == 2


def test_a_snapshot_keeps_rules_without_a_key_beside_topics_that_are_only_counted():
    rules = load_rules("rules: [{name: two, by: null, within: 1s, seq: [{as: a, stream: s}, {as: b, stream: s}]}]")

    def domain() -> Domain:
        group = DomainGroup("", Engine(rules), {"s": "keyed..s"})
        return Domain(0, [group], topics=["mono.s", "keyed..s"], internal=["keyed..s"])

    def row(at_ms: int) -> bytes:
        times = {"timestamp": START_US + np.array([at_ms]) * 1000, "key": ["k"]}
        return encode_frame(
            Frame.from_columns("s", "run", times, first_seq=at_ms, watermark_us=START_US + at_ms * 1000)
        )

    whole = domain()
    whole.feed("keyed..s", [RawRecord(0, 1000, None, row(0))])
    other = domain()
    other.restore(whole.snapshot())
    output = other.feed("keyed..s", [RawRecord(1, 1000, None, row(500)), RawRecord(2, 1000, None, row(900))])
    assert [orjson.loads(each.value)["correlation_rule"] for each in output.multi_events] == ["two"]


def test_an_unknown_group_of_a_snapshot_is_left_out_and_a_new_one_begins_empty():
    domain = new_domain()
    feed(domain, stream_log(3, seed=4).records)
    other = Domain(0, [DomainGroup("domain", Engine(RULES), TOPICS)], topics=TOPICS.values())
    other.restore(domain.snapshot())
    assert other.positions == domain.positions
    assert other.groups[0].engine.low_water_us() is None


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_how_a_fetch_cuts_the_chunks_changes_nothing(chunk):
    log = stream_log(8, seed=5).records
    domain = new_domain()
    outputs = []
    by_topic = {topic: [record for name, record in log if name == topic] for topic in TOPICS.values()}
    for first in range(0, 8, chunk):
        outputs += [domain.feed(topic, records[first : first + chunk]) for topic, records in by_topic.items()]
    assert sorted(ids(outputs)) == sorted(ids(feed(new_domain(), log)))


def test_events_of_a_topic_that_is_newly_counted_are_not_late_by_the_time_of_another():
    """The rules were changed: a topic was read only to be counted, and so is another now, whose events are older."""

    def counting(stream: str) -> Domain:
        return Domain(0, [], topics=[f"mono.{stream}"])

    def add(domain: Domain, stream: str, times_ms: list[int]) -> None:
        log = Log()
        log.add(f"mono.{stream}", encode_frame(spikes(stream, times_ms)))
        feed(domain, log.records)

    first, then = counting("axon_1"), counting("axon_2")
    add(first, "axon_1", [90_000, 95_000])
    assert first.watermark_us > START_US
    then.restore(first.snapshot())
    add(then, "axon_2", [1000, 2000])
    then.trust()
    assert (then.counters.processed, then.counters.late) == (4, 0)
