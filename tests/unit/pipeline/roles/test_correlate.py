"""The correlate role without Kafka: when chunks are acknowledged, and what is restored."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from faust.types import TP

from astrocyte.pipeline.state.lost import LostState, SnapshotsLost
from astrocyte.pipeline.state.snapshot_schedule import SnapshotSchedule
from astrocyte.pipeline.state.snapshots import pack_state, parts_of
from astrocyte.pipeline.transport.producer_record import DeliveryFailed, ProducerRecord
from astrocyte.schemas.topics import CLOCK, MULTI_EVENTS, STATS
from tests.support.correlate_role import START_US, TOPICS, Broker, Worker, frame, noted, record
from tests.support.waiting import loop_turns


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


async def test_counts_are_reported_within_seconds_of_a_change_also_where_snapshots_are_far_apart(monkeypatch):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    monkeypatch.setattr(SnapshotSchedule, "stored", lambda self, now_s, **_: setattr(self, "due_s", now_s + 60.0))

    reports: list[dict[str, int]] = []
    for second in range(20):  # no source is silent, so that no record has to show that the broker takes some
        await worker.feed("mono.axon_1", second, frame("axon_1", float(second), second))
        await worker.feed("mono.axon_2", second, frame("axon_2", second + 0.1, second))
        await worker.after(1.0)
        worker.clock_us += 1_000_000
        await worker.correlator.look_for_stalls()
        reports = [orjson.loads(each.value) for each in broker.records[STATS]]
        received = worker.correlator.domains[0].counters.received
        assert received - reports[-1]["received"] <= 2 * 5, "ten events of five seconds"
        assert worker.clock_us - reports[-1]["reported_us"] <= 5_000_000
    assert worker.correlator._domains[0].number == 1, "no snapshot reported that"
    assert len(reports) <= 5, "one report in five seconds is enough"


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
    monkeypatch.setattr("astrocyte.pipeline.roles.correlation.correlate.pack_state", lambda _state: bytes(40 << 20))
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

        monkeypatch.setattr("astrocyte.pipeline.roles.correlation.correlate.pack_state", pack)

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


async def test_the_counters_say_that_nothing_waits_once_the_last_events_came_out_though_they_matched_nothing():
    worker = Worker(broker := Broker())
    await worker.start()
    await worker.feed("mono.axon_1", 0, record("axon_1", 0.0), b"k")
    await worker.after(2.0)
    assert orjson.loads(broker.records[STATS][-1].value)["waiting"] == 1
    await worker.after(6.0)
    assert orjson.loads(broker.records[STATS][-1].value)["waiting"] == 0
    assert broker.records[MULTI_EVENTS] == []


async def test_a_snapshot_of_another_format_is_refused_with_what_to_do():
    broker = Broker()
    for key, value in parts_of("d0", 0, 1, pack_state({"format": 99})):
        broker.records["state"].append(ProducerRecord("state", value, key, 0))
    with pytest.raises(SnapshotsLost, match=r"expected a snapshot of format 10, got 99; .*LOST_STATE=empty"):
        await Worker(broker).start()


def flipped(value: bytes) -> bytes:
    middle = (len(value) + 120) // 2
    return value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda value: value[: len(value) // 2],
        lambda value: b"\xff" + value[1:],
        lambda _: b"",
        lambda value: value[: 2 + int.from_bytes(value[:2], "big")] + pack_state({"format": 8, "fingerprint": b""}),
    ],
    ids=["a flipped bit", "half", "another head", "nothing", "another state"],
)
async def test_a_damaged_snapshot_is_refused_with_what_to_do_and_another_setting_goes_on(damage, caplog):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    assert await stored_after(worker, 2.0)
    broker.records["state"] = [each._replace(value=damage(each.value)) for each in broker.records["state"]]
    with pytest.raises(SnapshotsLost, match=r"partition 0: its state in the topic state.mine .*LOST_STATE=empty"):
        await Worker(broker, LostState("state.mine")).start(7)
    caplog.clear()
    worker = Worker(broker, LostState("state.mine", "empty"))
    assert await worker.start(7) == {TP(topic, 0): 7 for topic in TOPICS.values()}
    assert "cannot be restored" in caplog.text
    assert "Traceback" not in caplog.text
    for offset in (7, 8):  # both slots
        await worker.feed("mono.axon_1", offset, frame("axon_1", float(offset), offset))
        await worker.after(60.0)
    again = Worker(broker, LostState("state.mine"))
    await again.start(7)
    assert again.correlator.domains[0].positions["mono.axon_1"] == 9


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


MATCHED = [("mono.axon_1", 0, 0.0), ("mono.axon_2", 0, 0.1), ("mono.axon_1", 1, 5.0), ("mono.axon_2", 1, 5.0)]
"""Chunks of which the last one brings the first pair."""


def chunk_of(topic: str, offset: int, at_s: float) -> tuple[str, int, bytes]:
    return topic, offset, frame(topic.removeprefix("mono."), at_s, offset)


def hold_up(broker: Broker, monkeypatch, topic: str) -> asyncio.Event:
    """Records for ``topic`` are taken only once the event is set."""
    gate, send_batch = asyncio.Event(), broker.send_batch

    async def waits(to, partition, records):
        if to == topic:
            await gate.wait()
        return await send_batch(to, partition, records)

    monkeypatch.setattr(broker, "send_batch", waits)
    return gate


@pytest.mark.parametrize("topic", [MULTI_EVENTS, CLOCK])
async def test_a_chunk_during_which_the_worker_ends_is_finished_before_the_last_snapshot(monkeypatch, topic):
    broker = Broker()
    gate = hold_up(broker, monkeypatch, topic)
    worker = Worker(broker)
    await worker.start()
    if topic == CLOCK:
        gate.set()
        await worker.feed(*chunk_of(*MATCHED[0]))
        gate.clear()
        await worker.start()  # assigned again, which the next chunk records
        late = MATCHED[1]
    else:
        for chunk in MATCHED[:-1]:
            await worker.feed(*chunk_of(*chunk))
        late = MATCHED[-1]
    work = asyncio.create_task(worker.feed(*chunk_of(*late)))
    await loop_turns(5)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    stopping = asyncio.create_task(worker.correlator.stop())
    await loop_turns(20)
    assert not stopping.done()
    assert broker.records["state"] == []
    gate.set()
    await stopping
    assert worker.committable()[late[0]] == late[1] + 1
    assert len(broker.ids()) == (topic == MULTI_EVENTS)


async def test_a_state_whose_output_was_not_all_handed_over_is_never_stored(monkeypatch):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    for chunk in MATCHED[:-1]:
        await worker.feed(*chunk_of(*chunk))
    with monkeypatch.context() as patch:
        send_batch = broker.send_batch

        async def refuses(topic, partition, records):
            if topic == MULTI_EVENTS:
                raise DeliveryFailed("the producer was closed")
            return await send_batch(topic, partition, records)

        patch.setattr(worker.correlator, "_send_batch", refuses)
        with pytest.raises(DeliveryFailed):
            await worker.feed(*chunk_of(*MATCHED[-1]))
    await worker.correlator.stop()
    assert broker.records["state"] == []
    assert worker.committable() == {"mono.axon_1": None, "mono.axon_2": None}
    # Reading begins anew in the same process: from the last snapshot, which there is none of.
    assert await worker.start() == {}
    for chunk in MATCHED:
        await worker.feed(*chunk_of(*chunk))
    assert len(broker.ids()) == 1


async def test_a_snapshot_that_was_cut_off_is_stored_at_the_end(monkeypatch):
    broker = Broker()
    worker = Worker(broker)
    await worker.start()
    broker.held = []
    for chunk in MATCHED:
        await worker.feed(*chunk_of(*chunk))
    storing = asyncio.create_task(worker.after(2.0))
    await loop_turns(50)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    for future in broker.held:
        assert not future.cancelled()
        future.set_result(None)
    broker.held = None
    await worker.correlator.stop()
    assert worker.committable() == {"mono.axon_1": 2, "mono.axon_2": 2}
