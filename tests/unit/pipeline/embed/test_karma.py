"""The queue of snapshots to evaluate: priorities, order, nothing twice."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import astrocyte
from astrocyte.pipeline.embed.handlers import Event
from astrocyte.pipeline.embed.karma import KarmaQueue
from astrocyte.schemas.errors import InvalidSettings

CREATED, MUTATED, SCORED = "dna.snapshot_created", "dna.mutation_applied", "dna.karma_updated"


def event(stream: str, snapshot: int, agent: str = "coder") -> Event:
    fields = {"agent_id": agent, "snapshot_id": snapshot, "version": snapshot}
    return Event(f"{stream}-{agent}-{snapshot}", stream, stream, agent, 0, fields)


def taken(queue: KarmaQueue) -> list[tuple[int, str]]:
    queue.close()
    return [(snapshot.snapshot_id, snapshot.priority) for snapshot in queue]


def test_mutations_come_before_other_snapshots_and_each_in_their_order():
    queue = KarmaQueue()
    for each in (event(CREATED, 1), event(CREATED, 2), event(MUTATED, 3), event(MUTATED, 4)):
        assert queue.add(each)
    assert len(queue) == 4
    assert taken(queue) == [(3, "high"), (4, "high"), (1, "normal"), (2, "normal")]


def test_a_snapshot_that_turns_out_to_be_a_mutation_gets_its_priority():
    queue = KarmaQueue()
    for each in (event(CREATED, 1), event(CREATED, 2), event(MUTATED, 2), event(CREATED, 2)):
        queue.add(each)
    assert taken(queue) == [(2, "high"), (1, "normal")]


def test_what_is_scored_is_not_evaluated_whichever_came_first():
    queue = KarmaQueue()
    queue.add(event(CREATED, 1))
    queue.add(event(SCORED, 1))
    queue.add(event(SCORED, 2))
    assert not queue.add(event(MUTATED, 2))
    assert queue.add(event(MUTATED, 2, agent="writer")), "the snapshot of another agent"
    assert [snapshot.agent_id for snapshot in iter(lambda: queue.take(0), None)] == ["writer"]


def test_events_that_name_no_snapshot_and_those_of_other_streams_change_nothing():
    queue = KarmaQueue()
    assert not queue.add(Event("e", CREATED, CREATED, "k", 0, {"agent_id": "a"}))
    assert not queue.add(event("dna.lineage_pruned", 1))
    assert queue.take(0) is None


@pytest.mark.parametrize("source", [5, None, {"on": 1}, astrocyte.Consumer, lambda event: None])
def test_only_what_registers_handlers_is_attached(source):
    with pytest.raises(InvalidSettings, match=r"KarmaQueue.attach: expected a Consumer or the Publisher .*, got "):
        KarmaQueue().attach(source)


@pytest.mark.parametrize("thing", [5, {"agent_id": "a", "snapshot_id": 1}, None])
def test_only_events_are_added(thing):
    with pytest.raises(InvalidSettings, match=r"KarmaQueue.add: expected an Event, .*, got "):
        KarmaQueue().add(thing)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([CREATED, MUTATED, SCORED]), st.integers(0, 6), st.sampled_from("ab")),
        st.just(None),
    ),
    max_size=40,
)


@settings(derandomize=True, max_examples=60)
@given(OPERATIONS)
def test_it_is_a_list_that_is_searched_for_the_first_of_highest_priority(operations):
    queue, waiting, done = KarmaQueue(), [], set()
    for operation in operations:
        if operation is None:
            found = queue.take(0)
            waiting.sort(key=lambda each: each[0] != "high")  # stable: the order of arrival stays
            if not waiting:
                assert found is None
                continue
            priority, identity = waiting.pop(0)
            done.add(identity)
            assert (found.priority, (found.agent_id, found.snapshot_id)) == (priority, identity)
            continue
        stream, snapshot, agent = operation
        queue.add(event(stream, snapshot, agent))
        identity = (agent, snapshot)
        known = next((each for each in waiting if each[1] == identity), None)
        if stream == SCORED:
            done.add(identity)
            waiting = [each for each in waiting if each is not known]
        elif identity not in done:
            if known is None:
                waiting.append(("high" if stream == MUTATED else "normal", identity))
            elif stream == MUTATED and known[0] == "normal":
                waiting.remove(known)
                waiting.append(("high", identity))
        assert len(queue) == len(waiting)


def test_threads_share_a_queue_and_no_snapshot_is_given_out_twice():
    queue, found = KarmaQueue(), []
    threads = [threading.Thread(target=lambda: found.extend(each.snapshot_id for each in queue)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(500):
        queue.add(event((CREATED, MUTATED)[number % 2], number // 2))
    queue.close()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == list(range(250))


@pytest.mark.time_limit(30, "handlers run on a thread of the publisher")
def test_a_publisher_of_the_same_process_fills_the_queue():
    queue, publisher = KarmaQueue(), astrocyte.connect("127.0.0.1:9", close_timeout_s=0)
    queue.attach(publisher)
    with publisher:
        publisher.dna.snapshot_created(
            snapshot_id=1, agent_id="coder", version=1, source="manual", dna_size=3, traits_count=2, created_at=1.0
        )
        found = queue.take(10)
    assert (found.snapshot_id, found.agent_id, found.version, found.priority) == (1, "coder", 1, "normal")
