"""The operator of statistics: windows, order of arrival, late rows, snapshots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.rows import Source
from astrocyte.agents.insight.statistic import Windows
from astrocyte.schemas.catalog import Field
from astrocyte.schemas.errors import InvalidSettings, SchemaMismatch
from astrocyte.schemas.event_types.insight import result_type
from astrocyte.schemas.frames import Frame


class Sums:
    """Sum, number of rows and, where state is carried, the sum of all windows so far."""

    sources = (Source("a", ("id",), ("value",)), Source("b", (), ("value",), ("kept",)))
    result = result_type("sums", "", {"name": Field("string", ""), "total": Field("float64", ""),
                                      "rows": Field("int64", ""), "all": Field("float64", "")})  # fmt: skip

    identity = ("name",)

    def __init__(self, windows, carries_state=False):
        self.windows, self.carries_state = windows, carries_state

    def step(self, window, rows, state):
        total = sum(float(part["value"].sum()) for part in rows)
        so_far = float(state["all"][0]) if state else 0.0
        found = {"name": "x", "total": total, "rows": sum(map(len, rows)), "all": so_far + total}
        return {"all": np.array([so_far + total])}, [found]


def frame(stream, t, values, run="r", types=None):
    columns = {"timestamp": np.array(t), "key": ["k"] * len(t), "value": np.array(values, float)}
    if stream == "a":
        columns["id"] = np.arange(len(t))
    if types:
        columns["type"] = types
    return Frame.from_columns(stream, run, columns)


def shown(result):
    return [] if result is None else result.rows()


def test_windows_are_half_open_and_closed_by_the_watermark():
    operator = InsightOperator(Sums(Windows(10)))
    operator.add(frame("a", [0, 9, 10], [1, 2, 4]))
    assert operator.next_close_us() == 10
    assert operator.advance(9) is None
    (row,) = shown(operator.advance(10))
    assert (row["total"], row["window_start"], row["window_end"], row["timestamp"]) == (3.0, 0, 10, 10)
    assert operator.low_water_us() == 10
    (row,) = shown(operator.advance(1_000))
    assert row["total"] == 4.0
    assert operator.next_close_us() is None


def test_overlapping_windows_hold_a_row_as_often_as_they_overlap():
    operator = InsightOperator(Sums(Windows(10, 5)))
    operator.add(frame("a", [1, 6, 11], [1, 2, 4]))
    rows = shown(operator.advance(100))
    assert [(row["window_start"], row["total"]) for row in rows] == [(-5, 1.0), (0, 3.0), (5, 6.0)]


def test_rows_of_closed_windows_are_late_and_left_out():
    operator = InsightOperator(Sums(Windows(10)))
    operator.advance(25)
    assert operator.add(frame("a", [19, 21, 3], [1, 2, 4])).tolist() == [0, 2]
    assert [row["total"] for row in shown(operator.flush())] == [2.0]


def test_only_rows_of_the_types_that_a_statistic_reads_count():
    operator = InsightOperator(Sums(Windows(10)))
    operator.add(frame("b", [1, 2, 3], [1, 2, 4], types=["kept", "other", "kept"]))
    operator.add(frame("c", [1], [100]))
    (row,) = shown(operator.flush())
    assert (row["total"], row["rows"]) == (5.0, 2)


def test_runs_are_apart_and_ordered_by_name():
    operator = InsightOperator(Sums(Windows(10), carries_state=True))
    operator.add(frame("a", [1], [1], run="z"))
    operator.add(frame("a", [2, 12], [2, 3], run="b"))
    result = operator.flush()
    assert [(row["key"], row["all"]) for row in result.rows()] == [("b", 2.0), ("z", 1.0), ("b", 5.0)]
    assert result.run == ""
    assert result.column("simulation_id").to_pylist() == ["b", "z", "b"]


def test_a_field_that_is_absent_or_of_another_type_is_named():
    operator = InsightOperator(Sums(Windows(10)))
    with pytest.raises(SchemaMismatch, match="no field 'id'"):
        operator.add(frame("a", [1], [1]).take(np.array([0])).__class__.from_columns(
            "a", "r", {"timestamp": [1], "key": ["k"], "value": [1.0]}))  # fmt: skip
    with pytest.raises(SchemaMismatch, match="'value' is"):
        operator.add(Frame.from_columns("b", "r", {"timestamp": [1], "key": ["k"], "value": ["x"], "type": ["kept"]}))


def test_statistics_that_follow_individuals_refuse_windows_that_overlap():
    with pytest.raises(InvalidSettings, match="overlap"):
        InsightOperator(Sums(Windows(10, 5), carries_state=True))
    with pytest.raises(InvalidSettings, match="size 10 us and step 11"):
        Windows(10, 11)


def test_after_a_flush_event_time_may_start_again():
    operator = InsightOperator(Sums(Windows(10), carries_state=True))
    operator.add(frame("a", [100], [1]))
    operator.flush()
    assert len(operator.add(frame("a", [1], [2]))) == 0
    assert shown(operator.flush())[0]["all"] == 2.0


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_results_do_not_depend_on_frames_order_of_arrival_or_restarts(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    step = data.draw(st.sampled_from([5, 10]))
    carries = step == 10 and data.draw(st.booleans())
    times = np.sort(rng.integers(0, 40, 12))
    late_by = rng.integers(0, 8, 12)
    restarts = rng.uniform(size=12) < 0.4
    rows = [("ab"[int(rng.integers(2))], int(t), float(rng.normal()), "rs"[int(rng.integers(2))]) for t in times]

    def one(stream, t, value, run, number):
        columns = {"timestamp": [t], "key": ["k"], "value": [value], "id": [number], "type": ["kept"]}
        return Frame.from_columns(stream, run, columns)

    whole = InsightOperator(Sums(Windows(10, step), carries))
    for number, row in enumerate(rows):
        whole.add(one(*row, number))
    expected = shown(whole.advance(1_000))

    lateness = 7
    order = sorted(range(len(rows)), key=lambda number: rows[number][1] + late_by[number])
    operator, found, newest = InsightOperator(Sums(Windows(10, step), carries)), [], 0
    for number in order:
        newest = max(newest, rows[number][1])
        assert len(operator.add(one(*rows[number], number))) == 0
        found += shown(operator.advance(newest - lateness))
        if restarts[number]:
            saved = operator.snapshot()
            operator = InsightOperator(Sums(Windows(10, step), carries))
            operator.restore(saved)
    found += shown(operator.flush())
    assert found == expected
