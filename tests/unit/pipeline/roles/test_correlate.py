"""The correlate role without Kafka: when chunks are acknowledged, what is restored, what counts as idle."""

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from faust.types import TP

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.roles.correlate import Correlator
from astrocyte.pipeline.state.lost import LostState, SnapshotsLost
from astrocyte.pipeline.state.snapshots import SnapshotParts, pack_state, parts_of
from astrocyte.pipeline.transport.commits import CommitTracker
from astrocyte.pipeline.transport.partition_ends import PartitionEnds
from astrocyte.pipeline.transport.producer_record import ProducerRecord
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.topics import CLOCK, MULTI_EVENTS, STATS
from tests.support.waiting import loop_turns

START_US = 1_750_000_000_000_000
TOPICS = {"axon_1": "mono.axon_1", "axon_2": "mono.axon_2"}
RULES = load_rules("rules: [{name: both, within: 1s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2}]}]")


class Broker:
    """Keeps produced messages; confirmations can be delayed."""

    def __init__(self) -> None:
        self.records: dict[str, list[ProducerRecord]] = defaultdict(list)
        self.held: list[asyncio.Future] | None = None
        self.waits = lambda: None
        """Called before a snapshot is stored."""

    async def send_batch(self, topic, _partition, records):
        self.records[topic] += records
        future = asyncio.get_running_loop().create_future()
        if self.held is None:
            future.set_result(None)
        else:
            self.held.append(future)
        return [future]

    async def deliver(self, records):
        self.waits()
        for record in records:
            self.records[record.topic].append(record)

    def messages(self, partition, number, data):
        return [
            ProducerRecord("state", value, key, partition)
            for key, value in parts_of(f"d{partition}", number % 2, number, data)
        ]

    async def load(self, partition):
        parts = SnapshotParts()
        parts.add_all((record.key, record.value) for record in self.records["state"])
        return parts.newest(f"d{partition}")

    def ids(self) -> list[str]:
        return [orjson.loads(record.value)["event_id"] for record in self.records[MULTI_EVENTS]]


class Worker:
    """One run of a worker over a broker, in virtual time."""

    def __init__(self, broker: Broker, lost: LostState | None = None) -> None:
        self.now_s = 0.0
        self.clock_us = START_US
        self.tracker: CommitTracker = CommitTracker()
        self.ends = PartitionEnds(monotonic=lambda: self.now_s)
        self.fetched = dict.fromkeys(TOPICS.values(), 0)
        """Where the next fetch of each topic begins."""
        self.log_ends = dict.fromkeys(TOPICS.values(), 0)
        self.correlator = Correlator(
            self._domain, broker, broker.send_batch, broker.deliver, self.at_end, partitions=1,
            snapshot_interval_us=1_000_000, idle_timeout_us=5_000_000, producer_timeout_us=60_000_000,
            monotonic=lambda: self.now_s, now_us=lambda: self.clock_us, lost=lost,
        )  # fmt: skip

    @staticmethod
    def _domain(partition: int) -> Domain:
        return Domain(partition, [DomainGroup("key", Engine(RULES), TOPICS)], topics=TOPICS.values())

    async def start(self, done: int | None = None) -> dict[TP, int]:
        committed = {TP(topic, 0): done for topic in TOPICS.values()}
        starts = await self.correlator.assigned(committed)
        for place in committed:
            self.tracker.assign(place, starts.get(place, 0), None)
            self.fetched[place.topic] = starts.get(place, 0)
        return starts

    def at_end(self, place):
        """What the transport's consumer says."""
        end = self.ends.at_end(TP(*place))
        if end is None or end.offset != self.tracker.position(TP(*place)):
            return None
        return replace(end, delivered=self.tracker.delivered_to(TP(*place)))

    def deliver(self, topic: str, offset: int, value: bytes, key: bytes | None = None, stamp_ms: int = 0):
        """A chunk of one record was fetched and waits in the agent's queue."""
        record = SimpleNamespace(offset=offset, timestamp=stamp_ms, key=key, value=value, headers=())
        self.log_ends[topic] = max(self.log_ends[topic], offset + 1)
        self.fetched[topic] = offset + 1
        self.ends.answered(TP(topic, 0), offset, offset + 1, records=True, sent_s=self.now_s)
        chunk = SimpleNamespace(topic=topic, partition=0, records=[record], next_offset=offset + 1)
        return chunk, self.tracker.delivered(TP(topic, 0), offset, offset + 1)

    async def feed(self, topic: str, offset: int, value: bytes, key: bytes | None = None, stamp_ms: int = 0) -> None:
        await self.correlator.handle(*self.deliver(topic, offset, value, key, stamp_ms))

    def answer(self, *topics: str) -> None:
        """The broker answers a fetch that finds nothing to return."""
        for topic in topics or TOPICS.values():
            self.ends.answered(
                TP(topic, 0), self.fetched[topic], self.log_ends[topic], records=False, sent_s=self.now_s
            )

    async def tick(self) -> None:
        await self.correlator.tick()
        await loop_turns(5)

    async def after(self, seconds: float, *topics: str) -> None:
        """Time passes in which fetches are answered, of all topics or of these."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 0.1)
            self.answer(*topics)
            await self.tick()

    async def stands_still(self, seconds: float) -> None:
        """Time passes in which nothing runs here, and then the timer is the first to run."""
        self.now_s += seconds
        await self.tick()

    def committable(self) -> dict[str, int | None]:
        return {place.topic: self.tracker.committable(place) for place in self.tracker.partitions}


def frame(stream: str, at_s: float, sequence: int, **meta) -> bytes:
    columns = {"timestamp": np.array([START_US + int(at_s * 1e6)]), "key": ["k"], "value": [1.0]}
    meta = {"watermark_us": START_US + int(at_s * 1e6), "peers": tuple(TOPICS), "origin": "run"} | meta
    return encode_frame(Frame.from_columns(stream, "run", columns, first_seq=sequence, **meta))


def record(stream: str, at_s: float, sequence: int = 0) -> bytes:
    columns = {"timestamp": np.array([START_US + int(at_s * 1e6)]), "key": ["k"], "value": [1.0]}
    return frame_to_records(Frame.from_columns(stream, "json", columns, first_seq=sequence))[0].value


async def test_a_chunk_is_acknowledged_once_its_outputs_and_a_snapshot_are_confirmed():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    broker.held = []
    await worker.feed("mono.axon_1", 0, frame("axon_1", 0.0, 0))
    await worker.feed("mono.axon_2", 0, frame("axon_2", 0.1, 0))
    await worker.feed("mono.axon_1", 1, frame("axon_1", 5.0, 1))
    await worker.feed("mono.axon_2", 1, frame("axon_2", 5.0, 1))
    assert len(broker.ids()) == 1
    storing = asyncio.create_task(worker.after(2.0))
    # Turns of the loop and of its only thread, enough for a store that does not wait for the confirmations.
    with ThreadPoolExecutor(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        for _ in range(10):
            await loop_turns(10)
            await asyncio.to_thread(bool)
    assert worker.committable() == {"mono.axon_1": None, "mono.axon_2": None}
    assert broker.records["state"] == []
    for future in broker.held:
        future.set_result(None)
    await storing
    assert worker.committable() == {"mono.axon_1": 2, "mono.axon_2": 2}
    (stats,) = broker.records[STATS]
    assert orjson.loads(stats.value)["processed"] == 4


async def test_a_killed_worker_is_continued_from_its_snapshot_with_the_same_events():
    chunks = [
        (f"mono.{stream}", number, frame(stream, 0.4 * number + 0.1 * (stream == "axon_2"), number))
        for number in range(12)
        for stream in TOPICS
    ]
    whole = Broker()
    worker = Worker(whole)
    await worker.start()
    for chunk in chunks:
        await worker.feed(*chunk)
    expected = whole.ids()
    assert len(expected) > 5

    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    for chunk in chunks[:9]:
        await worker.feed(*chunk)
    await worker.after(2.0)
    for chunk in chunks[9:15]:
        await worker.feed(*chunk)  # what these led to is out, and no snapshot holds it
    successor = Worker(broker)
    starts = await successor.start()
    assert starts == {TP("mono.axon_1", 0): 5, TP("mono.axon_2", 0): 4}
    for topic, offset, value in chunks:
        if offset >= starts[TP(topic, 0)]:
            await successor.feed(topic, offset, value)
    assert sorted(set(broker.ids())) == sorted(expected)
    assert successor.correlator.domains[0].counters.processed == 24


def noted(broker: Broker) -> list[dict]:
    """What was decided about idleness."""
    return [orjson.loads(item.value) for item in broker.records[CLOCK]]


async def stored_after(worker: Worker, seconds: float) -> bool:
    """Whether new input leads to a snapshot after so long."""
    before = worker.correlator._domains[0].number
    await worker.feed("mono.axon_1", before, frame("axon_1", float(before), before))
    await worker.after(seconds)
    return worker.correlator._domains[0].number > before


async def test_waiting_for_an_unavailable_broker_is_no_cost_of_a_snapshot():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()

    def outage() -> None:
        worker.now_s += 300.0

    assert await stored_after(worker, 2.0)
    broker.waits = outage
    assert await stored_after(worker, 2.0)
    broker.waits = lambda: None
    assert await stored_after(worker, 2.0)


async def test_storing_a_large_state_is_a_cost_by_its_size_however_long_the_broker_was_away(monkeypatch):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()

    def outage() -> None:
        worker.now_s += 300.0

    broker.waits = outage
    monkeypatch.setattr("astrocyte.pipeline.roles.correlate.pack_state", lambda _state: bytes(40 << 20))
    assert await stored_after(worker, 2.0)
    assert not await stored_after(worker, 19.0)
    assert await stored_after(worker, 2.0)


async def test_a_large_state_is_stored_less_often_but_at_least_once_a_minute(monkeypatch):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()

    def slow(seconds: float) -> None:
        def pack(state):
            worker.now_s += seconds
            return pack_state(state)

        monkeypatch.setattr("astrocyte.pipeline.roles.correlate.pack_state", pack)

    slow(2.0)
    assert await stored_after(worker, 2.0)
    assert not await stored_after(worker, 19.0)
    slow(40.0)
    assert await stored_after(worker, 2.0)
    assert not await stored_after(worker, 59.0)
    assert await stored_after(worker, 2.0)


async def test_revoked_domains_store_a_last_snapshot_and_acknowledge():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    await worker.feed("mono.axon_1", 0, frame("axon_1", 0.0, 0))
    await worker.correlator.revoked([TP("mono.axon_1", 0), TP("mono.axon_2", 0)])
    assert worker.committable()["mono.axon_1"] == 1
    assert worker.correlator.domains == {}
    assert broker.records["state"]


async def test_a_topic_assigned_later_does_not_change_the_domain():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    await worker.feed("mono.axon_1", 0, frame("axon_1", 0.0, 0))
    starts = await worker.correlator.assigned({TP("mono.axon_1", 0): None})
    assert starts == {TP("mono.axon_1", 0): 1}
    assert worker.correlator.domains[0].counters.processed == 1


async def test_idle_topics_of_other_programs_do_not_delay_the_watermark_and_are_recorded_as_idle():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    await worker.feed("mono.axon_1", 0, record("axon_1", 0.0), b"k", START_US // 1000)
    await worker.feed("mono.axon_2", 0, record("axon_2", 0.2), b"k", START_US // 1000)
    await worker.after(1.0)
    assert broker.ids() == []
    await worker.after(6.0)
    await worker.after(1.0)
    assert len(broker.ids()) == 1
    (idle,) = (entry for entry in noted(broker) if entry["idle"])
    assert sorted(idle["idle"]) == sorted(TOPICS.values())


async def test_an_event_whose_kafka_time_the_clock_has_reached_is_accepted_and_this_is_recorded():
    worker = Worker(broker := Broker())
    await worker.start()
    hours = 3 * 3600
    for offset, (at_s, key) in enumerate([(0.0, b"k"), (0.1, b"j"), (hours, b"k")]):
        stamp_ms = START_US // 1000 + int(at_s * 1000)
        await worker.feed("mono.axon_1", offset, record("axon_1", at_s, offset), key, stamp_ms)
    domain = worker.correlator.domains[0]
    await worker.after(1.0)
    assert (domain.waiting, domain.counters.processed) == (1, 2)
    worker.clock_us += hours * 1_000_000
    await worker.after(1.0)
    assert (domain.waiting, domain.counters.processed) == (0, 3)
    assert [entry["trusted_us"] for entry in noted(broker) if entry["trusted_us"]] == [worker.clock_us]


async def test_a_producer_that_asserts_watermarks_is_waited_for_until_its_timeout():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    await worker.feed("mono.axon_1", 0, frame("axon_1", 0.0, 0))
    await worker.feed("mono.axon_2", 0, frame("axon_2", 0.2, 0))
    await worker.after(30.0)
    await worker.after(1.0)
    assert broker.ids() == []
    await worker.after(40.0)
    await worker.after(1.0)
    assert len(broker.ids()) == 1


async def test_a_topic_without_messages_does_not_stop_the_others():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    for number in range(4):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
    assert worker.correlator.domains[0].watermark_us < 0
    await worker.after(6.0)
    await worker.feed("mono.axon_1", 4, record("axon_1", 4.0), b"k")
    await worker.after(6.0)
    assert worker.correlator.domains[0].watermark_us >= START_US + 4_000_000


async def both_heard(broker: Broker | None = None) -> Worker:
    """A worker that has processed an event of each topic, which are at their ends."""
    worker = Worker(broker or Broker())
    await worker.start()
    await worker.feed("mono.axon_1", 0, record("axon_1", 0.0), b"k")
    await worker.feed("mono.axon_2", 0, record("axon_2", 0.2), b"k")
    return worker


def idle_topics(worker: Worker) -> set[str]:
    return {place.topic for place in worker.correlator._domains[0].sources.idle}


async def test_a_topic_is_idle_half_a_second_after_the_timeout_at_the_latest():
    worker = await both_heard()
    await worker.after(5.0)
    assert idle_topics(worker) == set()
    await worker.after(0.5)
    assert idle_topics(worker) == set(TOPICS.values())


@pytest.mark.parametrize("seconds", [7.0, 15.0])
async def test_a_process_that_stood_still_finds_nothing_idle_and_nothing_late(seconds):
    worker = await both_heard()
    await worker.after(3.0)
    await worker.stands_still(seconds)
    assert idle_topics(worker) == set()
    for number in range(1, 10):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
    await worker.tick()
    for number in range(1, 10):
        await worker.feed("mono.axon_2", number, record("axon_2", number + 0.2), b"k")
    assert worker.correlator.domains[0].counters.late == 0


async def test_the_time_in_which_no_fetch_is_answered_counts_for_nothing():
    worker = await both_heard()
    await worker.after(4.5)
    await worker.stands_still(7.0)
    await worker.after(4.5)
    assert idle_topics(worker) == set()
    await worker.after(1.5)
    assert idle_topics(worker) == set(TOPICS.values())


async def test_a_topic_that_waits_in_the_broker_is_not_idle_however_old_its_last_chunk_is():
    worker = await both_heard()
    worker.log_ends["mono.axon_1"] = 50
    await worker.after(20.0)
    assert idle_topics(worker) == {"mono.axon_2"}


async def test_a_chunk_that_waits_in_the_queue_of_a_busy_worker_keeps_its_topic_from_being_idle():
    worker = await both_heard()
    chunk, delivery = worker.deliver("mono.axon_1", 1, record("axon_1", 1.0), b"k")
    await worker.after(20.0)
    assert idle_topics(worker) == {"mono.axon_2"}
    await worker.correlator.handle(chunk, delivery)
    await worker.after(4.5)
    assert idle_topics(worker) == {"mono.axon_2"}
    await worker.after(1.5)
    assert idle_topics(worker) == set(TOPICS.values())


async def test_a_rebalance_begins_the_timeout_anew():
    worker = await both_heard()
    await worker.after(4.5)
    await worker.correlator.assigned({TP("mono.axon_1", 0): 1})
    await worker.after(2.0)
    assert idle_topics(worker) == {"mono.axon_2"}


async def test_an_idle_topic_that_was_not_fetched_for_a_while_delays_event_time_again():
    broker = Broker()
    worker = await both_heard(broker)
    for number in range(1, 8):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
        await worker.after(1.0)
    assert idle_topics(worker) == {"mono.axon_2"}
    await worker.stands_still(15.0)
    # What was sent meanwhile comes topic by topic, the busy one first.
    for number in range(8, 20):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
    for number in range(1, 12):
        await worker.feed("mono.axon_2", number, record("axon_2", number + 7.5), b"k")
    assert worker.correlator.domains[0].counters.late == 0
    assert noted(broker)[-1]["active"] == ["mono.axon_2"]


async def test_a_restarted_worker_waits_for_a_topic_that_was_idle_before():
    broker = Broker()
    worker = await both_heard(broker)
    for number in range(1, 8):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
        await worker.after(1.0)
    assert idle_topics(worker) == {"mono.axon_2"}
    await worker.correlator.stop()
    successor = Worker(broker)
    await successor.start()
    for number in range(8, 20):
        await successor.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
    for number in range(1, 12):
        await successor.feed("mono.axon_2", number, record("axon_2", number + 7.5), b"k")
    assert successor.correlator.domains[0].counters.late == 0


async def test_a_broker_that_takes_no_records_makes_nobody_idle_and_gives_producers_the_timeout_to_return():
    broker = Broker()
    worker = await both_heard(broker)
    broker.held = []
    await worker.after(20.0)
    assert idle_topics(worker) == set()
    for future in broker.held:
        future.set_result(None)
    broker.held = None
    await worker.after(4.5)
    assert idle_topics(worker) == set()
    await worker.after(1.5)
    assert idle_topics(worker) == set(TOPICS.values())


async def test_a_lone_producer_that_returns_after_the_timeout_is_not_late():
    worker = await both_heard()
    await worker.after(8.0)
    assert idle_topics(worker) == set(TOPICS.values())
    await worker.feed("mono.axon_2", 1, record("axon_2", 8.3), b"k")
    await worker.feed("mono.axon_1", 1, record("axon_1", 8.21), b"k")
    assert worker.correlator.domains[0].counters.late == 0


async def test_how_far_event_time_came_in_a_pause_is_recorded_when_it_ends():
    broker = Broker()
    worker = await both_heard(broker)
    await worker.after(20.0)
    await worker.feed("mono.axon_1", 1, record("axon_1", 30.0), b"k")
    last = noted(broker)[-1]
    assert last["until_us"] == pytest.approx(START_US + 20_200_000, abs=200_000)
    assert sorted(last["active"]) == sorted(TOPICS.values())
    assert last["positions"] == {"mono.axon_1": 1, "mono.axon_2": 1}


async def test_a_snapshot_of_another_format_is_refused_with_what_to_do():
    broker = Broker()
    for key, value in parts_of("d0", 0, 1, pack_state({"format": 99})):
        broker.records["state"].append(ProducerRecord("state", value, key, 0))
    with pytest.raises(AstrocyteError, match=r"expected a snapshot of format 7, got 99; .*delete the state topic"):
        await Worker(broker).start()


async def test_committed_offsets_without_a_snapshot_are_refused_with_what_to_do():
    worker = Worker(Broker(), LostState("state.mine"))
    with pytest.raises(SnapshotsLost, match=r"mono.axon_1 7, .* state.mine holds no state .*LOST_STATE=empty"):
        await worker.start(7)
    assert worker.correlator.domains == {}


async def test_a_worker_goes_on_without_its_snapshots_where_the_settings_say_so(caplog):
    worker = Worker(Broker(), LostState("state.mine", "empty"))
    assert await worker.start(7) == {TP(topic, 0): 7 for topic in TOPICS.values()}
    assert "with an empty state" in caplog.text


async def test_a_first_start_and_a_start_from_a_snapshot_need_no_permission():
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    assert await stored_after(worker, 2.0)
    again = Worker(broker)
    assert (await again.start(1))[TP("mono.axon_1", 0)] == 1
