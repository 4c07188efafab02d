"""The buffer of a publisher: every event is in one of its counts, and the oldest or the newest is dropped."""

from __future__ import annotations

import threading
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.embed.encoding import EncodedEvent, StreamEncoder
from astrocyte.pipeline.embed.outbox import Outbox


def event_of(size: int, seq: int) -> EncodedEvent:
    return EncodedEvent(StreamEncoder("rooms"), seq, 0, None, "rooms", b"null", b"x" * size, None)


ACTIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 400)),
    st.tuples(st.just("take"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["delivered", "logged", "refused", "back"]), st.integers(0, 5)),
)


@given(st.lists(ACTIONS, max_size=60), st.sampled_from(["drop_newest", "drop_oldest"]), st.integers(1, 8))
def test_emitted_is_the_sum_of_the_other_counts_whatever_happens(actions, policy, room):
    reported = []
    outbox = Outbox(room, 2_000, policy, on_drop=reported.append)
    flying: list[int] = []
    accepted = []
    for seq, (name, number) in enumerate(actions):
        if name == "put":
            before = outbox.counts
            taken, _ = outbox.put(event_of(number, seq))
            accepted += [seq] * taken
            assert outbox.counts.emitted == before.emitted + 1
            assert taken or policy == "drop_newest" or flying
        elif name == "take":
            flying += [event.seq for event in outbox.take(number, 10_000)]
        elif name == "back":
            outbox.take_back()
            flying.clear()
        else:
            outbox.settle(flying[:number], None if name == "refused" else name, "no")
            del flying[:number]
        counts = outbox.counts
        assert counts.emitted == counts.delivered + counts.buffered + counts.dropped + counts.logged
        assert counts.dropped == sum(counts.reasons.values())
        assert counts.buffered <= room
    left = outbox.close()
    assert [event.seq for event in left] == sorted(event.seq for event in left)
    assert {event.seq for event in left} <= set(accepted)
    assert len(left) == outbox.counts.buffered
    assert bool(reported) == bool(outbox.counts.dropped)


def test_the_oldest_or_the_newest_event_is_dropped_when_the_buffer_is_full():
    for policy, kept in (("drop_newest", [0, 1]), ("drop_oldest", [2, 3])):
        outbox = Outbox(2, 10_000, policy, on_drop=lambda reason: None)
        for seq in range(4):
            outbox.put(event_of(1, seq))
        assert [event.seq for event in outbox.close()] == kept


@pytest.mark.parametrize("size", [1, 400])
def test_a_broker_that_dies_with_events_in_flight_leaves_others_that_can_go_to_the_log(size):
    outbox = Outbox(1_000, 40_000, "drop_newest", on_drop=lambda reason: None)
    emitted = 0
    while outbox.put(event_of(size, emitted))[0]:
        emitted += 1
    flying = outbox.take(5_000, 4 << 20)  # as much as delivery takes; never confirmed
    while taken := outbox.take(5_000, 4 << 20) if outbox.is_crowded else []:
        outbox.settle([event.seq for event in taken], "logged")
    assert not outbox.is_crowded
    assert outbox.counts.logged + outbox.counts.buffered == emitted
    assert flying


def test_events_that_are_dropped_meanwhile_do_not_end_the_wait_for_earlier_ones():
    outbox = Outbox(2, 10_000, "drop_newest", on_drop=lambda reason: None)
    for seq in range(2):
        outbox.put(event_of(1, seq))
    stop = threading.Event()

    def emit_more():
        for seq in count(2):
            outbox.put(event_of(1, seq))
            if stop.wait(0.001):
                return

    other = threading.Thread(target=emit_more)
    other.start()
    try:
        assert not outbox.wait_empty(0.2)
    finally:
        stop.set()
        other.join()
    assert (outbox.counts.buffered, outbox.counts.dropped > 2) == (2, True)
    while taken := outbox.take(2, 10_000):
        outbox.settle([event.seq for event in taken], "delivered")
    assert outbox.wait_empty(0)
