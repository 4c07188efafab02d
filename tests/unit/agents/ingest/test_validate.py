"""Validators: what is refused and why, what is changed, and that no row is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import Frame
from astrocyte.agents.ingest.validate import Passed, Validators
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.validators import Validator
from astrocyte.schemas.errors import InvalidRule


def frame_of(stream: str = "s", times: list[int] | None = None, **columns: Any) -> Frame:
    rows = len(next(iter(columns.values())))
    times = times if times is not None else list(range(rows))
    arrays = {
        "timestamp": np.array(times, np.int64),
        "key": pa.array(["k"] * rows),
        **{name: pa.array(values) if isinstance(values, list) else values for name, values in columns.items()},
    }
    return Frame.from_columns(stream, "r", arrays)


def apply(frame: Frame, *specs: dict[str, Any]) -> Passed:
    passed = Validators([Validator.model_validate({"stream": "s", **spec}) for spec in specs]).apply(frame)
    assert passed.frame.num_rows + len(passed.refused) + passed.sampled == frame.num_rows
    assert len(passed.rows) == passed.frame.num_rows
    assert passed.frame.timestamps().tolist() == frame.timestamps()[passed.rows].tolist()
    return passed


def test_a_good_frame_passes_without_a_copy() -> None:
    frame = frame_of(x=[1.0, 2.0])
    passed = apply(frame)
    assert passed.frame.batch is frame.batch
    assert passed.rows.tolist() == [0, 1]


def test_timestamps_outside_of_1970_to_2100_are_refused() -> None:
    passed = apply(frame_of(times=[-1, 5, 1_700_000_000 * 10**9], x=[1.0, 2.0, 3.0]))
    assert passed.rows.tolist() == [1]
    assert [row for row, _ in passed.refused] == [0, 2]
    assert "timestamp -1; expected microseconds since 1970" in passed.refused[0][1]
    assert "is it in another unit?" in passed.refused[1][1]


def test_values_that_are_not_finite_are_refused_and_nulls_are_not() -> None:
    passed = apply(frame_of(x=pa.array([1.0, None, float("nan"), float("inf"), 2.0])))
    assert passed.rows.tolist() == [0, 1, 4]
    assert passed.refused == [
        (2, "field 'x' is nan; expected a finite number"), (3, "field 'x' is inf; expected a finite number"),
    ]  # fmt: skip


def test_lists_are_searched_for_values_that_are_not_finite() -> None:
    weights = pa.array([[1.0], [], [2.0, float("nan")], None], pa.list_(pa.float32()))
    passed = apply(frame_of(w=weights))
    assert passed.rows.tolist() == [0, 1, 3]


def test_a_sum_that_overflows_refuses_no_row() -> None:
    assert not apply(frame_of(x=[1.7e308, 1.7e308])).refused


def test_not_finite_values_can_become_null_or_stay() -> None:
    values = pa.array([1.0, float("nan"), None])
    assert apply(frame_of(x=values), {"non_finite": "null"}).frame.column("x").to_pylist() == [1.0, None, None]
    assert apply(frame_of(x=values), {"non_finite": "keep"}).frame.num_rows == 3


def test_required_fields_must_be_there_and_not_null() -> None:
    passed = apply(frame_of(x=pa.array([1.0, None]), name=pa.array(["a", None])), {"require": ["x", "name"]})
    assert passed.refused == [(1, "field 'x' is null")]
    passed = apply(frame_of(name=pa.array(["a", None])), {"require": ["name"]})
    assert passed.refused == [(1, "field 'name' is null")]
    assert apply(frame_of(x=[1.0]), {"require": ["y"]}).refused == [(0, "field 'y' is missing")]


def test_a_condition_refuses_with_the_values_it_saw() -> None:
    passed = apply(frame_of(x=pa.array([1.0, -2.0, None]), y=["u", "v", "w"]), {"where": "x > 0 and y != 'q'"})
    assert passed.rows.tolist() == [0]
    assert passed.refused == [
        (1, "x > 0 and y != 'q' does not hold (x is -2.0, y is 'v')"),
        (2, "x > 0 and y != 'q' does not hold (x is null, y is 'w')"),
    ]
    assert apply(frame_of(x=[1.0]), {"where": "x > 3", "reason": "too weak"}).refused == [(0, "too weak")]


def test_fields_are_set_in_order_and_keep_their_type() -> None:
    frame = frame_of(x=np.array([1.5, 2.5], np.float32))
    passed = apply(frame, {"set": {"x": "2 * x", "y": "x + 1", "label": "'seen'"}})
    assert passed.frame.column("x").to_pylist() == [3.0, 5.0]
    assert passed.frame.column("x").type == pa.float32()
    assert passed.frame.column("y").to_pylist() == [4.0, 6.0]
    assert passed.frame.column("label").to_pylist() == ["seen", "seen"]


def test_fields_are_renamed_and_dropped() -> None:
    passed = apply(frame_of(a=[1], b=[2], c=[3]), {"rename": {"a": "b"}, "drop": ["c"]})
    assert passed.frame.fields == ("b",)
    assert passed.frame.column("b").to_pylist() == [1]


def test_validators_of_one_stream_run_in_order() -> None:
    passed = apply(frame_of(x=[1.0, 5.0]), {"set": {"y": "x * 10"}}, {"where": "y > 20"})
    assert passed.rows.tolist() == [1]


def test_other_streams_are_not_changed() -> None:
    frame = frame_of("other", x=[-1.0])
    assert Validators([Validator(stream=("s",), where="x > 0")]).apply(frame).frame.num_rows == 1


def test_sampling_is_by_id_and_gives_accepted_rows_a_weight() -> None:
    frame = frame_of(x=np.arange(20_000.0))
    passed = apply(frame, {"sample": 0.25})
    assert abs(passed.frame.num_rows - 5_000) < 300
    assert passed.frame.weight == 4.0
    half = apply(frame.slice(10_000, 20_000), {"sample": 0.25})
    assert half.rows.tolist() == [row - 10_000 for row in passed.rows.tolist() if row >= 10_000]


def test_identity_of_rows_survives() -> None:
    frame = frame_of(x=[1.0, -1.0, 3.0])
    passed = apply(frame, {"where": "x > 0", "set": {"y": "x"}})
    assert passed.frame.id_strings() == frame.id_strings(np.array([0, 2]))


def test_a_frame_of_another_schema_is_refused_whole() -> None:
    passed = Validators([]).apply(frame_of("axon_1", value=["three", "four"]))
    assert [row for row, _ in passed.refused] == [0, 1]
    assert "field 'value'" in passed.refused[0][1]


def test_end_and_watermark_stay_with_the_accepted_rows() -> None:
    frame = Frame.from_columns("s", "r", {"timestamp": np.array([-5]), "key": ["k"]}, watermark_us=9, end=True)
    passed = apply(frame)
    assert (passed.frame.num_rows, passed.frame.watermark_us, passed.frame.end) == (0, 9, True)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(width=32) | st.integers(-5, 5).map(float), max_size=30),
    policy=st.sampled_from(["reject", "null", "keep"]),
    sample=st.none() | st.floats(0.1, 1.0),
)
def test_every_row_passes_is_refused_or_is_sampled(values: list[Any], policy: str, sample: float | None) -> None:
    frame = frame_of(x=pa.array(values, pa.float64())) if values else frame_of(x=pa.array([], pa.float64()))
    spec = {"non_finite": policy, "require": ["x"], "where": "x < 3", "set": {"y": "x + 1"}, "sample": sample}
    passed = apply(frame, spec)
    rows = [row for row, _ in passed.refused]
    assert rows == sorted(set(rows))
    assert not set(rows) & set(passed.rows.tolist())
    assert all(values[row] is not None and values[row] < 3 for row in passed.rows.tolist())


@pytest.mark.parametrize("section", ["validators", "saccules"])
def test_validators_are_read_from_a_rule_file(section: str) -> None:
    rules = load_rules(
        f"""
        {section}:
          - {{stream: [axon_1, axon_2], require: [value], where: "0 <= value <= 100", reason: value out of range}}
        """
    )
    passed = Validators(rules.validators).apply(frame_of("axon_2", value=[1.0, 500.0]))
    assert passed.refused == [(1, "value out of range")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{stream: axon_1, were: 'value > 0'}", "unknown field 'were'; did you mean 'where'"),
        ("{stream: axon_1, where: 'value >'}", "where: not an expression"),
        ("{stream: axon_1, set: {key: 'value'}}", "set names 'key', which validators cannot change"),
        ("{stream: axon_1, reason: 'bad'}", "reason applies to where, which is missing"),
        ("{stream: axon_1, rename: {a: c, b: c}}", "gives two fields the same name"),
        ("{stream: evolutionary_events, sample: 0.5}", "cannot be sampled, since its events are critical"),
        ("{stream: axon_1, sample: 2}", "less than or equal to 1"),
        ("{stream: axn_1}", "unknown stream 'axn_1'; did you mean 'axon_1'"),
    ],
)
def test_a_bad_validator_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidRule, match=message) as caught:
        load_rules(f"validators:\n  - {text}\n", known_streams=["axon_1", "evolutionary_events"])
    assert "2:" in str(caught.value)
