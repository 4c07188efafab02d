"""Line protocol of columns, read back by the tests' own parser."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.sinks.influx.lines import encode_points
from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.values.mixed import column_of
from tests.support.line_protocol import read_points

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda name: not name.startswith("#") and not name.endswith("\\")
)
STRINGS = st.text(st.sampled_from([*"ab ,=\"\\/é€\n'#"])) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = {
    "count": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "ratio": (pa.float64(), st.floats()),
    "single": (pa.float32(), st.floats(width=32)),
    "alive": (pa.bool_(), st.booleans()),
    "note": (pa.utf8(), STRINGS),
    "kind": (TEXT, STRINGS),
}


def in_a_tag(text):
    """The string as a tag can hold it: no control characters but as two, and a dot after a backslash at the end."""
    for plain, two in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, two)
    return text + "." if text.rstrip(".").endswith("\\") else text


def there(value):
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


@settings(max_examples=40, deadline=None)
@given(st.data(), NAMES, st.integers(1, 5))
def test_what_is_encoded_is_read_back(data, name, count):
    columns = {}
    for field, (kind, values) in VALUES.items():
        drawn = data.draw(st.lists(values | st.none(), min_size=count, max_size=count))
        columns[field] = pa.array(drawn, kind)
    tags = {
        tag: pa.array(data.draw(st.lists(STRINGS | st.none(), min_size=count, max_size=count)), TEXT)
        for tag in data.draw(st.sets(NAMES, max_size=3))
    }
    times = np.arange(count) - 1
    lines = encode_points(name, tags, columns, times)
    points = read_points(lines.payload())
    kept = [row for row in range(count) if any(there(column[row].as_py()) for column in columns.values())]
    assert lines.rows.tolist() == kept
    assert lines.empty == count - len(kept)
    assert len(points) == len(kept)
    for row, point in zip(kept, points, strict=True):
        assert point.measurement == name
        assert point.time_ns == row - 1
        wanted = {tag: in_a_tag(column[row].as_py()) for tag, column in tags.items() if column[row].as_py()}
        assert dict(point.tags) == wanted
        values = {field: column[row].as_py() for field, column in columns.items()}
        assert {k: v for k, v in point.fields.items() if k != "single"} == {
            k: v for k, v in values.items() if there(v) and k != "single"
        }
        if there(values["single"]):
            assert np.float32(point.fields["single"]) == np.float32(values["single"])


def test_types_do_not_depend_on_values():
    columns = {"ratio": pa.array([1.0, 1e30, -0.0]), "count": pa.array([1, 0, -5]), "on": pa.array([True, False, True])}
    text = encode_points("m", {}, columns, np.zeros(3, np.int64)).payload().decode()
    assert text.splitlines() == [
        "m ratio=1,count=1i,on=true 0",
        "m ratio=1e+30,count=0i,on=false 0",
        "m ratio=-0,count=-5i,on=true 0",
    ]
    assert [type(value) for value in read_points(text)[0].fields.values()] == [float, int, bool]


def test_a_float_of_32_bits_is_written_as_short_as_it_can_be_read_back():
    text = encode_points("m", {}, {"x": pa.array([0.1], pa.float32())}, np.zeros(1, np.int64)).payload()
    assert text == b"m x=0.1 0\n"


def test_a_list_is_one_field_with_its_json_text():
    lists = pa.array([[0.5, 1.0], None, [], [float("nan"), None, 2.0]], pa.list_(pa.float32()))
    columns = {"weights": lists, "x": pa.array([1, 1, 1, 1])}
    points = read_points(encode_points("m", {}, columns, np.arange(4)).payload())
    assert [point.fields.get("weights") for point in points] == ["[0.5,1]", None, "[]", "[null,null,2]"]
    sliced = {"weights": lists.slice(2, 2), "x": columns["x"].slice(2, 2)}
    assert read_points(encode_points("m", {}, sliced, np.arange(2)).payload())[1].fields["weights"] == "[null,null,2]"


def test_a_row_without_values_gives_no_point_and_is_counted():
    columns = {"x": pa.array([1.0, None, math.nan]), "y": pa.array([None, None, math.inf], pa.float64())}
    lines = encode_points("m", {"t": pa.array(["a", "", None], TEXT)}, columns, np.arange(3))
    assert lines.payload() == b"m,t=a x=1 0\n"
    assert (lines.empty, len(lines)) == (2, 1)
    nothing = encode_points("m", {}, {"x": pa.nulls(3, pa.float64())}, np.arange(3))
    assert (nothing.empty, nothing.payload()) == (3, b"")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b", r"a\ b"),
        ("a,b=c", r"a\,b\=c"),
        ('say "no"', 'say\\ "no"'),
        ("C:\\tmp", "C:\\tmp"),
        ("ends\\", "ends\\."),
        ("ends\\.", "ends\\.."),
        ("ends ", "ends\\ "),
        ("ends.", "ends."),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_tags_are_escaped_as_influxdb_reads_them(value, written):
    lines = encode_points("m", {"t": pa.array([value], TEXT)}, {"x": pa.array([1])}, np.zeros(1, np.int64))
    assert lines.payload().decode() == f"m,t={written} x=1i 0\n"


@given(st.lists(st.text(st.sampled_from("a\\ .,="), min_size=1, max_size=5), min_size=2, max_size=2, unique=True))
def test_two_keys_are_never_one_series(keys):
    lines = encode_points("m", {"t": pa.array(keys, TEXT)}, {"x": pa.array([1, 1])}, np.zeros(2, np.int64))
    points = read_points(lines.payload())
    assert len({point.identity for point in points}) == 2


def test_a_field_with_values_of_several_types_is_one_field_for_each_type():
    column = column_of([5, "n/a", 0.5, True, None, 2**63])
    points = read_points(
        encode_points("m", {"t": column}, {"x": column, "y": pa.array(range(6))}, np.arange(6)).payload()
    )
    found = [{name: value for name, value in point.fields.items() if name != "y"} for point in points]
    assert found == [{"x": 5.0}, {"x_text": "n/a"}, {"x": 0.5}, {"x_bool": True}, {}, {"x": 2.0**63}]
    assert [dict(point.tags).get("t") for point in points] == ["5", "n/a", "0.5", "true", None, "9223372036854775808"]
