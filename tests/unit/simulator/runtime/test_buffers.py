"""Growable buffers: rounds that overflow are run again until they are complete, and replays always end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import encode_frame
from astrocyte.simulator.runtime import buffers
from astrocyte.simulator.runtime.buffers import ROUNDS_TO_SHRINK, Buffers, BufferStuck
from astrocyte.simulator.runtime.world import TRACES
from tests.support.bursts import BURSTS, GREEDY, SLOTS, BurstsConfig

pytestmark = pytest.mark.time_limit(30, "compiles a world in several sizes")


def frames(config: BurstsConfig, ticks: int, **options: object) -> bytes:
    sink = MemorySink()
    simulate(BURSTS, config, seed=3, ticks=ticks, sink=sink, run="r", **options)
    return b"".join(map(encode_frame, sink.frames))


def test_a_collapse_after_many_small_rounds_does_not_delay_the_run() -> None:
    plants = [{"kind": "collapse", "at_tick": 300, "ticks": 1, "strength": 0.8}]
    tight, wide = MemorySink(), MemorySink()
    config = {"size": 1024, "plants": plants}
    summary = simulate("cells", config, seed=1, ticks=340, sink=tight, chunk_ticks=2, run="r")
    assert 1 <= summary.reruns <= 3
    # So few rounds that buffers do not shrink before the burst.
    simulate("cells", config, seed=1, ticks=340, sink=wide, chunk_ticks=10, run="r")
    assert [encode_frame(frame) for frame in tight.frames] == [encode_frame(frame) for frame in wide.frames]


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rows=st.sampled_from([(32, 32, 32), (SLOTS, 64, 256)]),
    plants=st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["left", "right"]),
                "at_tick": st.integers(0, 199),
                "ticks": st.integers(1, 3),
                "strength": st.sampled_from([0.05, 0.3, 0.6, 1.0]),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    chunk_ticks=st.sampled_from([1, 2, 3, 7, 10]),
)
def test_sizes_of_buffers_do_not_change_the_frames(
    rows: tuple[int, int, int], plants: list[dict], chunk_ticks: int
) -> None:
    whole = BurstsConfig(plants=plants)
    tight = whole.model_copy(update=dict(zip(("left_rows", "right_rows", "kept_rows"), rows, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "ROUNDS_TO_SHRINK", 8)  # so that buffers shrink in a short run
        assert frames(tight, 200, chunk_ticks=chunk_ticks) == frames(whole, 200)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    bursts=st.dictionaries(st.integers(0, 400), st.dictionaries(st.sampled_from("abc"), st.integers(1, 70_000))),
    initial=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4096), min_size=3),
    snapshot_rounds=st.integers(1, 20),
)
def test_every_replay_ends_for_any_needs(
    bursts: dict[int, dict[str, int]], initial: dict[str, int], snapshot_rounds: int
) -> None:
    kept = Buffers("w", initial, rare={"c": 2000}, chunk_ticks=10)
    number = snapshot = replays = 0
    while number < 420:
        if number % snapshot_rounds == 0 and number > snapshot:
            snapshot = number
            kept.shrink(10 * number)
        needs = {"a": 3, "b": 40, "c": 0} | bursts.get(number, {})
        sizes = kept.take()
        if kept.overflowed(10 * number, 10 * number + 10, sizes, needs):
            number, replays = snapshot, replays + 1
            assert replays <= 3 * (len(bursts) + 1), "the same round overflows again and again"
            continue
        kept.measured(10 * number + 10, needs)
        number += 1


def test_repeated_bursts_do_not_compile_again_and_again() -> None:
    # One burst in each 70 rounds: before each the buffers have been nearly empty for long enough to be shrunk.
    plants = [{"kind": "left", "at_tick": tick, "ticks": 1, "strength": 1.0} for tick in range(90, 1400, 140)]
    config = BurstsConfig(left_rows=32, right_rows=32, kept_rows=32, plants=plants)
    before = TRACES["bursts"]
    tight = frames(config, 1400, chunk_ticks=2)
    assert TRACES["bursts"] - before <= 4
    assert tight == frames(BurstsConfig(plants=plants), 1400)


def test_a_step_whose_need_grows_with_its_buffer_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MOST_REPLAYS", 2)
    with pytest.raises(
        BufferStuck,
        match=r"'greedy': buffer 'kept' is too small in ticks 0 to 9 after 3 tries: it has .* rows per tick",
    ):
        simulate(GREEDY, BurstsConfig(kept_rows=32), seed=3, ticks=20, sink=MemorySink())


def small_rounds(held: Buffers, first_round: int, rounds: int) -> None:
    for number in range(first_round, first_round + rounds):
        held.measured(10 * (number + 1), {"a": 3})


def test_a_replay_without_more_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Buffers("w", {"a": 64}, rare={}, chunk_ticks=10)
    monkeypatch.setattr(Buffers, "_grow", lambda self, needs: None)
    with pytest.raises(
        BufferStuck,
        match=r"'w': buffer 'a' is too small in ticks 10 to 19 after 1 tries: it has 64 rows per tick, 70 are needed",
    ):
        held.overflowed(10, 20, held.take(), {"a": 70})


def test_nothing_shrinks_before_the_end_of_the_round_that_overflowed() -> None:
    held = Buffers("w", {"a": 64}, rare={}, chunk_ticks=10)
    assert held.overflowed(0, 10, held.take(), {"a": 1000})
    grown = held.take()
    held.measured(10, {"a": 1000})
    small_rounds(held, 1, ROUNDS_TO_SHRINK)
    held.shrink(650)
    assert held.take() == grown  # the burst is among the rounds that count
    small_rounds(held, 65, ROUNDS_TO_SHRINK)
    assert held.overflowed(1500, 1510, held.take(), {"a": 5000})
    larger = held.take()
    held.shrink(1300)
    assert held.take() == larger
    small_rounds(held, 151, ROUNDS_TO_SHRINK)
    held.shrink(2200)
    assert dict(held.take()) == {"a": 64}


def test_each_burst_after_a_shrinking_delays_the_next_shrinking() -> None:
    held = Buffers("w", {"a": 64}, rare={}, chunk_ticks=10)
    number, waits = 0, []
    for _ in range(4):
        assert held.overflowed(10 * number, 10 * number + 10, held.take(), {"a": 5000})
        began = number
        while dict(held.take())["a"] > 64:
            small_rounds(held, number, 1)
            number += 1
            held.shrink(10 * number)
        waits.append(number - began)
    assert waits == [ROUNDS_TO_SHRINK, 2 * ROUNDS_TO_SHRINK, 4 * ROUNDS_TO_SHRINK, 8 * ROUNDS_TO_SHRINK]


def test_sizes_that_were_compiled_before_are_reused() -> None:
    held = Buffers("w", {"a": 64, "b": 64}, rare={}, chunk_ticks=10)
    seen = set()
    for number in range(20):
        first = 10_000 * number
        assert held.overflowed(first, first + 10, held.take(), {"a": 900 + 10 * number, "b": 3})
        seen.add(held.take())
        held.restart()
        for step in range(64 * ROUNDS_TO_SHRINK):
            held.measured(first + 20 + step, {"a": 3, "b": 3})
        held.shrink(first + 10_000)
        seen.add(held.take())
    assert len(seen) <= 3
