"""Watermarks: lateness, idle sources, ends, and producers with wrong clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.event_time.sources import Observed, Source
from astrocyte.agents.event_time.watermarks import Watermarks
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.topics import TopicPartition

A, B = Source("mono.axon_1", 0), Source("mono.axon_2", 0)


def see(clock: Watermarks, source: Source, *times: int, **meta: Any) -> Observed:
    return clock.observe(source, np.array(times, np.int64), **meta)


def test_the_watermark_is_the_newest_timestamp_less_the_lateness() -> None:
    clock = Watermarks(lateness_us=10)
    assert clock.watermark_us == NEVER_US
    see(clock, A, 100, 130, 120)
    assert clock.watermark_us == 120
    see(clock, A, 90)
    assert clock.watermark_us == 120


def test_an_event_at_the_watermark_is_on_time_and_one_before_it_is_late() -> None:
    clock = Watermarks(lateness_us=10)
    see(clock, A, 100)
    verdict = see(clock, A, 89, 90, 200)
    assert verdict.late.tolist() == [True, False, False]
    assert verdict.on_time.tolist() == [False, True, True]
    assert clock.late == 1


def test_a_frame_is_judged_by_the_watermark_as_it_stood_before_it() -> None:
    clock = Watermarks()
    assert see(clock, A, 50, 10, 30).on_time.all()
    assert see(clock, A, 49, 60, 50).late.tolist() == [True, False, False]


def test_records_judged_one_by_one_do_not_depend_on_how_they_were_fetched() -> None:
    times = [50, 10, 30, 45, 60, 55, 49, 10**15, 61]
    whole = see(Watermarks(lateness_us=5), A, *times, one_by_one=True)
    clock = Watermarks(lateness_us=5)
    single = [see(clock, A, time, one_by_one=True) for time in times]
    assert whole.late.tolist() == [bool(each.late[0]) for each in single]
    assert whole.late.tolist() == [False, True, True, False, False, False, True, False, True]


def test_punctuation_moves_the_watermark_up_and_never_down() -> None:
    clock = Watermarks(lateness_us=10)
    see(clock, A, 100, watermark_us=100)
    assert clock.watermark_us == 100
    see(clock, A, watermark_us=50)
    assert clock.watermark_us == 100
    assert see(clock, A, 99).late.all()


def test_the_domain_waits_for_its_slowest_source() -> None:
    clock = Watermarks()
    see(clock, A, 100)
    see(clock, B, 40)
    assert clock.watermark_us == 100, "the watermark never goes back for a source that was not expected"
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    assert clock.watermark_us == NEVER_US
    see(clock, B, 40)
    assert clock.watermark_us == 40
    see(clock, B, 300)
    assert clock.watermark_us == 100


def test_late_is_judged_by_the_own_source_and_not_by_a_faster_one() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 1_000)
    see(clock, B, 10)
    assert see(clock, B, 20).on_time.all()
    assert see(clock, A, 999).late.all()


def test_an_idle_source_does_not_delay_the_watermark_and_returns_at_that_of_the_domain() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    see(clock, B, 10)
    clock.mark_idle(B)
    assert clock.is_idle(B)
    assert clock.watermark_us == 100
    verdict = see(clock, B, 50, 150)
    assert verdict.late.tolist() == [True, False]
    assert not clock.is_idle(B)
    see(clock, A, 500)
    assert clock.watermark_us == 150


def test_what_is_late_only_because_event_time_went_on_while_its_source_was_idle_is_marked() -> None:
    clock = Watermarks(lateness_us=10)
    see(clock, A, 100)
    see(clock, B, 100)
    clock.mark_all_idle(600)
    verdict = see(clock, A, 80, 110, 599, 600, one_by_one=True)
    assert verdict.late.tolist() == [True, True, True, False]
    assert verdict.idle.tolist() == [False, True, True, False]
    # Until the source has caught up, what it sends in order is late by the pause as well.
    clock = Watermarks(lateness_us=10)
    see(clock, A, 100)
    clock.mark_all_idle(600)
    assert [see(clock, A, time).idle.tolist() for time in (110, 120, 90)] == [[True], [True], [False]]
    new = Source("mono.axon_3", 0)
    assert see(clock, new, 120).idle.tolist() == [False], "it was not idle: the others were ahead of it"
    # A source that was idle while another one went on.
    clock = Watermarks()
    see(clock, A, 100)
    see(clock, B, 100)
    clock.mark_idle(B)
    see(clock, A, 300)
    assert see(clock, B, 200).idle.tolist() == [True]
    see(clock, B, 400)
    assert see(clock, B, 350).idle.tolist() == [False]


def test_an_expected_partition_that_is_idle_is_not_waited_for() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    clock.mark_idle(B.place)
    assert clock.watermark_us == 100
    see(clock, B, 200)
    see(clock, A, 300)
    assert clock.watermark_us == 200


def test_origins_on_one_partition_are_sources_of_their_own() -> None:
    clock = Watermarks()
    one, two = Source("mono.x", 0, "one"), Source("mono.x", 0, "two")
    see(clock, two, 10)
    see(clock, one, 100)
    assert see(clock, two, 20).on_time.all()
    clock.mark_idle(TopicPartition("mono.x", 0))
    assert clock.is_idle(one)
    assert clock.is_idle(two)


def test_when_all_sources_are_idle_the_newest_watermark_or_the_given_time_counts() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    see(clock, B, 10)
    clock.mark_all_idle()
    assert clock.watermark_us == 100
    clock.mark_all_idle(until_us=700)
    assert clock.watermark_us == 700
    assert see(clock, A, 650).late.all()
    assert Watermarks().watermark_us == NEVER_US


def test_idleness_before_the_first_event_gives_no_watermark() -> None:
    clock = Watermarks(expected=[A.place])
    clock.mark_all_idle(until_us=50)
    assert clock.watermark_us == NEVER_US


def test_ended_sources_no_longer_count_and_the_last_one_finishes_the_domain() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100, end=True)
    assert not clock.finished, "the other place was not heard of"
    see(clock, B, 10)
    assert clock.watermark_us == 10
    see(clock, B, 20, end=True)
    assert clock.finished
    clock.reset()
    assert not clock.finished
    see(clock, A, 1)
    see(clock, B, 2)
    assert clock.watermark_us == 1, "a later run may have older timestamps"


def test_an_idle_partition_without_events_does_not_keep_the_domain_from_finishing() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    clock.mark_idle(B.place)
    see(clock, A, 100, end=True)
    assert clock.finished


def test_a_run_that_begins_before_the_old_one_ended_keeps_the_domain_going() -> None:
    clock = Watermarks()
    old, new = Source("mono.x", 0, "old"), Source("mono.x", 0, "new")
    see(clock, old, 100)
    see(clock, new, 120)
    see(clock, old, end=True)
    assert not clock.finished
    assert clock.watermark_us == 120


def test_an_expected_source_delays_the_domain_until_its_first_frame() -> None:
    clock = Watermarks()
    first, second = Source("mono.x", 0, "run"), Source("mono.y", 0, "run")
    clock.announce(first)
    clock.announce(second)
    see(clock, first, 100)
    assert clock.watermark_us == NEVER_US
    see(clock, second, 30, end=True)
    assert clock.watermark_us == 100
    clock.announce(second)
    see(clock, first, 200)
    assert clock.watermark_us == 200, "one that has ended is not waited for again"
    see(clock, first, end=True)
    assert clock.finished


def test_a_domain_that_becomes_active_again_waits_for_every_partition() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    clock.mark_all_idle()
    clock.activate([A.place, B.place])
    see(clock, A, 900)
    assert clock.watermark_us == 100
    see(clock, B, 500)
    assert clock.watermark_us == 500


def test_a_revoked_partition_is_removed() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    see(clock, A, 100)
    see(clock, B, 10)
    clock.forget(B.place)
    assert clock.watermark_us == 100
    assert list(clock.sources) == [A]


def test_a_watermark_far_in_the_future_is_refused_and_counted() -> None:
    clock = Watermarks(max_jump_us=1_000)
    see(clock, A, 100, watermark_us=10_000)
    assert (clock.refused_punctuation, clock.watermark_us) == (1, 100)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="expected zero or more"):
        Watermarks(lateness_us=-1)
    with pytest.raises(InvalidSettings, match="expected more than the lateness"):
        Watermarks(lateness_us=10, max_jump_us=5)


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.integers(0, 2_000), max_size=5),
        st.sampled_from(["rows", "rows", "rows", "punctuation", "end", "idle", "all_idle", "silence"]),
    ),
    max_size=25,
)


def drive(clock: Watermarks, step: tuple[int, list[int], str]) -> Observed | None:
    number, times, what = step
    source = Source("t", number)
    match what:
        case "idle":
            clock.mark_idle(source)
        case "all_idle":
            clock.mark_all_idle()
        case "silence":
            clock.silence(source)
        case _:
            watermark = max(times, default=0) if what == "punctuation" else None
            return see(clock, source, *times, watermark_us=watermark, end=what == "end")
    return None


@settings(max_examples=150, deadline=None)
@given(steps=steps, lateness=st.integers(0, 300))
def test_watermarks_never_go_back_and_every_row_has_one_verdict(
    steps: list[tuple[int, list[int], str]], lateness: int
) -> None:
    clock = Watermarks(lateness_us=lateness, expected=[("t", 0), ("t", 1)], max_jump_us=1_000)
    counted = np.zeros(2, np.int64)
    for step in steps:
        before = clock.watermark_us
        verdict = drive(clock, step)
        if verdict is not None:
            assert (np.sum(verdict[:2], axis=0) == 1).all()
            assert not (verdict.on_time & (np.array(step[1], np.int64) < before)).any(), "passed rows are late"
            counted += [int(flags.sum()) for flags in verdict[:2]]
        assert clock.watermark_us >= before
        if not clock.finished and any(not clock.is_idle(source) for source in clock.sources):
            active = [time for source, time in clock.sources.items() if not clock.is_idle(source)]
            assert clock.watermark_us in (before, min(active))
    assert clock.late == counted[1]


@settings(max_examples=100, deadline=None)
@given(steps=steps, lateness=st.integers(0, 300), cut=st.integers(0, 25))
def test_restored_watermarks_continue_without_a_difference(
    steps: list[tuple[int, list[int], str]], lateness: int, cut: int
) -> None:
    def make() -> Watermarks:
        return Watermarks(lateness_us=lateness, expected=[("t", 0), ("t", 1)], max_jump_us=1_000)

    whole, clock = make(), make()
    for number, step in enumerate(steps):
        if number == cut:
            snapshot = clock.snapshot()
            clock = make()
            clock.restore(snapshot)
        one, two = drive(whole, step), drive(clock, step)
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert all((a == b).all() for a, b in zip(one, two, strict=True))
        assert clock.watermark_us == whole.watermark_us
        assert clock.finished == whole.finished
    assert clock.snapshot().keys() == whole.snapshot().keys()
    assert clock.late == whole.late


ORIGINS = st.integers(2, 5)
PARTS = [Source("keyed.f.s", 0, f"/{number}") for number in range(5)]


def rebuilt(clock: Watermarks) -> Watermarks:
    copy = Watermarks(expected=[PARTS[0].place])
    copy.restore(clock.snapshot())
    return copy


def follow(clock: Watermarks, order: Any, plans: list[list[dict[str, Any]]], restarts: bool) -> Watermarks:
    """Feed watermarks with every source's frames, in a random order, with snapshots in between."""
    left = [list(plan) for plan in plans]
    while any(left):
        number = order.choice([number for number, plan in enumerate(left) if plan])
        frame = dict(left[number].pop(0))
        see(clock, PARTS[number], *frame.pop("times", ()), peers=PARTS[: len(plans)], **frame)
        if restarts and order.random() < 0.3:
            clock = rebuilt(clock)
    return clock


@settings(max_examples=150, deadline=None, derandomize=True)
@given(count=ORIGINS, data=st.data(), restarts=st.booleans())
def test_any_order_of_announcements_data_and_ends_leads_to_the_same_watermark(
    count: int, data: Any, restarts: bool
) -> None:
    plans: list[list[dict[str, Any]]] = []
    for number in range(count):
        times = data.draw(st.lists(st.integers(0, 500), max_size=4))
        plan: list[dict[str, Any]] = [{"times": [time], "watermark_us": time} for time in sorted(times)]
        ends = data.draw(st.booleans())
        plan += [{"end": True}] if ends else []
        if ends and number and data.draw(st.booleans()):
            plan += [{"times": [time], "watermark_us": time} for time in (1_000, 1_000 + number)]  # it returns
        plans.append(plan or [{"times": [0], "watermark_us": 0}])
    # One stays open and is never ahead, so that no order ends before the others have started.
    plans[0] = [each for each in plans[0] if not each.get("end")] or [{"times": [0], "watermark_us": 0}]
    seeds = data.draw(st.lists(st.randoms(use_true_random=False), min_size=2, max_size=2))
    one, two = (follow(Watermarks(expected=[PARTS[0].place]), seed, plans, restarts) for seed in seeds)
    open_ones = [plan[-1]["watermark_us"] for plan in plans if not plan[-1].get("end")]
    assert one.watermark_us == two.watermark_us == min(open_ones)
    assert one.sources == two.sources
    for number, plan in enumerate(plans):
        if not plan[-1].get("end"):
            see(one, PARTS[number], end=True, peers=PARTS[:count])
    assert one.finished


@settings(max_examples=150, deadline=None, derandomize=True)
@given(count=ORIGINS, order=st.randoms(use_true_random=False), rows=st.booleans(), restarts=st.booleans())
def test_once_all_origins_have_ended_no_announced_source_is_waited_for(
    count: int, order: Any, rows: bool, restarts: bool
) -> None:
    plans = [[{"times": [number], "watermark_us": number}] * rows + [{"end": True}] for number in range(count)]
    clock = follow(Watermarks(expected=[PARTS[0].place]), order, plans, restarts)
    assert clock.finished
    assert clock.sources == {}
    clock.reset()
    order.shuffle(ends := list(PARTS[:count]))
    for source in ends:  # ends that a restarted worker reports again
        see(clock, source, end=True, peers=PARTS[:count])
        assert clock.finished


def test_a_run_that_is_repeated_after_its_end_waits_for_all_its_streams_again() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    for _ in range(2):
        see(clock, A, 100, watermark_us=100, peers=[A, B])
        see(clock, A, end=True, peers=[A, B])
        assert clock.watermark_us == NEVER_US
        assert see(clock, B, 30, peers=[A, B]).on_time.all()
        see(clock, B, end=True, peers=[A, B])
        assert clock.finished
        clock.reset()


def test_an_announced_source_that_is_silent_is_waited_for_after_its_first_frame() -> None:
    clock, (one, two) = Watermarks(), PARTS[:2]
    see(clock, one, 10, watermark_us=10, peers=[one, two])
    clock.silence(two)
    see(clock, one, end=True)
    assert clock.finished
    clock.reset()
    see(clock, one, 20, watermark_us=20, peers=[one, two])
    assert clock.watermark_us == 20
    see(clock, two)
    see(clock, one, 40, watermark_us=40)
    assert clock.watermark_us == 20


def test_a_source_that_goes_on_after_silence_does_not_wait_for_a_peer_that_has_ended() -> None:
    clock, (one, two) = Watermarks(), PARTS[:2]
    see(clock, one, 10, watermark_us=10, peers=[one, two])
    clock.silence(two)  # before it has sent anything
    see(clock, one, 20, watermark_us=20, end=True, peers=[one, two])
    assert clock.finished
    clock.reset()
    see(clock, two, 30, watermark_us=30, peers=[one, two])
    assert clock.watermark_us == 30
    see(clock, two, end=True, peers=[one, two])
    assert clock.finished


def test_sources_that_are_silent_have_not_ended_and_the_domain_goes_on_with_the_clock_alone() -> None:
    clock, (one, two) = Watermarks(expected=[PARTS[0].place]), PARTS[:2]
    see(clock, one, 10, watermark_us=10, peers=[one, two])
    see(clock, two, 30, watermark_us=30, peers=[one, two])
    clock.silence(one)
    assert (clock.watermark_us, clock.finished) == (30, False)
    clock.silence(two)
    assert (clock.watermark_us, clock.finished, clock.asserting_beside(())) == (30, False, False)
    clock.activate([one.place], asserting=True)
    clock.mark_all_idle(until_us=35)
    assert clock.watermark_us == 35, "what is said of the place does not make its sources active"
    see(clock, two, watermark_us=30)
    clock.mark_all_idle(until_us=50)
    assert clock.watermark_us == 35, "a frame of its own does"


def test_ended_sources_are_remembered_up_to_a_number_and_those_still_announced_the_longest(monkeypatch: Any) -> None:
    monkeypatch.setattr("astrocyte.agents.event_time.watermarks.ENDED_KEPT", 8)
    clock, (known, peer) = Watermarks(), PARTS[:2]
    see(clock, known, 1)
    see(clock, peer, end=True)
    for number in range(100):
        see(clock, Source("t", 0, f"run{number}"), end=True)
        clock.announce(peer)
    assert len(clock._ended) == 8
    assert list(clock.sources) == [known]


def test_an_idle_partition_stays_idle_after_a_run_has_ended() -> None:
    clock = Watermarks(expected=[A.place, B.place])
    clock.mark_idle(B.place)
    see(clock, A, 100, end=True)
    clock.reset()
    see(clock, A, 50)
    assert clock.watermark_us == 50


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(0, 500), min_size=1, max_size=8),
    second=st.lists(st.integers(0, 500), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_lateness_does_not_depend_on_how_partitions_interleave(first: list[int], second: list[int], order: Any) -> None:
    def run(sequence: list[int]) -> dict[Source, list[bool]]:
        clock = Watermarks(lateness_us=20, expected=[A.place, B.place])
        queues = {A: iter(first), B: iter(second)}
        late: dict[Source, list[bool]] = {A: [], B: []}
        for pick in sequence:
            source = (A, B)[pick]
            late[source].append(bool(see(clock, source, next(queues[source])).late[0]))
        return late

    sequence = [0] * len(first) + [1] * len(second)
    shuffled = sequence.copy()
    order.shuffle(shuffled)
    assert run(sequence) == run(shuffled)
