"""What may be committed, against the five ways in which stock Faust loses data and against a brute-force model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.pipeline.transport.commits import CommitTracker, Delivery

P = "p0"


def tracker_at(position: int | None, committed: int | None = None) -> CommitTracker[str]:
    tracker: CommitTracker[str] = CommitTracker()
    tracker.assign(P, position, committed)
    return tracker


def deliver_each(tracker: CommitTracker[str], offsets: range | list[int]) -> dict[int, Delivery]:
    return {offset: tracker.delivered(P, offset, offset + 1) for offset in offsets}


def test_hole_a_nothing_committed_yet_and_the_first_offsets_held_commits_nothing():
    tracker = tracker_at(0)
    deliveries = deliver_each(tracker, range(6))
    deliveries[5].ack()
    assert tracker.committable(P) is None


def test_hole_b_the_offset_right_after_the_committed_one_held_commits_nothing():
    tracker = tracker_at(100, committed=100)
    deliveries = deliver_each(tracker, range(100, 103))
    deliveries[101].ack()
    deliveries[102].ack()
    assert tracker.committable(P) is None


def test_hole_c_an_offset_held_after_missing_ones_is_not_committed_over():
    tracker = tracker_at(100, committed=100)
    deliveries = deliver_each(tracker, [100, 105, 106, 107])  # 101 to 104: compacted away, or markers
    for offset in (100, 106, 107):
        deliveries[offset].ack()
    assert tracker.committable(P) == 105


def test_hole_d_missing_offsets_between_acked_ones_do_not_stop_the_commit():
    tracker = tracker_at(100, committed=100)
    for delivery in deliver_each(tracker, [100, 105, 106, 107]).values():
        delivery.ack()
    assert tracker.committable(P) == 108


def test_hole_e_an_ack_from_before_a_rebalance_does_not_ack_the_copy_that_is_read_again():
    tracker = tracker_at(100, committed=100)
    before = deliver_each(tracker, range(100, 105))
    tracker.assign(P, 100, 100)
    again = deliver_each(tracker, range(100, 105))
    assert not any(delivery.ack() for delivery in before.values())
    assert all(delivery.stale for delivery in before.values())
    assert tracker.committable(P) is None
    again[100].ack()
    assert tracker.committable(P) == 101


def test_held_chunk_after_a_hole_lets_the_commit_advance_over_the_hole():
    tracker = tracker_at(0)
    tracker.delivered(P, 7, 9)
    assert tracker.committable(P) == 7


def test_markers_at_the_end_of_the_log_are_committed_without_any_record():
    tracker = tracker_at(10, committed=10)
    tracker.delivered(P, 10, 12).ack()
    tracker.advanced(P, 13)
    assert tracker.committable(P) == 13
    tracker.committed(P, 13)
    assert tracker.committable(P) is None


def test_commit_that_failed_is_offered_again():
    tracker = tracker_at(0)
    tracker.delivered(P, 0, 5).ack()
    assert tracker.committable(P) == 5
    assert tracker.committable(P) == 5
    tracker.committed(P, 5)
    assert tracker.committable(P) is None


def test_second_ack_of_a_delivery_counts_nothing():
    tracker = tracker_at(0)
    delivery = tracker.delivered(P, 0, 5)
    assert delivery.ack()
    assert not delivery.ack()
    assert tracker.acks_of(P) == 1


def test_ack_through_covers_all_older_deliveries_of_the_partition():
    tracker = tracker_at(0)
    first, second, third = (tracker.delivered(P, start, start + 5) for start in (0, 5, 10))
    assert second.ack_through()
    assert not first.ack_through()
    assert tracker.committable(P) == 10
    assert tracker.held(P) == 1
    third.ack()
    assert tracker.committable(P) == 15


def test_seek_back_never_commits_backwards():
    tracker = tracker_at(40, committed=100)  # a snapshot at 40, though 100 was committed
    tracker.delivered(P, 40, 60).ack()
    assert tracker.committable(P) is None
    tracker.delivered(P, 60, 120).ack()
    assert tracker.committable(P) == 120


def test_snapshot_ahead_of_the_commit_is_committed_once_reading_begins_there():
    assert tracker_at(70, committed=50).committable(P) == 70


def test_recreated_log_may_commit_lower_offsets_than_before():
    tracker = tracker_at(0)
    old = tracker.delivered(P, 0, 100)
    old.ack()
    tracker.committed(P, 100)
    new = tracker.delivered(P, 0, 30)  # the topic was deleted and created again
    assert old.stale
    tracker.committed(P, 100)  # a confirmation in flight does not concern the new log
    assert tracker.committable(P) is None
    new.ack()
    assert tracker.committable(P) == 30


def test_what_was_fetched_before_a_partition_was_positioned_anew_is_distinct_from_what_comes_after():
    tracker = tracker_at(0)
    before = tracker.placement(P)
    tracker.delivered(P, 0, 100)
    tracker.delivered(P, 0, 30)  # the topic was created again: the same fetches go on
    assert tracker.placement(P) == before
    tracker.forget([P])
    assert tracker.placement(P) != before
    forgotten = tracker.placement(P)
    tracker.assign(P, 0)
    assert tracker.placement(P) not in (before, forgotten)


def test_unknown_position_is_learnt_from_the_first_delivery():
    tracker = tracker_at(None)
    assert tracker.committable(P) is None
    delivery = tracker.delivered(P, 33, 35)
    assert tracker.committable(P) is None
    delivery.ack()
    assert tracker.committable(P) == 35


def test_removed_partition_has_nothing_to_commit_and_refuses_deliveries():
    tracker = tracker_at(0)
    tracker.delivered(P, 0, 1).ack()
    tracker.forget([P, "never assigned"])
    assert tracker.committable(P) is None
    assert P not in tracker
    with pytest.raises(KeyError):
        tracker.delivered(P, 1, 2)


@dataclass
class World:
    """The brute-force model: a log with holes, a broker that remembers one commit, a consumer that may die."""

    exists: list[int]
    end: int
    broker: int = 0
    snapshot: int = 0
    done: set[int] = field(default_factory=set)
    tracker: CommitTracker[str] = field(default_factory=CommitTracker)
    position: int = 0
    current: list[tuple[Delivery, list[int]]] = field(default_factory=list)
    stale: list[tuple[Delivery, list[int]]] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)

    def start(self, position: int) -> None:
        self.stale += self.current
        self.current = []
        self.acked = set()
        self.position = position
        self.tracker.assign(P, position, self.broker or None)

    def fetch(self, size: int) -> None:
        offsets = [offset for offset in self.exists if offset >= self.position][:size]
        if offsets:
            # As aiokafka does: the position is after the last record and the hole that follows it in its batch.
            after = next((offset for offset in self.exists if offset > offsets[-1]), self.end)
            self.current.append((self.tracker.delivered(P, offsets[0], after), offsets))
            self.position = after
        elif self.position < self.end:
            self.position = self.end
            self.tracker.advanced(P, self.end)

    def ack(self, index: int, *, through: bool) -> None:
        if not self.current:
            return
        index %= len(self.current)
        delivery, offsets = self.current[index]
        covered = [item for _, items in self.current[: index + 1] for item in items] if through else offsets
        delivery.ack_through() if through else delivery.ack()
        self.done.update(covered)
        self.acked.update(covered)

    def expected(self) -> int:
        """First offset delivered since the start that is not acked, else the position: by looking at every offset."""
        delivered = [offset for _, offsets in self.current for offset in offsets]
        return next((offset for offset in sorted(delivered) if offset not in self.acked), self.position)

    def commit(self, *, fails: bool) -> None:
        offset = self.tracker.committable(P)
        # Chunks are acknowledged whole, so the first open offset is always the first of a chunk.
        expected = self.expected()
        assert (offset if offset is not None else self.broker) == max(expected, self.broker)
        if offset is not None:
            assert all(item in self.done for item in self.exists if item < offset), "an offset would be lost"
            if not fails:
                self.broker = offset
                self.tracker.committed(P, offset)


STEPS = st.one_of(
    st.tuples(st.just("fetch"), st.integers(1, 6)),
    st.tuples(st.just("ack"), st.integers(0, 20)),
    st.tuples(st.just("ack_through"), st.integers(0, 20)),
    st.tuples(st.just("stale"), st.integers(0, 20)),
    st.tuples(st.just("commit"), st.booleans()),
    st.tuples(st.just("rebalance"), st.none()),
    st.tuples(st.just("seek_back"), st.integers(1, 10)),
    st.tuples(st.just("revoke_without_commit"), st.none()),
)


def run(world: World, steps: list[tuple[str, int | bool | None]]) -> None:
    world.start(0)
    for name, value in steps:
        match name, value:
            case "fetch", int(size):
                world.fetch(size)
            case "ack", int(index):
                world.ack(index, through=False)
            case "ack_through", int(index):
                world.ack(index, through=True)
            case "stale", int(index) if world.stale:
                assert not world.stale[index % len(world.stale)][0].ack()
                assert not world.stale[index % len(world.stale)][0].ack_through()
            case "commit", bool(fails):
                world.commit(fails=fails)
            case "rebalance", _:
                world.commit(fails=False)
                world.start(world.broker)
            case "seek_back", int(by):
                world.start(max(0, world.broker - by))
            case "revoke_without_commit", _:
                world.tracker.forget([P])
                world.start(world.broker)
    # The consumer dies: everything below the commit must have been acknowledged.
    assert all(offset in world.done for offset in world.exists if offset < world.broker)
    # If everything is acked, the whole log is committed, holes and markers included.
    world.start(world.broker)
    while world.position < world.end:
        world.fetch(3)
    for index in range(len(world.current)):
        world.ack(index, through=False)
    world.commit(fails=False)
    assert world.broker == world.end or not world.end


LOGS = st.lists(st.booleans(), max_size=40).map(
    lambda kept: World([offset for offset, is_there in enumerate(kept) if is_there], len(kept))
)


@settings(max_examples=400, deadline=None)
@given(LOGS, st.lists(STEPS, max_size=60))
def test_random_histories_of_a_partition_agree_with_a_brute_force_model(world, steps):
    run(world, steps)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(LOGS, st.lists(STEPS, max_size=120))
def test_many_random_histories_of_a_partition_agree_with_a_brute_force_model(world, steps):
    run(world, steps)
