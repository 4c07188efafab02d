"""A consumer on the embedded broker: patterns, groups, restarts, new topics, failures."""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextlib import contextmanager

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaTimeoutError

import astrocyte
from astrocyte.pipeline.embed.consumer import HandlerFailed
from astrocyte.pipeline.kafka.client import ensure_topics, producer_client
from astrocyte.pipeline.simulation.publish import KafkaSink
from tests.support.waiting import eventually, wait_until


@pytest.fixture
def prefix() -> str:
    return f"x{uuid.uuid4().hex[:8]}"


@contextmanager
def running(consumer: astrocyte.Consumer):
    failure: list[BaseException] = []

    def run():
        try:
            consumer.run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield failure
    finally:
        consumer.stop()
        thread.join(30)
        assert not thread.is_alive()


def collecting(consumer: astrocyte.Consumer, *patterns: str) -> list[astrocyte.Event]:
    events: list[astrocyte.Event] = []
    consumer.on(*patterns)(events.append)
    return events


async def make(address: str, *streams: str) -> None:
    await ensure_topics(address, {f"mono.{stream}": 2 for stream in streams})


def test_frames_and_records_of_matching_streams_arrive_with_their_place_and_values(embedded_address, prefix):
    consumer = astrocyte.Consumer(embedded_address, start="earliest")
    events = collecting(consumer, f"{prefix}.*")
    with astrocyte.connect(embedded_address) as publisher:
        publisher.emit(f"{prefix}.a", {"value": 1, "list": [1, {"b": 2}], "text": "[1"}, key="k")
        publisher.emit(f"{prefix}other", {"value": 2})
        assert publisher.flush(30)
    columns = {"timestamp": np.array([5, 6]), "key": ["k", "l"], "type": ["A", "B"], "value": [0.5, 1.5]}
    with KafkaSink(embedded_address) as sink:
        sink.write(astrocyte.Frame.from_columns(f"{prefix}.b", "run-1", columns))
    with running(consumer):
        wait_until(lambda: len(events) == 3)
    by_value = {event.fields["value"]: event for event in events}
    first = by_value[1]
    assert (first.stream, first.key, first.type, first.topic) == (f"{prefix}.a", "k", f"{prefix}.a", f"mono.{prefix}.a")
    assert first.fields == {"value": 1, "list": [1, {"b": 2}], "text": "[1"}
    assert (by_value[0.5].time_us, by_value[0.5].type, by_value[1.5].key) == (5, "A", "l")
    counts = consumer.counts
    assert (counts.received, counts.handled, counts.failed) == (3, 3, 0)


@pytest.mark.parametrize("group", [None, "late"])
def test_a_consumer_that_gets_no_answer_about_the_ends_asks_again_and_reads_nothing_older(
    embedded_address, prefix, monkeypatch, group
):
    asked = []
    answered = AIOKafkaConsumer.end_offsets

    async def end_offsets(client, places):
        asked.append(places)
        if len(asked) == 1:
            raise KafkaTimeoutError
        return await answered(client, places)

    with astrocyte.connect(embedded_address) as publisher:
        publisher.emit(f"{prefix}.a", {"value": 0})
        assert publisher.flush(30)
        consumer = astrocyte.Consumer(embedded_address, group=group and f"{prefix}-{group}")
        events = collecting(consumer, f"{prefix}.*")
        monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", end_offsets)
        with running(consumer) as failure:
            assert consumer.is_ready.wait(30), failure
            publisher.emit(f"{prefix}.a", {"value": 1})
            wait_until(lambda: events)
    assert [event.fields["value"] for event in events] == [1]
    assert len(asked) > 1


def test_a_new_group_that_begins_at_the_end_says_what_it_does_not_handle(embedded_address, prefix, caplog):
    def lines() -> list[str]:
        return [line for line in caplog.messages if line.startswith(f"group {prefix}")]

    with astrocyte.connect(embedded_address) as publisher:
        for value in range(3):
            publisher.emit(f"{prefix}.a", {"value": value})
        assert publisher.flush(30)
    for start in ("earliest", "latest", "latest"):
        group = f"{prefix}-{'first' if start == 'earliest' else 'second'}"
        consumer = astrocyte.Consumer(embedded_address, group=group, start=start)
        collecting(consumer, f"{prefix}.*")
        before = len(lines())
        with running(consumer) as failure:
            assert consumer.is_ready.wait(30), failure
            # It commits where it begins, so that it is no new group any more, before it handles the first event.
            with astrocyte.connect(embedded_address) as publisher:
                publisher.emit(f"{prefix}.a", {"value": 9})
            wait_until(lambda: consumer.counts.handled)  # noqa: B023  called in this turn
        if before:
            assert len(lines()) == before
    (line,) = lines()
    assert line.startswith(
        f"group {prefix}-second is new and begins at the end of its topics: 4 earlier messages of mono."
    )
    assert 'start="earliest"' in line


def test_json_fields_of_the_catalog_are_values(embedded_address):
    consumer = astrocyte.Consumer(embedded_address)
    agent = uuid.uuid4().hex
    events = []

    @consumer.on("dna.*")
    def keep(event):
        if event.key == agent:
            events.append(event)

    asyncio.run(make(embedded_address, "dna.mutation_applied"))
    with running(consumer), astrocyte.connect(embedded_address) as publisher:
        assert consumer.is_ready.wait(30)
        publisher.dna.mutation_applied(
            snapshot_id=2, agent_id=agent, version=2, parent_snapshot_id=1, mutation_keys=["a", "b"],
            traits_delta={"creativity": 0.5}, created_at=1.5e9,
        )  # fmt: skip
        wait_until(lambda: events)
    assert events[0].fields["mutation_keys"] == ["a", "b"]
    assert events[0].fields["traits_delta"] == {"creativity": 0.5}


def test_without_a_group_a_consumer_begins_at_the_end_and_reads_new_topics_from_their_beginning(
    embedded_address, prefix
):
    with astrocyte.connect(embedded_address) as publisher:
        publisher.emit(f"{prefix}.old", {"value": 0})
        assert publisher.flush(30)
        consumer = astrocyte.Consumer(embedded_address)
        events = collecting(consumer, f"{prefix}.*")
        with running(consumer):
            assert consumer.is_ready.wait(30)
            publisher.emit(f"{prefix}.old", {"value": 1})
            publisher.emit(f"{prefix}.new", {"value": 2})
            wait_until(lambda: len(events) == 2)
    assert sorted(event.fields["value"] for event in events) == [1, 2]


def test_a_group_continues_where_it_was_and_shares_nothing_twice(embedded_address, prefix):
    asyncio.run(make(embedded_address, prefix))
    seen: list[int] = []
    with astrocyte.connect(embedded_address) as publisher:
        for first in (0, 100, 200):
            for n in range(first, first + 100):
                publisher.emit(prefix, {"value": n}, key=str(n))
            assert publisher.flush(30)
            consumer = astrocyte.Consumer(embedded_address, group=prefix, start="earliest")
            events = collecting(consumer, prefix)
            with running(consumer):
                wait_until(lambda: len(events) >= 100)  # noqa: B023
            seen += [event.fields["value"] for event in events]
    assert sorted(seen) == list(range(300))


def test_a_handler_that_raises_is_counted_and_the_consumer_goes_on(embedded_address, prefix, caplog):
    consumer = astrocyte.Consumer(embedded_address, start="earliest")
    good = collecting(consumer, prefix)

    @consumer.on(prefix)
    async def broken(event):
        if event.fields["value"] % 2:
            raise ValueError("odd")

    with astrocyte.connect(embedded_address) as publisher:
        for n in range(10):
            publisher.emit(prefix, {"value": n})
        assert publisher.flush(30)
    with running(consumer):
        wait_until(lambda: consumer.counts.received == 10)
    assert (consumer.counts.handled, consumer.counts.failed) == (5, 5)
    assert len(good) == 10
    assert caplog.text.count("broken raised ValueError") == 1


def test_a_consumer_that_stops_at_a_failure_gets_the_event_again(embedded_address, prefix):
    with astrocyte.connect(embedded_address) as publisher:
        publisher.emit(prefix, {"value": 1})
        assert publisher.flush(30)
    consumer = astrocyte.Consumer(embedded_address, group=prefix, start="earliest", on_error="stop")

    @consumer.on(prefix)
    def broken(event):
        raise ValueError("no")

    with running(consumer) as failure:
        wait_until(lambda: failure)
    assert isinstance(failure[0], HandlerFailed)
    assert "ValueError: no for mono." in str(failure[0])
    again = astrocyte.Consumer(embedded_address, group=prefix, start="earliest")
    events = collecting(again, prefix)
    with running(again):
        wait_until(lambda: events)
    assert [event.fields["value"] for event in events] == [1]


def test_a_message_that_is_no_event_is_counted(embedded_address, prefix):
    async def send():
        await make(embedded_address, prefix)
        async with producer_client(embedded_address) as producer:
            await producer.send_and_wait(f"mono.{prefix}", b"no json")
            await producer.send_and_wait(f"mono.{prefix}", b'{"value": 1}')

    asyncio.run(send())
    consumer = astrocyte.Consumer(embedded_address, start="earliest")
    events = collecting(consumer, prefix)
    with running(consumer):
        wait_until(lambda: events and consumer.counts.unreadable == 1)
    assert consumer.counts.received == 1


async def test_alerts_are_handled_in_the_callers_event_loop_where_they_are_named(own_embedded):
    consumer = astrocyte.Consumer(own_embedded.address, start="earliest")
    alerts, others = [], []
    here = asyncio.get_running_loop()

    @consumer.on("alerts")
    async def show(event):
        assert asyncio.get_running_loop() is here
        alerts.append(event.fields)

    consumer.on("*")(others.append)
    await ensure_topics(own_embedded.address, {"alerts": 1, "dead_letters": 1})
    async with producer_client(own_embedded.address) as producer:
        await producer.send_and_wait(
            "alerts", b'{"alert_id":"1","timestamp":"2026-01-01T00:00:00Z","severity":"critical","message":"hot"}'
        )
        await producer.send_and_wait("dead_letters", b'{"reason":"x"}')
    serving = asyncio.create_task(consumer.serve())
    await eventually(lambda: alerts)
    consumer.stop()
    await asyncio.wait_for(serving, 30)
    assert (alerts[0]["severity"], alerts[0]["message"]) == ("critical", "hot")
    assert {event.stream for event in others} <= {"alerts"}


@pytest.mark.parametrize("grouped", [True, False])
def test_a_consumer_outlives_its_broker(own_embedded, prefix, grouped):
    asyncio.run(make(own_embedded.address, prefix))
    consumer = astrocyte.Consumer(own_embedded.address, group=prefix if grouped else None, start="earliest")
    events = collecting(consumer, prefix)
    with astrocyte.connect(own_embedded.address) as publisher, running(consumer):
        publisher.emit(prefix, {"value": 1})
        wait_until(lambda: len(events) == 1)
        own_embedded.kill()
        publisher.emit(prefix, {"value": 2})
        own_embedded.start()
        wait_until(lambda: {event.fields["value"] for event in events} == {1, 2}, 60)


@pytest.mark.parametrize("group", [True, False])
def test_a_topic_that_appears_does_not_begin_the_others_again(embedded_address, prefix, group):
    with astrocyte.connect(embedded_address) as publisher:
        publisher.emit(f"{prefix}.old", {"value": 0})
        assert publisher.flush(30)
        consumer = astrocyte.Consumer(embedded_address, group=prefix if group else None)
        events = collecting(consumer, f"{prefix}.*")
        with running(consumer):
            assert consumer.is_ready.wait(30)
            for n in range(1, 4):
                publisher.emit(f"{prefix}.new{n}", {"value": n})
                wait_until(lambda: len(events) == n)  # noqa: B023
            publisher.emit(f"{prefix}.old", {"value": 4})
            wait_until(lambda: len(events) >= 4)
    assert [event.fields["value"] for event in events] == [1, 2, 3, 4]
