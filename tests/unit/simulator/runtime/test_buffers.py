"""Buffers of a world: ticks that overflow are run again until they are complete, replays end, and nothing compiles in
the middle of a run."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import encode_frame
from astrocyte.simulator import run as runs
from astrocyte.simulator.runtime import buffers, programs
from astrocyte.simulator.runtime.buffers import MOST_SPILLS, ROUNDS_TO_SHRINK, Buffers, BufferStuck
from astrocyte.simulator.runtime.world import RoundStuck, World
from tests.support.bursts import BURSTS, GREEDY, SLOTS, BurstsConfig
from tests.support.search import examples
from tests.support.small_worlds import SMALL_WORLDS

pytestmark = pytest.mark.time_limit(30, "compiles a world in several sizes")

TICKS = 200


def frames(config: BurstsConfig, ticks: int, **options: Any) -> bytes:
    sink = MemorySink()
    simulate(BURSTS, config, seed=3, ticks=ticks, sink=sink, run="r", **options)
    return b"".join(map(encode_frame, sink.frames))


def test_a_collapse_after_many_small_rounds_does_not_delay_the_run() -> None:
    plants = [{"kind": "collapse", "at_tick": 300, "ticks": 1, "strength": 0.8}]
    tight, wide = MemorySink(), MemorySink()
    config = {"size": 1024, "routine_share": 0.2, "plants": plants}
    summary = simulate("cells", config, seed=1, ticks=340, sink=tight, chunk_ticks=2, run="r")
    assert 1 <= summary.reruns <= 3
    simulate("cells", config, seed=1, ticks=340, sink=wide, chunk_ticks=10, run="r")
    assert [encode_frame(frame) for frame in tight.frames] == [encode_frame(frame) for frame in wide.frames]


SIZES = st.sampled_from([32, 64, 256, SLOTS])
PLANTS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["left", "right"]),
            "at_tick": st.integers(0, TICKS - 1),
            "ticks": st.sampled_from([1, 2, 3, 40]),
            "strength": st.sampled_from([0.05, 0.3, 0.6, 1.0]),
        }
    ),
    min_size=1,
    max_size=5,
)


def hold_to_unbuffered_run(
    rows: tuple[int, int, int], largest: int, islands: int, group: int, plants: list[dict], chunk_ticks: int
) -> None:
    """A run with such buffers gives the frames of one whose buffers hold a row for every slot."""
    whole = BurstsConfig(plants=plants, replicates=islands)
    names = ("left_rows", "right_rows", "kept_rows")
    tight = whole.model_copy(update={**dict(zip(names, rows, strict=True)), "largest_rows": largest})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "ROUNDS_TO_SHRINK", 8)  # so that buffers shrink in a short run
        patch.setattr(runs, "PREPARE_ROUNDS", 16)
        assert frames(tight, TICKS, chunk_ticks=chunk_ticks, group_islands=group) == frames(whole, TICKS)


@examples(2, 6, suppress_health_check=list(HealthCheck))
@given(islands=st.sampled_from([1, 2]), plants=PLANTS, chunk_ticks=st.sampled_from([1, 2, 3, 7, 10]))
@example(islands=1, chunk_ticks=3, plants=[
    {"kind": "left", "at_tick": 20, "ticks": 100, "strength": 0.6},
    {"kind": "right", "at_tick": 90, "ticks": 1, "strength": 1.0},
])  # fmt: skip
def test_buffers_that_overflow_grow_and_shrink_do_not_change_the_frames(
    islands: int, plants: list[dict], chunk_ticks: int
) -> None:
    # Each size that the buffers take is compiled: few examples, and one choice of initial ones. The next test has all.
    hold_to_unbuffered_run((32, 32, 32), 128, islands, 1, plants, chunk_ticks)


@pytest.mark.soak
@given(
    rows=st.tuples(SIZES, SIZES, SIZES),
    largest=st.sampled_from([0, 64, 128, 512]),
    islands=st.integers(1, 3),
    group=st.integers(1, 3),
    plants=PLANTS,
    chunk_ticks=st.integers(1, 25),
)
def test_no_sizes_groups_and_chunks_change_the_frames(
    rows: tuple[int, int, int], largest: int, islands: int, group: int, plants: list[dict], chunk_ticks: int
) -> None:
    hold_to_unbuffered_run(rows, largest, islands, group, plants, chunk_ticks)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["axons", "dna", "kernels", "ecology", "cells"])
def test_the_spill_program_of_every_world_gives_the_bits_of_the_ordinary_one(name: str) -> None:
    _, config = SMALL_WORLDS[name]
    ordinary, spilled = MemorySink(), MemorySink()
    simulate(name, config, seed=1, ticks=60, sink=ordinary, run="r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Buffers, "spills", lambda self, tick: tick % 20 >= 5)
        patch.setattr(Buffers, "turn", lambda self, tick: tick - tick % 20 + (5 if tick % 20 < 5 else 20))
        simulate(name, config, seed=1, ticks=60, sink=spilled, run="r")
    assert [encode_frame(frame) for frame in spilled.frames] == [encode_frame(frame) for frame in ordinary.frames]


@examples(60, 600)
@given(
    bursts=st.dictionaries(st.integers(0, 400), st.dictionaries(st.sampled_from("abc"), st.integers(1, 70_000))),
    initial=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4096), min_size=3),
    largest=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4096)),
    chunk_ticks=st.integers(1, 12),
    snapshot_rounds=st.integers(1, 20),
)
def test_every_replay_ends_for_any_needs(
    bursts: dict[int, dict[str, int]], initial: dict[str, int], largest: dict[str, int], chunk_ticks: int,
    snapshot_rounds: int,
) -> None:  # fmt: skip
    kept = Buffers("w", initial, largest)
    tick = snapshot = replays = 0
    while tick < 420:
        if tick - snapshot >= snapshot_rounds * chunk_ticks or snapshot < kept.spill_end <= tick:
            snapshot = tick
            kept.consider_shrinking()
            if (wanted := kept.wanted()) is not None:
                kept.compiled(wanted, tick)
        spilled = kept.spills(tick)
        end = tick + 1 if spilled else min(tick + chunk_ticks, kept.turn(tick), 420)
        needs = {"a": 3, "b": 40, "c": 0}
        for each in range(tick, end):
            needs |= {name: max(needs[name], count) for name, count in bursts.get(each, {}).items()}
        sizes = kept.spill_sizes() if spilled else kept.take()
        if kept.overflowed(tick, end, sizes, needs):
            tick, replays = snapshot, replays + 1
            assert replays <= 3 * (len(bursts) + 1) + 420 // chunk_ticks, "the same round overflows again and again"
            continue
        kept.measured(tick, end, needs)
        tick = end


def test_bursts_compile_the_spill_program_once_and_no_other() -> None:
    # One burst in each 70 rounds, ten in all.
    plants = [{"kind": "left", "at_tick": tick, "ticks": 1, "strength": 1.0} for tick in range(90, 1400, 140)]
    config = BurstsConfig(left_rows=32, right_rows=32, kept_rows=32, plants=plants)
    before = programs.TRACES["bursts"]
    tight = frames(config, 1400, chunk_ticks=2)
    assert programs.TRACES["bursts"] - before <= 2
    assert tight == frames(BurstsConfig(plants=plants), 1400)


class Threads(Counter):
    """`TRACES` that also notes on which thread each program was traced."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __setitem__(self, name: str, count: int) -> None:
        self.names.append(threading.current_thread().name)
        super().__setitem__(name, count)


def test_a_long_run_compiles_nothing_itself_once_its_first_round_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    # A burst, and later needs that stay high: spill rounds, then larger buffers.
    plants = [{"kind": "left", "at_tick": 400, "ticks": 1, "strength": 1.0},
              {"kind": "right", "at_tick": 700, "ticks": 2000, "strength": 0.5}]  # fmt: skip
    config = BurstsConfig(left_rows=96, right_rows=96, kept_rows=96, plants=plants)
    monkeypatch.setattr(programs, "TRACES", Threads())
    sizes = []
    world = World(BURSTS, config, 3, prepare=True)
    params = BURSTS.params(config)
    for done in world.run(2000, lambda _: params):
        if done.end_tick == 10 or done.end_tick > 700:
            world.wait()  # for the compiler: these few rounds last shorter than it does
        sizes.append(dict(done.capacities)["right"])
    assert programs.TRACES.names[1:] == ["simulator-compiler"] * 2
    assert (sizes[0], 512 < sizes[-1] <= SLOTS) == (96, True)


def test_a_failure_of_the_compiler_ends_the_run_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: World, number: int, sizes: Any, length: int, *more: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room for the program")
        return call(self, number, sizes, length, *more)

    call = World._call
    monkeypatch.setattr(World, "_call", fail)
    world = World(BURSTS, BurstsConfig(left_rows=32), 3, prepare=True)
    with pytest.raises(MemoryError, match="no room"):
        for _ in world.run(10_000, lambda _: BURSTS.params(world.config)):
            pass


def test_a_step_whose_need_grows_with_its_buffer_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MOST_REPLAYS", 2)
    with pytest.raises(
        BufferStuck,
        match=r"'greedy': buffer 'kept' is too small in ticks 0 to 0 after 3 tries: it has .* rows per tick",
    ):
        simulate(GREEDY, BurstsConfig(kept_rows=32), seed=3, ticks=20, sink=MemorySink())


def test_a_round_that_does_not_advance_is_an_error_that_names_tick_and_buffers() -> None:
    world = World(BURSTS, BurstsConfig(), 3)
    params = BURSTS.params(world.config)
    message = r"'bursts': the round at tick 30 does not advance: .* tick 30, .*'kept': 1024"
    with pytest.raises(RoundStuck, match=message):
        for _ in world.run(100, lambda _: params, lambda tick: max(30, tick)):
            pass


def small_rounds(held: Buffers, first_round: int, rounds: int) -> None:
    for number in range(first_round, first_round + rounds):
        held.measured(10 * number, 10 * (number + 1), {"a": 3})


def overflow(held: Buffers, number: int, need: int) -> None:
    """Round ``number`` overflows, and its ticks are run by the spill program."""
    assert held.overflowed(10 * number, 10 * number + 10, held.take(), {"a": need})
    for tick in range(10 * number, held.spill_end):
        assert not held.overflowed(tick, tick + 1, held.spill_sizes(), {"a": need})
        held.measured(tick, tick + 1, {"a": need})


def test_a_replay_without_more_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Buffers("w", {"a": 64}, {})
    monkeypatch.setattr(buffers, "roomy", lambda count: 0)
    assert held.overflowed(10, 20, held.take(), {"a": 70})
    for _ in range(buffers.MOST_REPLAYS - 1):
        assert held.overflowed(10, 11, held.spill_sizes(), {"a": 70})
    with pytest.raises(
        BufferStuck,
        match=r"'w': buffer 'a' is too small in ticks 10 to 10 after 11 tries: it has 64 rows per tick, 70 are needed",
    ):
        held.overflowed(10, 11, held.spill_sizes(), {"a": 70})


def test_a_burst_does_not_change_the_ordinary_sizes() -> None:
    held = Buffers("w", {"a": 64}, {"a": 1024})
    apart = 2 * ROUNDS_TO_SHRINK // MOST_SPILLS
    for number in range(0, 40 * apart, apart):
        overflow(held, number, 1000)
        small_rounds(held, number + 1, apart - 1)
    assert (held.wanted(), dict(held.take())) == (None, {"a": 64})


def test_a_full_buffer_that_cannot_overflow_makes_no_other_grow() -> None:
    held = Buffers("w", {"all": 64, "some": 64}, {"all": 64, "some": 1024})
    held.measured(0, 10, {"all": 64, "some": 50})
    assert held.wanted() is None
    held.measured(10, 20, {"all": 64, "some": 60})
    assert dict(held.wanted() or ())["some"] > 64


def test_repeated_overflows_grow_the_ordinary_sizes_once_their_program_is_compiled() -> None:
    held = Buffers("w", {"a": 64}, {"a": 1024})
    number = 0
    while held.wanted() is None:
        overflow(held, number, 300)
        number = held.spill_end // 10
    assert number <= 2 * MOST_SPILLS
    assert dict(held.take()) == {"a": 64}
    wanted = held.wanted()
    assert dict(wanted)["a"] >= 300
    held.compiled(wanted, 10 * number)
    assert (held.take(), held.wanted()) == (wanted, None)
    assert not held.overflowed(10 * number, 10 * number + 10, held.take(), {"a": 300})


def test_needs_that_grew_while_the_program_was_compiled_are_wanted_next() -> None:
    held = Buffers("w", {"a": 64}, {"a": 4096})
    held.measured(0, 10, {"a": 60})
    first = held.wanted()
    held.measured(10, 20, {"a": 64})
    held.measured(20, 30, {"a": 64})
    overflow(held, 3, 900)
    for number in range(MOST_SPILLS):
        overflow(held, held.spill_end // 10 + number, 900)
    second = held.wanted()
    assert dict(second)["a"] > dict(first)["a"]
    held.compiled(first, held.spill_end)
    assert (held.take(), held.wanted()) == (first, second)


def grow(held: Buffers, rows: int) -> None:
    while dict(held.take())["a"] < rows:
        overflow(held, held.spill_end // 10 + 2, rows)
        if (wanted := held.wanted()) is not None:
            held.compiled(wanted, held.spill_end)


def rounds_until_smaller(held: Buffers) -> int:
    first = held.spill_end // 10 + 1
    for number in range(100 * ROUNDS_TO_SHRINK):
        held.consider_shrinking()
        if (wanted := held.wanted()) is not None:
            held.compiled(wanted, 10 * (first + number))
            overflow(held, first + number, 100)  # so that the next round is not before this one
            return number
        small_rounds(held, first + number, 1)
    raise AssertionError("never")


def test_sizes_that_were_long_too_large_shrink_and_each_growth_after_that_delays_the_next() -> None:
    held = Buffers("w", {"a": 64}, {"a": 8192})
    waits = []
    for _ in range(4):
        grow(held, 5000)
        waits.append(rounds_until_smaller(held))
        assert dict(held.take()) == {"a": 64}
    assert waits == [ROUNDS_TO_SHRINK, 2 * ROUNDS_TO_SHRINK, 4 * ROUNDS_TO_SHRINK, 8 * ROUNDS_TO_SHRINK]


def test_sizes_that_were_compiled_before_are_used_again() -> None:
    held = Buffers("w", {"a": 64}, {"a": 8192})
    seen = set()
    for number in range(10):
        grow(held, 900 + 10 * number)
        seen.add(held.take())
        rounds_until_smaller(held)
        seen.add(held.take())
    assert len(seen) <= 3
