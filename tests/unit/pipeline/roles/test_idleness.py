"""What the correlate role takes for idle, and when it goes on without a topic or a producer."""

from collections.abc import Collection

import pytest
from faust.types import TP

from tests.support.correlate_role import START_US, TOPICS, Broker, Worker, frame, noted, record


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


async def is_idle_once_the_timeout_has_passed(worker: Worker, before: Collection[str] = ()) -> None:
    """Every topic becomes idle, and those that are not ``before`` do so 5 s from now."""
    await worker.after(4.5)
    assert idle_topics(worker) == set(before)
    await worker.after(1.5)
    assert idle_topics(worker) == set(TOPICS.values())


async def only_the_first_sends(worker: Worker) -> None:
    """One topic has an event in each second, until the other one is idle."""
    for number in range(1, 8):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
        await worker.after(1.0)
    assert idle_topics(worker) == {"mono.axon_2"}


async def nothing_of_what_both_sent_meanwhile_is_late(worker: Worker) -> None:
    """It comes topic by topic, the busy one first."""
    for number in range(8, 20):
        await worker.feed("mono.axon_1", number, record("axon_1", float(number)), b"k")
    for number in range(1, 12):
        await worker.feed("mono.axon_2", number, record("axon_2", number + 7.5), b"k")
    assert worker.correlator.domains[0].counters.late == 0


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
    await is_idle_once_the_timeout_has_passed(worker)


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
    await is_idle_once_the_timeout_has_passed(worker, before={"mono.axon_2"})


async def test_a_rebalance_begins_the_timeout_anew():
    worker = await both_heard()
    await worker.after(4.5)
    await worker.correlator.assigned({TP("mono.axon_1", 0): 1})
    await worker.after(2.0)
    assert idle_topics(worker) == {"mono.axon_2"}


async def test_an_idle_topic_that_was_not_fetched_for_a_while_delays_event_time_again():
    broker = Broker()
    worker = await both_heard(broker)
    await only_the_first_sends(worker)
    await worker.stands_still(15.0)
    await nothing_of_what_both_sent_meanwhile_is_late(worker)
    assert noted(broker)[-1]["active"] == ["mono.axon_2"]


async def test_a_restarted_worker_waits_for_a_topic_that_was_idle_before():
    broker = Broker()
    worker = await both_heard(broker)
    await only_the_first_sends(worker)
    await worker.correlator.stop()
    successor = Worker(broker)
    await successor.start()
    await nothing_of_what_both_sent_meanwhile_is_late(successor)


async def test_a_broker_that_takes_no_records_makes_nobody_idle_and_gives_producers_the_timeout_to_return():
    broker = Broker()
    worker = await both_heard(broker)
    broker.held = []
    await worker.after(20.0)
    assert idle_topics(worker) == set()
    for future in broker.held:
        future.set_result(None)
    broker.held = None
    await is_idle_once_the_timeout_has_passed(worker)


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
