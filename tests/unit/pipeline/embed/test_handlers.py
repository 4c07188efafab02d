"""Handlers in the process that publishes: patterns, order, failures; without a broker."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

import astrocyte
from astrocyte.schemas.errors import InvalidSettings
from tests.support.brokers import NOWHERE
from tests.support.waiting import loop_turns, wait_until


@pytest.fixture
def publisher():
    with astrocyte.connect(NOWHERE, close_timeout_s=0) as made:
        yield made


def test_events_reach_the_handlers_whose_pattern_matches_each_once_and_in_order(publisher):
    seen: dict[str, list] = {"dna": [], "exact": [], "all": []}

    @publisher.on("dna.*")
    @publisher.on("dna.karma_updated")
    async def dna(event):
        await loop_turns(1)
        seen["dna"].append(event.fields["snapshot_id"])

    @publisher.on("rooms")
    def exact(event):
        seen["exact"].append((event.key, event.type, event.fields))

    @publisher.on("rooms", "dna.*")
    def everything(event):
        seen["all"].append(event.stream)

    for number in range(3):
        publisher.dna.karma_updated(snapshot_id=number, agent_id="a", version=1, karma_score=0.5, updated_at=1.0)
        publisher.emit("rooms", {"value": number, "list": [number]}, key="attic")
        publisher.emit("others", {"value": number})
    wait_until(lambda: publisher.handler_counts.buffered == 0)
    assert not publisher.flush(0)  # the broker has nothing
    counts = publisher.handler_counts
    assert (counts.emitted, counts.delivered, counts.buffered) == (6, 6, 0)
    assert seen["dna"] == [0, 1, 2]
    assert seen["exact"] == [("attic", "rooms", {"value": number, "list": [number]}) for number in range(3)]
    assert seen["all"] == ["dna.karma_updated", "rooms"] * 3


def test_a_handler_that_raises_is_logged_once_and_counted_and_the_others_are_called(publisher, caplog):
    caplog.set_level(logging.WARNING)
    seen = []

    @publisher.on("rooms")
    def broken(event):
        raise ValueError(event.fields["value"])

    @publisher.on("rooms")
    def good(event):
        seen.append(event.fields["value"])

    for number in range(3):
        publisher.emit("rooms", {"value": number})
    wait_until(lambda: publisher.handler_counts.buffered == 0)
    counts = publisher.handler_counts
    assert (counts.delivered, counts.dropped, list(counts.reasons.values())) == (0, 3, [3])
    assert seen == [0, 1, 2]
    assert caplog.text.count("broken raised ValueError") == 1


@pytest.mark.parametrize("ended", [SystemExit, asyncio.CancelledError])
def test_a_handler_that_exits_or_is_cancelled_has_failed_and_the_next_event_is_handled(publisher, ended):
    seen = []

    @publisher.on("rooms")
    async def handle(event):
        seen.append(event.fields["value"])
        if event.fields["value"] == 0:
            raise ended

    for number in range(2):
        publisher.emit("rooms", {"value": number})
    wait_until(lambda: publisher.handler_counts.buffered == 0)
    wait_until(lambda: publisher.handler_counts.buffered == 0)
    counts = publisher.handler_counts
    assert (counts.delivered, counts.dropped, seen) == (1, 1, [0, 1])


def test_a_slow_handler_delays_neither_emit_nor_closing_beyond_its_own_call():
    release = threading.Event()
    publisher = astrocyte.connect(NOWHERE, buffer_events=5, close_timeout_s=0)
    began_handling = threading.Event()

    @publisher.on("rooms")
    def slow(event):
        began_handling.set()
        release.wait(30)

    began = time.monotonic()
    publisher.emit("rooms", {"value": 0})
    assert began_handling.wait(30)
    for number in range(1, 20):
        publisher.emit("rooms", {"value": number})
    assert time.monotonic() - began < 10
    counts = publisher.handler_counts
    assert (counts.emitted, counts.buffered, counts.dropped) == (20, 5, 15)
    release.set()
    publisher.close()
    counts = publisher.handler_counts
    assert counts.emitted == counts.delivered + counts.dropped == 20


def test_a_handler_may_emit(publisher):
    done = threading.Event()

    @publisher.on("rooms")
    def forward(event):
        publisher.emit("copies", {"value": event.fields["value"]})

    @publisher.on("copies")
    def finish(event):
        done.set()

    publisher.emit("rooms", {"value": 1})
    assert done.wait(30)


def test_a_decorator_without_a_pattern_is_refused(publisher):
    with pytest.raises(InvalidSettings, match="names or patterns"):
        publisher.on()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "a group"}, "group 'a group'"),
        ({"start": "now"}, "start 'now'; expected latest or earliest"),
        ({"on_error": "retry"}, "on_error 'retry'"),
    ],
)
def test_wrong_options_of_a_consumer_are_refused(options, message):
    with pytest.raises(InvalidSettings, match=message):
        astrocyte.Consumer(NOWHERE, **options)


async def test_a_consumer_without_handlers_is_refused():
    with pytest.raises(InvalidSettings, match="has no handler"):
        await astrocyte.Consumer(NOWHERE).serve()


def test_a_consumer_waits_for_the_broker_until_it_is_stopped(caplog):
    consumer = astrocyte.Consumer(NOWHERE)

    @consumer.on("rooms")
    def handle(event): ...

    thread = threading.Thread(target=consumer.run)
    thread.start()
    consumer.stop()
    thread.join(30)
    assert not thread.is_alive()
