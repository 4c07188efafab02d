"""The expression language: what it accepts, what it refuses and where, and that all evaluators agree."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.expressions.columns import evaluate, predicate
from astrocyte.agents.expressions.nodes import ExpressionError
from astrocyte.agents.expressions.parser import Aggregate, Field, parse, parse_template
from astrocyte.agents.expressions.scalar import compile_scalar, render
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.agents.expressions.values import Columns
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.values.mixed import column_of

EVENTS = [
    {"value": 1.5, "count": 3, "name": "alpha", "flag": True},
    {"value": None, "count": 2**53 + 1, "name": "beta", "flag": False},
    {"value": math.nan, "count": -7, "name": None, "flag": None},
    {"value": -2.0, "count": 0, "name": "", "flag": True},
]
CONDITIONS = [
    "value > 1",
    "value != 1",
    "not value > 1",
    "value is None",
    "value is not None and value < 0",
    "count == 9007199254740993",
    "count > 9007199254740992.0",
    "count != 9007199254740992",
    "count < 1.5",
    "count in (3, 0)",
    "count not in (3, 0)",
    "name == 'alpha'",
    "name != 'alpha'",
    "name in ('alpha', 'beta')",
    "'a' in name",
    "not ('a' in name) and ('a' in name) == False",
    "name.startswith('al') or endswith(name, 'ta')",
    "'alpha' < name",
    "name == count",
    "flag and value > 0",
    "flag == 1",
    "1 < value <= 1.5",
    "abs(value) == 2 and sqrt(abs(value)) > 1.4",
    "log(value) > 0",
    "sqrt(value) >= 0",
    "count / (count - 3) > 0",
    "count % 4 == 3",
    "min(value, count) == -2",
    "max(value, count, 2) == 3",
    "-value == 2",
    "missing == 1",
    "missing != 1",
    "missing is None",
    "missing + value is None",
    "count + count == 18014398509481986",
    "True",
    "name",
    "value",
]


def columns_of(events, names=("value", "count", "name", "flag")):
    arrays = {
        "value": pa.array([event["value"] for event in events], pa.float64()),
        "count": pa.array([event["count"] for event in events], pa.int64()),
        "name": pa.array([event["name"] for event in events]).dictionary_encode(),
        "flag": pa.array([event["flag"] for event in events], pa.bool_()),
    }
    return Columns(arrays.get, len(events))


@pytest.mark.parametrize("text", CONDITIONS)
def test_columns_and_single_events_agree(text):
    node = parse(text)
    alone = [bool(compile_scalar(node)(event, {})) for event in EVENTS]
    assert predicate(node, columns_of(EVENTS)).tolist() == alone


@pytest.mark.parametrize("text", CONDITIONS)
def test_the_printed_form_of_an_expression_parses_to_the_same_expression(text):
    node = parse(text)
    assert parse(to_text(node)) == node


def truth(text, event):
    return bool(compile_scalar(parse(text))(event, {}))


def test_comparison_with_null_is_false_and_nan_never_matches():
    for value in (None, math.nan):
        assert not any(truth(f"x {op} 1", {"x": value}) for op in ("<", "<=", ">", ">=", "==", "!="))
        assert truth("x is None", {"x": value})


def test_integers_beyond_float_precision_stay_integers():
    big = 2**53 + 1
    assert truth(f"x == {big}", {"x": big})
    assert not truth(f"x == {big - 1}", {"x": big})
    flags = predicate(parse(f"x > {big - 1}"), Columns(lambda _: pa.array([big - 1, big]), 2))
    assert flags.tolist() == [False, True]


def test_integer_sums_that_overflow_become_floats():
    columns = Columns(lambda _: pa.array([2**62, 1]), 2)
    assert evaluate(parse("x + x"), columns).data.tolist() == [float(2**63), 2.0]


def test_slice_of_a_large_dictionary_is_tested_by_the_values_in_it():
    strings = pa.array([f"t{number}" for number in range(1000)])
    array = pa.DictionaryArray.from_arrays(pa.array([5, None, 999], pa.int32()), strings)
    assert predicate(parse("x == 't999'"), Columns(lambda _: array, 3)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("value >", 6, "not an expression: something is missing after '>'"),
        ("value > 3 or ", 10, "not an expression: something is missing after 'or'"),
        ("  foo(1)", 2, "unknown function"),
        ("x.y > 1", 0, "unknown step"),
        ("(lambda: 1)()", 0, "only named functions"),
        ("__import__('os')", 0, "unknown function"),
        ("value if x else y", 0, "'if ... else' is not part"),
        ("[v for v in x]", 0, "a comprehension is not part"),
        ("x.y.z", 0, "a field of a field is not part"),
        ("'é' + x", 0, "arithmetic"),
        ("ü > 1 and 'a' * 2 > 1", 10, "arithmetic"),
        ("x < None", 0, "is None"),
        ("x in y", 0, "text constant"),
        ("1 ** 2", 0, r"'\*\*' is not part"),
        ("x >> 2 > 1", 0, "'>>' is not part"),
        ("x[0] > 1", 0, r"'\[...\]' is not part"),
        ("x is 3", 0, "tests for None"),
        ("99999999999999999999", 0, "64 bits"),
        ("startswith(x)", 0, "takes a field"),
        ("sqrt(x, y)", 0, "sqrt: expected one argument, got 2"),
        ("", 0, "empty"),
    ],
)
def test_syntax_outside_the_language_is_refused_with_its_position(text, position, reason):
    with pytest.raises(ExpressionError, match=reason) as caught:
        parse(text)
    assert caught.value.position == position
    assert isinstance(caught.value, InvalidRule)


def test_an_index_into_the_events_of_a_step_is_refused_with_the_function_to_write():
    with pytest.raises(
        ExpressionError, match=r"of several events of a step write first\(d\.badge\) or last\(d\.badge\)"
    ):
        parse("d[0].badge == 'x'", steps={"d"})


def test_size_is_bounded():
    for text in ("x > 1 and " * 300 + "x > 1", "(" * 300 + "x" + ")" * 300, "-" * 2001, "not " * 40 + "x"):
        with pytest.raises(ExpressionError):
            parse(text)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_string_parses_or_is_refused_with_a_position(text):
    position = None
    try:
        parse(text, steps=("a",))
    except ExpressionError as error:
        position = error.position
    assert position is None or 0 <= position <= max(len(text), 1)


def test_own_step_is_the_current_event_except_in_functions_over_several():
    assert parse("b.value", steps=("a", "b"), own="b") == Field(None, "value")
    assert parse("a.value", steps=("a", "b"), own="b") == Field("a", "value")
    assert parse("last(b.value)", steps=("b",), own="b") == Aggregate("last", "b", (Field("b", "value"),))
    assert parse("count(b)", steps=("b",), own="b") == Aggregate("count", "b", ())


def test_outputs_must_name_their_step():
    with pytest.raises(ExpressionError, match="does not name its step"):
        parse("value", steps=("a",), bare_fields=False)
    with pytest.raises(ExpressionError, match="is a step"):
        parse("a + 1", steps=("a",), bare_fields=False)


def test_functions_over_the_events_of_a_step():
    prior = {"b": [{"x": 3}, {"x": None}, {"x": 5}]}
    values = {
        func: compile_scalar(parse(f"{func}(b.x)", steps=("b",)))({}, prior)
        for func in ("sum", "mean", "min", "max", "count", "first", "last")
    }
    assert values == {"sum": 8, "mean": 4, "min": 3, "max": 5, "count": 2, "first": 3, "last": 5}
    assert compile_scalar(parse("count(b)", steps=("b",)))({}, prior) == 3
    assert compile_scalar(parse("sum(b.x)", steps=("b",)))({}, {}) == 0
    assert compile_scalar(parse("max(b.x)", steps=("b",)))({}, {}) is None


def test_template_renders_values_with_formats():
    pieces = parse_template("{{{now.kind}}} fell to {now.value:.1f}, was {before.value}", steps=("now", "before"))
    prior = {"now": [{"kind": "x", "value": 1.25}], "before": [{"value": None}]}
    assert render(pieces, prior) == "{x} fell to 1.2, was null"


@pytest.mark.parametrize(
    ("text", "position"), [("a {now.value", 2), ("a } b", 2), ("{now.}", 0), ("x {foo.y}", 3), ("{now.v:zz}", 0)]
)
def test_broken_template_is_refused_with_its_position(text, position):
    with pytest.raises(ExpressionError) as caught:
        parse_template(text, steps=("now",))
    assert caught.value.position >= position


def test_null_arithmetic_and_division_by_zero_are_null():
    event = {"x": 0, "y": None}
    for text in ("1 / x", "1 % x", "x + y", "log(x)", "sqrt(x - 1)", "-y"):
        assert compile_scalar(parse(text))(event, {}) is None
    columns = Columns(lambda name: pa.array([0]) if name == "x" else pa.array([None], pa.int64()), 1)
    for text in ("1 / x", "1 % x", "x + y", "log(x)", "sqrt(x - 1)", "-y"):
        assert not np.broadcast_to(evaluate(parse(text), columns).is_valid, (1,))[0]


def test_constants_have_64_bits_and_a_condition_is_no_number() -> None:
    columns = Columns({"x": column_of([2**64 - 1, 2**63, -(2**63), "n/a", True])}.get, 5)
    for text, rows in (
        ("x == 18446744073709551615", [0]),
        ("x >= 9223372036854775808", [0, 1]),
        ("x == -9223372036854775808", [2]),
        ("x in (9223372036854775808, 'n/a')", [1, 3]),
        ("x in (1, True)", [4]),
        ("x == 1 or x + 1 is None", [3, 4]),
    ):
        node = parse(text)
        assert np.flatnonzero(predicate(node, columns)).tolist() == rows, text
        for row, value in enumerate([2**64 - 1, 2**63, -(2**63), "n/a", True]):
            assert bool(compile_scalar(node)({"x": value}, {})) == (row in rows), (text, value)
    for text, message in (
        ("x == 18446744073709551616", "expected an integer of 64 bits, up to 18446744073709551615"),
        ("x == -9223372036854775809", "expected an integer of at least -9223372036854775808"),
        ("x + (y > 3) > 1", "expected a number, got a condition; true and false are no numbers"),
        ("-True == x", "expected a number, got a condition"),
        ("min(x, y == 3) > 1", "expected a number, got a condition"),
    ):
        with pytest.raises(ExpressionError, match=message):
            parse(text)
