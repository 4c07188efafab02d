"""Windows against a brute-force oracle: any kind, any division into calls, any restart gives the same results."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import Frame
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import Window
from astrocyte.agents.windows import WindowOperator, WindowRows, windows_for
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.values.mixed import column_of
from tests.support import window_oracle
from tests.support.search import examples

SELECT = {f"f{index}": text for index, text in enumerate(window_oracle.AGGREGATES)}
KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {"every": "10us"},
    "hopping": {"size": "20us", "every": "5us"},
    "uneven": {"size": "17us", "every": "5us"},
    "sliding": {"sliding": "12us"},
    "session": {"session": "7us"},
}

event_lists = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": st.integers(-40, 120),
            "key": st.sampled_from(["a", "b", "c"]),
            "x": st.none() | st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3)),
            "name": st.none() | st.sampled_from(["u", "v", "wörter"]),
        }
    ),
    max_size=60,
)


def frame_of(events: list[dict[str, Any]], run: str = "r", **meta: Any) -> Frame:
    columns = {
        "timestamp": np.array([event["timestamp"] for event in events], np.int64),
        "key": pa.array([event["key"] for event in events], pa.utf8()),
        "x": column_of([event["x"] for event in events]),
        "name": pa.array([event.get("name") for event in events], pa.utf8()).dictionary_encode(),
    }
    return Frame.from_columns("stream", run, columns, **meta)


def window(kind: str = "tumbling", select: dict[str, str] | None = None, **more: Any) -> WindowOperator:
    shape = KINDS[kind] if not {"every", "size", "session", "sliding"} & more.keys() else {}
    return WindowOperator(Window(name="w", source="stream", select=select or SELECT, **{**shape, **more}))


def rows_of(*frames: Frame | None) -> list[dict[str, Any]]:
    return [row for frame in frames if frame is not None for row in frame.rows()]


def expect(kind: str, events: list[dict[str, Any]], select: dict[str, str] = SELECT) -> dict[Any, dict[str, Any]]:
    shape: dict[str, Any] = {
        "tumbling": {"size": 10, "step": 10}, "hopping": {"size": 20, "step": 5}, "uneven": {"size": 17, "step": 5},
        "sliding": {"size": 12}, "session": {"size": 7},
    }[kind]  # fmt: skip
    return window_oracle.results(events, "hopping" if kind == "uneven" else kind, select, **shape)


def check(found: list[dict[str, Any]], expected: dict[Any, dict[str, Any]], select: dict[str, str] = SELECT) -> None:
    by_window = {(row["key"], row["window_start"], row["window_end"]): row for row in found}
    assert by_window.keys() == expected.keys()
    assert len(found) == len(expected)
    for place, values in expected.items():
        assert by_window[place]["timestamp"] == place[2]
        for name, value in values.items():
            got = by_window[place][name]
            if isinstance(value, float) and got is not None:
                assert math.isclose(got, value, rel_tol=1e-6, abs_tol=1e-6), (select[name], place)
            else:
                assert got == value, (select[name], place)


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(events, key=lambda event: event["timestamp"])


def in_pieces(
    operator: WindowOperator, events: list[dict[str, Any]], cuts: list[int], restart: set[int]
) -> list[dict[str, Any]]:
    """Feed sorted events in pieces, with the watermark after each, restarting from a snapshot at some of them."""
    found: list[dict[str, Any]] = []
    bounds = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    for number, (begin, end) in enumerate(pairwise(bounds)):
        if end > begin:
            assert not len(operator.add(frame_of(events[begin:end])))
            found += rows_of(operator.advance(events[end - 1]["timestamp"]))
        if number in restart:
            snapshot = operator.snapshot()
            operator = WindowOperator(operator.spec)
            operator.restore(snapshot)
    found += rows_of(operator.flush())
    assert operator.low_water_us() is None
    assert operator.flush() is None
    return found


@pytest.mark.parametrize("kind", KINDS)
@examples(15, search=40)
@given(events=event_lists)
def test_results_equal_the_oracle(kind: str, events: list[dict[str, Any]]) -> None:
    operator = window(kind)
    if events:
        operator.add(frame_of(in_order(events)))
    check(rows_of(operator.flush()), expect(kind, events))


@pytest.mark.parametrize("kind", KINDS)
@examples(15, search=40)
@given(
    events=event_lists,
    cuts=st.lists(st.integers(0, 60), max_size=6),
    restart=st.sets(st.integers(0, 6), max_size=3),
)
def test_division_into_calls_and_restarts_do_not_change_the_bits(
    kind: str, events: list[dict[str, Any]], cuts: list[int], restart: set[int]
) -> None:
    events = in_order(events)
    whole = in_pieces(window(kind), events, [], set())
    pieces = in_pieces(window(kind), events, cuts, restart)
    assert pieces == whole


@pytest.mark.parametrize("kind", KINDS)
@examples(12, search=30)
@given(events=event_lists, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_rows_out_of_order_give_the_same_results(kind: str, events: list[dict[str, Any]], cuts: list[int]) -> None:
    # The last and first of equal times and the moving average follow the order of processing, which differs here.
    unordered = {name: text for name, text in SELECT.items() if not text.startswith(("first", "last", "ewma"))}
    operator = window(kind, unordered)
    bounds = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    for begin, end in pairwise(bounds):
        if end > begin:
            operator.add(frame_of(events[begin:end]))
    check(rows_of(operator.flush()), expect(kind, events, unordered), unordered)


def test_prepared_rows_can_be_joined_and_reordered() -> None:
    events = [{"timestamp": time, "key": "ab"[time % 2], "x": float(time), "name": "u"} for time in range(40)]
    operator = window("hopping")
    parts = [operator.prepare(frame_of(events[20:])), operator.prepare(frame_of(events[:20]))]
    rows = WindowRows.concat(parts)
    rows = WindowRows.restore(rows.take(np.argsort(rows.t, kind="stable")).snapshot())
    operator.add(rows)
    check(rows_of(operator.flush()), expect("hopping", events))


@given(time=st.integers(-(10**6), 10**6), size=st.integers(1, 50), step=st.integers(1, 60), offset=st.integers(0, 9))
@settings(deadline=None)
def test_windows_for_gives_every_window_that_holds_a_time(time: int, size: int, step: int, offset: int) -> None:
    found = windows_for(time, size_us=size, step_us=step, offset_us=offset)
    numbers = range((time - size - offset) // step - 1, (time - offset) // step + 2)
    starts = [offset + number * step for number in numbers if offset + number * step <= time]
    assert found == [(start, start + size) for start in starts if time < start + size]


def test_a_window_is_half_open_and_its_result_bears_its_end() -> None:
    operator = window(select={"n": "count()"})
    operator.add(frame_of([{"timestamp": time, "key": "a", "x": 1.0} for time in (0, 9, 10)]))
    assert operator.advance(9) is None
    closed = rows_of(operator.advance(10))
    assert [(row["timestamp"], row["window_start"], row["n"]) for row in closed] == [(10, 0, 2)]


def test_results_come_in_order_of_their_end_and_then_key() -> None:
    operator = window(select={"n": "count()"})
    operator.add(frame_of([{"timestamp": time, "key": key, "x": 1.0} for time in range(0, 40, 5) for key in "cab"]))
    found = [(row["timestamp"], row["key"]) for row in rows_of(operator.flush())]
    assert found == sorted(found)


def test_ids_are_functions_of_window_key_and_extent_alone() -> None:
    events = [{"timestamp": time, "key": "ab"[time % 2], "x": float(time)} for time in range(30)]
    one, two = window(), window()
    two.add(frame_of([{"timestamp": -500, "key": "zz", "x": 0.0}]))
    two.advance(-480)
    ids = []
    for operator in (one, two):
        operator.add(frame_of(events))
        frame = operator.flush()
        assert frame is not None
        named = zip(frame.rows(), frame.id_strings(), strict=True)
        ids.append({(row["key"], row["timestamp"]): text for row, text in named})
    assert ids[0] == ids[1]
    assert len(set(ids[0].values())) == len(ids[0])


def test_late_rows_are_flagged_and_left_out() -> None:
    operator = window(select={"n": "count()"})
    operator.add(frame_of([{"timestamp": 3, "key": "a", "x": 1.0}]))
    operator.advance(12)
    late = operator.add(frame_of([{"timestamp": time, "key": "a", "x": 1.0} for time in (11, 4, 13)]))
    assert late.tolist() == [1]
    assert [row["n"] for row in rows_of(operator.flush())] == [2]


@pytest.mark.parametrize("kind", ["sliding", "session"])
def test_late_rows_of_other_windows_are_flagged(kind: str) -> None:
    operator = window(kind, {"n": "count()"})
    operator.add(frame_of([{"timestamp": 3, "key": "a", "x": 1.0}]))
    operator.advance(50)
    assert operator.add(frame_of([{"timestamp": 20, "key": "a", "x": 1.0}])).tolist() == [0]


def test_a_row_late_for_one_hopping_window_still_counts_in_the_open_ones() -> None:
    operator = window("hopping", {"n": "count()"})
    operator.add(frame_of([{"timestamp": 16, "key": "a", "x": 1.0}]))
    operator.advance(20)
    assert not len(operator.add(frame_of([{"timestamp": 17, "key": "a", "x": 1.0}])))
    assert {row["window_end"]: row["n"] for row in rows_of(operator.flush())} == {25: 2, 30: 2, 35: 2}


def test_late_revise_gives_corrected_results_with_a_revision() -> None:
    operator = window(select={"n": "count()", "s": "sum(x)"}, late="revise", keep="20us")
    operator.add(frame_of([{"timestamp": 3, "key": "a", "x": 1.0}]))
    (first,) = rows_of(operator.advance(12))
    assert (first["n"], first["revision"], first["final"]) == (1, 0, True)
    assert operator.updates() is None
    assert not len(operator.add(frame_of([{"timestamp": 4, "key": "a", "x": 2.0}])))
    (second,) = rows_of(operator.updates())
    assert (second["n"], second["s"], second["revision"], second["final"]) == (2, 3.0, 1, True)
    assert second["event_id"] == first["event_id"]
    operator.add(frame_of([{"timestamp": 5, "key": "a", "x": 2.0}]))
    assert operator.advance(13) is None
    snapshot = operator.snapshot()
    operator = WindowOperator(operator.spec)
    operator.restore(snapshot)
    (third,) = rows_of(operator.updates())
    assert (third["n"], third["revision"]) == (3, 2)
    operator.advance(30)
    assert operator.add(frame_of([{"timestamp": 6, "key": "a", "x": 1.0}])).tolist() == [0]
    assert operator.low_water_us() is None


def test_a_late_row_for_a_window_without_rows_gives_its_first_result() -> None:
    operator = window("hopping", {"n": "count()"}, late="revise", keep="100us")
    operator.add(frame_of([{"timestamp": 50, "key": "a", "x": 1.0}]))
    operator.advance(41)
    operator.add(frame_of([{"timestamp": 12, "key": "b", "x": 1.0}]))
    found = rows_of(operator.updates())
    assert [(row["key"], row["window_end"], row["revision"]) for row in found] == [
        ("b", 15, 0), ("b", 20, 0), ("b", 25, 0), ("b", 30, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["tumbling", "hopping", "session"])
def test_update_mode_gives_preliminary_results_then_the_final_one(kind: str) -> None:
    operator = window(kind, {"n": "count()"}, emit="update")
    operator.add(frame_of([{"timestamp": 20, "key": "a", "x": 1.0}]))
    first = rows_of(operator.updates())
    assert {(row["n"], row["final"], row["revision"]) for row in first} == {(1, False, 0)}
    assert operator.updates() is None
    operator.add(frame_of([{"timestamp": 21, "key": "a", "x": 1.0}]))
    second = rows_of(operator.updates())
    assert {(row["n"], row["final"], row["revision"]) for row in second} == {(2, False, 1)}
    final = rows_of(operator.flush())
    assert {(row["n"], row["final"], row["revision"]) for row in final} == {(2, True, 2)}
    assert len(first) == len(second) == len(final)


def test_by_any_field_and_by_the_run() -> None:
    frames = [
        Frame.from_columns("s", run, {"timestamp": np.arange(4), "key": ["k"] * 4, "cell": np.array([1, 2, 1, 2])})
        for run in ("one", "two")
    ]
    by_cell = window(select={"n": "count()"}, by="cell")
    by_run = window(select={"n": "count()"}, by="simulation_id")
    for frame in frames:
        by_cell.add(frame)
        by_run.add(frame)
    cells, runs = rows_of(by_cell.flush()), rows_of(by_run.flush())
    assert [(row["key"], row["cell"], row["n"], row["simulation_id"]) for row in cells] == [
        ("1", 1, 4, None), ("2", 2, 4, None),
    ]  # fmt: skip
    assert [(row["simulation_id"], row["n"]) for row in runs] == [("one", 4), ("two", 4)]


def test_the_catalogs_name_of_a_streams_key_can_be_grouped_by() -> None:
    text = "windows:\n  - {name: w, from: cell_vitals, by: island, every: 1s, select: {n: count()}}\n"
    operator = WindowOperator(load_rules(text).windows[0])
    operator.add(Frame.from_columns("cell_vitals", "r", {"timestamp": np.arange(3), "key": ["7", "7", "8"]}))
    assert [(row["island"], row["n"]) for row in rows_of(operator.flush())] == [("7", 2), ("8", 1)]


def test_null_and_missing_keys_form_a_group_of_their_own() -> None:
    operator = window(select={"n": "count()"})
    operator.add(frame_of([{"timestamp": 1, "key": key, "x": 1.0} for key in (None, "a", None)]))
    assert [(row["key"], row["n"]) for row in rows_of(operator.flush())] == [("a", 1), (None, 2)]
    operator = window(select={"n": "count()"}, by="island")
    operator.add(frame_of([{"timestamp": 1, "key": "a", "x": 1.0}]))
    assert [(row["key"], row["island"], row["n"]) for row in rows_of(operator.flush())] == [(None, None, 1)]


def test_where_filters_rows_and_select_computes_with_aggregates_and_bounds() -> None:
    operator = window(
        select={
            "rate": "count() / (window_end - window_start)",
            "spread": "max(x) - min(x)",
            "biggest": "max(max(x), 7)",
        },
        where="x >= 2 and name == 'u'",
    )
    operator.add(
        frame_of([{"timestamp": time, "key": "a", "x": float(time), "name": "uv"[time == 5]} for time in range(7)])
    )
    (row,) = rows_of(operator.flush())
    assert (row["rate"], row["spread"], row["biggest"]) == (0.4, 4.0, 7.0)


def test_integers_of_the_catalog_stay_exact_beyond_the_doubles() -> None:
    spec = Window(
        name="w", source="population_metrics", by="simulation_id", every="10us",
        select={"top": "max(tick)", "all": "sum(tick)", "last": "last(tick)", "alive": "mean(total_population)"},
    )  # fmt: skip
    operator = WindowOperator(spec)
    ticks = np.array([2**60 + 1, 2**60 + 3], np.int64)
    operator.add(
        Frame.from_columns(
            "population_metrics", "r",
            {"timestamp": np.array([1, 2]), "key": ["r", "r"], "tick": ticks, "total_population": np.array([3, 4])},
        )
    )  # fmt: skip
    (row,) = rows_of(operator.flush())
    assert (row["top"], row["all"], row["last"], row["alive"]) == (2**60 + 3, 2**61 + 4, 2**60 + 3, 3.5)


@pytest.mark.parametrize(("count", "total"), [(2, 2**63 + 2), (4, float(2**64 + 4))])
def test_a_sum_of_integers_never_overflows(count: int, total: float) -> None:
    operator = WindowOperator(Window(name="w", source="population_metrics", every="10us", select={"all": "sum(tick)"}))
    columns = {"timestamp": np.arange(count), "key": ["r"] * count, "tick": np.full(count, 2**62 + 1, np.int64)}
    operator.add(Frame.from_columns("population_metrics", "r", columns))
    found = rows_of(operator.flush())[0]["all"]
    assert repr(found) == repr(total)


def test_numbers_text_and_booleans_of_one_field_are_aggregated_by_their_kinds() -> None:
    select = {"sum": "sum(x)", "mean": "mean(x)", "most": "max(x)", "n": "count(x)", "distinct": "count_distinct(x)",
              "first": "first(x)", "last": "last(x)", "bits": "entropy(x)"}  # fmt: skip
    for values in (["n/a", 2**53 + 1, None, True, 1, 0.5, 1.0], ["n/a", True]):
        rows = [{"timestamp": index, "key": "a", "x": value} for index, value in enumerate(values)]
        whole, single = window(select=select), window(select=select)
        whole.add(frame_of(rows))
        for row in rows:
            single.add(frame_of([row]))
        (found,) = rows_of(whole.flush())
        assert found == rows_of(single.flush())[0]
        if len(values) > 2:
            wanted = (2**53 + 3.5, (2**53 + 3.5) / 4, 2**53 + 1, 6, 5, "n/a", 1.0)
        else:
            wanted = (0, None, None, 2, 2, "n/a", True)
            assert found["bits"] == pytest.approx(math.log(2))
        assert tuple(found[name] for name in list(select)[:-1]) == wanted


def test_conditions_are_counted_by_count_if() -> None:
    operator = window(select={"n": "count_if(x > 2)", "named": "count_if(name == 'a')", "flags": "count_if(x)"})
    rows = [{"x": 3, "name": "a"}, {"x": None, "name": "b"}, {"x": "n/a", "name": "a"}, {"x": 2.5}, {"x": 0}]
    operator.add(frame_of([{"timestamp": index, "key": "a", **row} for index, row in enumerate(rows)]))
    (found,) = rows_of(operator.flush())
    assert (found["n"], found["named"], found["flags"]) == (2, 2, 3)
    with pytest.raises(InvalidRule, match="sum of a condition: true and false are no numbers; count with count_if"):
        window(select={"n": "sum(x > 2)"})


def test_rows_that_stand_for_several_count_so() -> None:
    operator = window(select={"n": "count()", "s": "sum(x)", "m": "mean(x)"})
    operator.add(frame_of([{"timestamp": 1, "key": "a", "x": 6.0}], weight=2.0))
    operator.add(frame_of([{"timestamp": 2, "key": "a", "x": 3.0}]))
    (row,) = rows_of(operator.flush())
    assert (row["n"], row["s"], row["m"]) == (3, 15.0, 5.0)


def test_low_water_is_the_oldest_row_of_an_open_window() -> None:
    for kind in KINDS:
        operator = window(kind, {"n": "count()"})
        assert operator.low_water_us() is None
        operator.add(frame_of([{"timestamp": time, "key": "a", "x": 1.0} for time in (23, 29, 41)]))
        assert operator.low_water_us() == 23
        operator.advance(200)
        assert operator.low_water_us() is None, kind
        assert operator.next_close_us() is None


def test_memory_is_bounded_by_open_windows() -> None:
    for kind in KINDS:
        operator = window(kind, {"n": "count()", "d": "count_distinct(x)", "q": "quantile(x, 0.5)"})
        operator = WindowOperator(operator.spec, waiting=tuple)  # rows are added as soon as they are prepared
        for step in range(60):
            start = step * 50
            events = [{"timestamp": start + row // 40, "key": f"k{step}-{row}", "x": float(row)} for row in range(200)]
            operator.add(frame_of(events))
            operator.advance(step * 50 + 49)
            operator.advance(step * 50 + 50)
        state = operator._windows
        assert state is not None
        assert len(state.groups.slots) <= 4_096, kind
        assert len(operator._keys) <= 8_192, kind
        operator.flush()


def test_flush_lets_time_start_anew() -> None:
    operator = window(select={"n": "count()"})
    operator.add(frame_of([{"timestamp": 1_000, "key": "a", "x": 1.0}]))
    operator.flush()
    assert not len(operator.add(frame_of([{"timestamp": 1, "key": "a", "x": 1.0}])))
    assert [row["window_end"] for row in rows_of(operator.flush())] == [10]


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("mean(x", "not an expression"),
        ("x + 1", r"field 'x' is outside an aggregate.*last\(x\)"),
        ("quantile(x)", r"expected quantile\(x, 0.9\), got quantile with 1 arguments"),
        ("quantile(x, 1.5)", "expected a number from 0 to 1, got 1.5"),
        ("ewma(x, 0)", "above 0 and at most 1, got 0"),
        ("entropy(x, 0)", "a whole number of bins from 1 to 65536, got 0"),
        ("entropy(x, 8, 3, 1)", "low and high with low < high"),
        ("mode(x)", "unknown function 'mode'"),
        ("mean(sum(x))", "cannot be nested in another aggregate function"),
    ],
)
def test_a_bad_selection_names_window_field_and_position(select: str, message: str) -> None:
    text = f"windows:\n  - {{name: w, from: s, every: 1s, select: {{good: count(), bad: '{select}'}}}}\n"
    with pytest.raises(InvalidRule, match=f"2:.*: window 'w': .*select.bad: .*{message}.*at character"):
        load_rules(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "by: iland, select: {n: count()}",
            "by: stream cell_vitals has no field 'iland'; did you mean 'simulation_id'",
        ),
        ("select: {n: mean(enrgy)}", "select.n: stream cell_vitals has no field 'enrgy'; did you mean 'energy'"),
        ("where: alife, select: {n: count()}", "where: stream cell_vitals has no field 'alife'; did you mean 'alive'"),
    ],
)
def test_a_window_over_a_known_stream_reads_fields_that_it_has(line: str, message: str) -> None:
    with pytest.raises(InvalidRule, match=message):
        load_rules(f"windows:\n  - {{name: w, from: cell_vitals, every: 1s, {line}}}\n")


def test_a_field_that_every_result_has_cannot_be_selected() -> None:
    with pytest.raises(InvalidRule, match="every result already has a field 'revision'; rename it"):
        window(select={"revision": "count()"})


def test_revise_is_refused_where_a_result_could_not_be_corrected() -> None:
    with pytest.raises(InvalidRule, match="late: revise applies to tumbling and hopping windows only"):
        window("session", late="revise", keep="1s")


def test_distinct_counts_of_many_values_are_estimated_and_quantiles_are_close() -> None:
    operator = WindowOperator(
        Window(name="w", source="s", every="1s", select={"d": "count_distinct(x)", "q": "quantile(x, 0.99)"})
    )
    rng = np.random.default_rng(3)
    x = rng.permutation(200_000).astype(np.float64)
    for begin in range(0, len(x), 30_000):
        part = x[begin : begin + 30_000]
        columns = {"timestamp": np.full(len(part), 5), "key": pa.array(["a"] * len(part)), "x": part}
        operator.add(Frame.from_columns("s", "r", columns))
    (row,) = rows_of(operator.flush())
    assert abs(row["d"] / 200_000 - 1) < 0.03
    assert abs(row["q"] / 198_000 - 1) < 0.005
