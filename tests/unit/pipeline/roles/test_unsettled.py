"""What a killed worker has put out provisionally since its last snapshot is settled by the next one."""

from __future__ import annotations

from types import SimpleNamespace

import orjson
import pytest

from astrocyte import Engine, load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS
from tests.support.correlate_role import START_US, TOPICS, TP, Broker, Worker, record

TEXT = """
rules:
  - name: pair
    %swithin: 60s
    seq: [{as: a, stream: axon_1}, {as: b, stream: axon_2}]
    alert: {severity: warning, message: "pair"}
"""
EVENTUAL = load_rules(TEXT % "consistency: eventual\n    ")
STRONG = load_rules(TEXT % "")
SENT = [
    ("axon_1", 1),
    ("axon_2", 3),
    ("axon_2", 2),
    ("axon_1", 4),
    ("axon_2", 6),
    ("axon_2", 5),
    ("axon_2", 40),
    ("axon_1", 41),
]
"""Stream and seconds, in the order in which the events came."""
STAMP_MS = START_US // 1000 + 60_000
"""Kafka's time of all messages."""


class EventualWorker(Worker):
    @staticmethod
    def _domain(partition: int) -> Domain:
        groups = [DomainGroup("key", Engine(EVENTUAL, validated=True), TOPICS)]
        return Domain(partition, groups, topics=TOPICS.values(), lateness_us=10_000_000)


def log() -> dict[str, list[bytes]]:
    """Messages by topic."""
    found: dict[str, list[bytes]] = {topic: [] for topic in TOPICS.values()}
    for stream, at in SENT:
        topic = TOPICS[stream]
        found[topic].append(record(stream, at, len(found[topic])))
    return found


async def deliver(worker: Worker, topic: str, first: int, values: list[bytes]) -> None:
    """One chunk of several messages."""
    records = [
        SimpleNamespace(offset=first + number, timestamp=STAMP_MS, key=None, value=value, headers=())
        for number, value in enumerate(values)
    ]
    end = first + len(values)
    worker.log_ends[topic] = worker.fetched[topic] = end
    worker.ends.answered(TP(topic, 0), first, end, records=True, sent_s=worker.now_s)
    chunk = SimpleNamespace(topic=topic, partition=0, records=records, next_offset=end)
    await worker.correlator.handle(chunk, worker.tracker.delivered(TP(topic, 0), first, end))


def last_status(broker: Broker, topic: str, name: str) -> dict[str, str]:
    """The status of each id in the topic, as a reader has it."""
    found = {}
    for each in broker.records[topic]:
        found[orjson.loads(each.value)[name]] = dict(each.headers).get("ce_status", b"final").decode()
    return found


@pytest.mark.parametrize("before_the_snapshot", [0, 2])
async def test_what_a_killed_worker_matched_on_arrival_is_settled_by_the_next_one(before_the_snapshot: int) -> None:
    broker, messages = Broker(), log()
    worker = EventualWorker(broker)
    await worker.start()
    sent = dict.fromkeys(TOPICS.values(), 0)
    for number, (stream, _) in enumerate(SENT[:6]):
        topic = TOPICS[stream]
        await worker.feed(topic, sent[topic], messages[topic][sent[topic]], stamp_ms=STAMP_MS)
        sent[topic] += 1
        if number + 1 == before_the_snapshot:
            worker.now_s += 2
            await worker.tick()
    early = last_status(broker, MULTI_EVENTS, "event_id")
    assert list(early.values()) == ["provisional"] * len(early)
    assert len(early) > 1
    # Killed; the next life is given the same messages in chunks of another size.
    worker = EventualWorker(broker)
    starts = await worker.start()
    for topic, values in messages.items():
        first = starts.get(TP(topic, 0), 0) or 0
        await deliver(worker, topic, first, values[first:])
    wanted = match(STRONG, [{"stream": s, "timestamp": START_US + at * 1_000_000, "key": "k"} for s, at in SENT])
    await worker.after(20)
    found = last_status(broker, MULTI_EVENTS, "event_id")
    assert "provisional" not in found.values()
    assert len([each for each in found.values() if each != "retracted"]) == len(wanted)
    assert set(found.values()) > {"retracted"}
    alerts = last_status(broker, ALERTS, "alert_id")
    assert sorted(alerts.values()) == sorted(found.values())


async def test_after_a_second_kill_what_was_settled_stays_and_matches_of_other_groups_are_left_alone() -> None:
    broker, messages = Broker(), log()
    worker = EventualWorker(broker)
    await worker.start()
    sent = dict.fromkeys(TOPICS.values(), 0)
    for stream, _ in SENT[:6]:
        topic = TOPICS[stream]
        await worker.feed(topic, sent[topic], messages[topic][sent[topic]], stamp_ms=STAMP_MS)
        sent[topic] += 1
    foreign = next(iter(broker.records[MULTI_EVENTS]))
    body = orjson.loads(foreign.value) | {"event_id": "of another group", "correlation_rule": "other"}
    headers = [(name, b"foreign" if name == "ce_id" else value) for name, value in foreign.headers]
    broker.records[MULTI_EVENTS].append(foreign._replace(value=orjson.dumps(body), headers=headers))
    for rounds in range(3):  # the second life settles some and stores a snapshot, the others find these settled
        worker = EventualWorker(broker)
        starts = await worker.start()
        for topic, values in messages.items():
            first = starts.get(TP(topic, 0), 0) or 0
            last = len(values) - (1 if rounds < 2 else 0)
            if values[first:last]:
                await deliver(worker, topic, first, values[first:last])
        worker.now_s += 2
        await worker.tick()
    await worker.after(20)
    found = last_status(broker, MULTI_EVENTS, "event_id")
    assert found.pop("of another group") == "provisional"
    wanted = match(STRONG, [{"stream": s, "timestamp": START_US + at * 1_000_000, "key": "k"} for s, at in SENT])
    assert "provisional" not in found.values()
    assert len([each for each in found.values() if each != "retracted"]) == len(wanted)
