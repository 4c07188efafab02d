"""Aggregates: merging, values kept exactly or compressed, estimates, and the same bits for any division into calls."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.expressions import numbers
from astrocyte.agents.rules.select import AggregateCall, parse_select
from astrocyte.agents.windows.aggregates import Members, State, make_state, need_of, read_results, state_of
from astrocyte.agents.windows.aggregates.bags import TOKENS, VALUES
from astrocyte.agents.windows.aggregates.calls import Kind
from astrocyte.agents.windows.rows import ColumnData
from tests.support import window_oracle

NUMERIC = [
    text for text in window_oracle.AGGREGATES if "(x" in text and "/" not in text and text != "count_distinct(x)"
]


def call_of(text: str) -> AggregateCall:
    (call,) = parse_select({"result": text}).calls
    return call


def fresh_state(call: AggregateCall, kind: Kind = "number", places: int = 4) -> State:
    state = make_state(state_of(call, need_of(call, kind)))
    state.grow(places)
    return state


def feed(state: State, values: np.ndarray[Any, Any], *, slot: int = 0, start: int = 0, weights: Any = None) -> None:
    slots = np.full(len(values), slot, np.int32)
    t = np.arange(start, start + len(values), dtype=np.int64) * 1_000
    state.add(Members(slots, t, weights), ColumnData(values))


def read(call: AggregateCall, state: State, slot: int = 0, kind: Kind = "number") -> Any:
    return read_results(call, state, np.array([slot], np.int32), kind).to_arrow(1).to_pylist()[0]


@pytest.mark.parametrize("text", NUMERIC)
@settings(max_examples=40, deadline=None)
@given(
    older=st.lists(st.floats(-100, 100).map(lambda value: round(value, 2)), max_size=20),
    newer=st.lists(st.floats(-100, 100).map(lambda value: round(value, 2)), max_size=20),
)
def test_merged_groups_equal_one_group_of_all_rows(text: str, older: list[float], newer: list[float]) -> None:
    call = call_of(text)
    state = fresh_state(call)
    feed(state, np.array(older))
    feed(state, np.array(newer), slot=1, start=len(older))
    state.merge(np.array([2, 2], np.int32), np.array([0, 1], np.int32))
    rows = [{"timestamp": index * 1_000, "x": value} for index, value in enumerate([*older, *newer])]
    expected = window_oracle.AGGREGATES[text](rows)
    found = read(call, state, 2)
    assert found == expected or math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-7)


@pytest.mark.parametrize("text", [*NUMERIC, "quantile(x, 0.5)", "entropy(x)", "entropy(x, 8, -1, 1)"])
def test_results_have_the_same_bits_for_any_division_into_calls(text: str) -> None:
    call = call_of(text)
    rng = np.random.default_rng(1)
    values = rng.normal(size=3 * VALUES)
    whole = fresh_state(call)
    feed(whole, values)
    for _ in range(3):
        parts = fresh_state(call)
        bounds = [0, *sorted(rng.integers(0, len(values), 7).tolist()), len(values)]
        for begin, end in pairwise(bounds):
            feed(parts, rng.normal(size=begin % 50), slot=1, start=begin)
            feed(parts, values[begin:end], start=begin)
            copy = fresh_state(call)
            copy.restore(np.array([0, 1]), parts.snapshot(np.array([0, 1])))
            parts = copy
        assert read(call, parts) == read(call, whole)


def test_quantiles_are_exact_up_to_the_limit_and_close_beyond() -> None:
    rng = np.random.default_rng(2)
    for size, tolerance in ((VALUES, 0.0), (60 * VALUES, 2e-3)):
        values = rng.exponential(size=size)
        for q in (0.0, 0.01, 0.5, 0.9, 0.999, 1.0):
            call = call_of(f"quantile(x, {q})")
            state = fresh_state(call)
            feed(state, values)
            rank = np.searchsorted(np.sort(values), read(call, state)) / size
            assert abs(rank - q) <= tolerance + 1 / size, (size, q)
            if not tolerance:
                assert read(call, state) == pytest.approx(float(np.quantile(values, q)), rel=1e-12)


def test_many_groups_may_outgrow_the_arena_at_once() -> None:
    call = call_of("quantile(x, 0.5)")
    state = fresh_state(call, places=500)
    rng = np.random.default_rng(3)
    slots = rng.integers(0, 500, 100_000).astype(np.int32)
    values = rng.normal(size=100_000)
    state.add(Members(slots, np.zeros(100_000, np.int64)), ColumnData(values))
    found = read_results(call, state, np.arange(500, dtype=np.int32), "number").data
    assert np.allclose(found, [np.median(values[slots == slot]) for slot in range(500)])


def test_distinct_values_are_exact_up_to_the_limit() -> None:
    call = call_of("count_distinct(x)")
    state = fresh_state(call, "integer")
    values = np.arange(TOKENS, dtype=np.int64).view(np.uint64)
    for _ in range(3):
        feed(state, values)
    assert read(call, state, kind="integer") == TOKENS


@pytest.mark.parametrize("size", [150_000, 1_000_000])
def test_beyond_the_limit_distinct_values_are_estimated_within_three_sigma(size: int) -> None:
    call = call_of("count_distinct(x)")
    state = fresh_state(call, "integer")
    values = np.arange(size, dtype=np.int64).view(np.uint64)
    feed(state, values)
    feed(state, values[: size // 2])
    assert abs(read(call, state, kind="integer") / size - 1) < 3 * 1.04 / math.sqrt(2**14)


def test_estimates_merge_with_exact_bags_and_with_each_other() -> None:
    call = call_of("count_distinct(x)")
    values = np.arange(400_000, dtype=np.int64).view(np.uint64)
    whole, parts = fresh_state(call, "integer"), fresh_state(call, "integer", 8)
    feed(whole, values)
    feed(parts, values[:180_000], slot=0)
    feed(parts, values[170_000:399_900], slot=1)
    feed(parts, values[399_000:], slot=2)
    parts.merge(np.array([3, 3, 3], np.int32), np.array([2, 0, 1], np.int32))
    assert read(call, parts, 3, "integer") == read(call, whole, kind="integer")


def test_entropy_of_values_and_of_bins() -> None:
    even = np.tile(np.arange(4, dtype=np.float64), 25)
    for text in ("entropy(x, 4)", "entropy(x, 4, 0, 4)", "entropy(x)"):
        call = call_of(text)
        state = fresh_state(call)
        feed(state, even)
        assert read(call, state) == pytest.approx(math.log(4))
    call = call_of("entropy(x)")
    state = fresh_state(call, "integer")
    feed(state, even.astype(np.int64).view(np.uint64))
    assert read(call, state, kind="integer") == pytest.approx(math.log(4))


def test_weights_repeat_rows() -> None:
    values = np.array([1.0, 5.0, 2.0])
    weights = np.array([3.0, 1.0, 2.0])
    for text in ("count(x)", "sum(x)", "mean(x)", "std(x)", "entropy(x, 3)", "entropy(x, 3, 0, 6)"):
        call = call_of(text)
        once, repeated = fresh_state(call), fresh_state(call)
        feed(once, values, weights=weights)
        feed(repeated, np.repeat(values, weights.astype(int)))
        assert read(call, once) == pytest.approx(read(call, repeated)), text


def test_infinite_values_are_kept() -> None:
    for text, expected in (("max(x)", math.inf), ("sum(x)", math.inf), ("quantile(x, 1)", math.inf)):
        call = call_of(text)
        state = fresh_state(call)
        feed(state, np.array([1.0, math.inf]))
        assert read(call, state) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e308, 1e308, -1e308], 1e308),
        ([-(2.0**1023)] * 3 + [2.0**1023] * 3 + [2.0**1000], 2.0**1000),
        ([1e308, 1e308], math.inf),
        ([-1e308, -1e308, -1e308], -math.inf),
        ([1e308, 1e308, math.inf, -1e308, -1e308], math.inf),
        ([1e308, 1e308, -math.inf], -math.inf),
        ([math.inf, -1e308, -1e308], math.inf),
        ([math.inf, -math.inf, 1.0], None),
    ],
)
def test_a_sum_is_infinite_only_where_the_whole_of_it_is(values: list[float], expected: float | None) -> None:
    call = call_of("sum(x)")
    for cut in range(len(values) + 1):  # panes of a window are merged in this way
        state = fresh_state(call)
        feed(state, np.array(values[:cut]))
        feed(state, np.array(values[cut:]), slot=1, start=cut)
        state.merge(np.array([2, 2], np.int32), np.array([0, 1], np.int32))
        assert read(call, state, 2) == expected
    assert numbers.total(values) == expected


def test_an_empty_group_gives_null_or_zero() -> None:
    for text in NUMERIC:
        call = call_of(text)
        expected = 0 if text.startswith(("count", "sum")) else None
        assert read(call, fresh_state(call)) == expected, text


def test_a_cleared_group_is_empty_again() -> None:
    for text in NUMERIC:
        call = call_of(text)
        state = fresh_state(call)
        feed(state, np.array([3.0, 4.0]))
        state.clear(np.array([0]))
        feed(state, np.array([7.0, 9.0]))
        fresh = fresh_state(call)
        feed(fresh, np.array([7.0, 9.0]))
        assert read(call, state) == read(call, fresh), text
