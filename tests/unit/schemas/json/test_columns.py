"""Columns written as JSON, read again by a JSON parser."""

import math

import orjson
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.json.columns import json_objects, json_values

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ['"', "\\", "\n", "\x7f", "\0"]
)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 5.0, 1e15, 1e16, 1e20, 5e-324, 0.1])


def same(read, given):
    """Equal in value and in type, with -0.0 distinguished from 0.0."""
    return type(read) is type(given) and read == given and math.copysign(1, read or 0) == math.copysign(1, given or 0)


@given(st.lists(st.none() | FLOATS), st.sampled_from([pa.float64(), pa.float32()]))
def test_floats_keep_their_value_and_values_without_a_json_form_are_null(values, kind):
    with_kind = pa.array(values, pa.float64()).cast(kind, safe=False)
    for text, value in zip(json_values(with_kind).to_pylist(), with_kind.to_pylist(), strict=True):
        read = orjson.loads(text)
        assert read is None if value is None or not math.isfinite(value) else same(read, value)


@given(st.lists(st.none() | STRINGS), st.booleans())
def test_strings_are_escaped(values, encoded):
    column = pa.array(values, pa.utf8())
    strings = json_values(column.dictionary_encode() if encoded else column)
    assert [orjson.loads(text) for text in strings.to_pylist()] == values


@given(
    st.one_of(
        st.tuples(st.just(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1))),
        st.tuples(st.just(pa.int32()), st.lists(st.none() | st.integers(-(2**31), 2**31 - 1))),
        st.tuples(st.just(pa.bool_()), st.lists(st.none() | st.booleans())),
        st.tuples(st.just(pa.list_(pa.float64())), st.lists(st.none() | st.lists(st.floats(-9, 9), max_size=3))),
        st.tuples(st.just(pa.null()), st.lists(st.none())),
    )
)
def test_integers_truth_values_lists_and_nothing_are_written(given_):
    kind, values = given_
    assert [orjson.loads(text) for text in json_values(pa.array(values, kind)).to_pylist()] == values


def test_a_column_of_json_is_written_as_the_values_that_it_holds():
    column = pa.array(['{"a": [1, "x"]}', None, "3"], pa.utf8())
    assert json_values(column, parsed=True).to_pylist() == ['{"a":[1,"x"]}', "null", "3"]
    assert json_values(column).to_pylist() == [r'"{\"a\": [1, \"x\"]}"', "null", '"3"']


@given(st.dictionaries(STRINGS, st.lists(st.integers(0, 9), min_size=2, max_size=2) | st.just("null"), max_size=3))
def test_objects_have_their_members_in_order(members):
    strings = {name: values if values == "null" else json_values(pa.array(values)) for name, values in members.items()}
    rows = [orjson.loads(text) for text in json_objects(strings, 2).to_pylist()]
    assert rows == [
        {name: None if values == "null" else values[row] for name, values in members.items()} for row in range(2)
    ]
    assert [list(row) for row in rows] == [list(members)] * 2
