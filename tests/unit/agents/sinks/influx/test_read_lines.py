"""Line protocol read back, against the reader of the tests, which follows the specification."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.lines import encode_points
from astrocyte.agents.sinks.influx.read_lines import canonical, point_fields, point_key, point_line, points_in
from tests.support.line_protocol import read_points

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@given(tag=TEXT, text=TEXT, number=st.floats(allow_nan=False, allow_infinity=False), whole=st.integers(-5, 5))
def test_a_point_is_read_as_it_was_written(tag, text, number, whole, tmp_path_factory):
    fields = {"a b": pa.array([text]), "n,1": pa.array([number]), "i": pa.array([whole]), "t": pa.array([True])}
    line = encode_points("m e,as", {"k=": pa.array([tag])}, fields, np.array([1_700_000_000_000_000_001])).payload()
    path = tmp_path_factory.mktemp("points") / "points-000001.lp.gz"
    path.write_bytes(gzip.compress(b"# offsets\n" + line))
    ((_, found),) = points_in(path)
    assert found.encode() + b"\n" == line
    (point,) = read_points(line)
    assert point_fields(found) == {
        "a b": canonical("string", str(point.fields["a b"])),
        "n,1": canonical("double", repr(number)),
        "i": canonical("long", str(whole)),
        "t": canonical("boolean", "true"),
    }
    assert point_key(found).endswith(" 1700000000000000001")


@given(values=st.lists(st.none() | TEXT, min_size=1, max_size=4))
def test_a_point_is_the_same_line_whatever_is_written_beside_it(values):
    fields = {"key": pa.array(values, pa.utf8()), "a": pa.array(["x, y=1"] * len(values))}
    times = np.arange(len(values))
    together = encode_points("m", {}, fields, times).strings.to_pylist()
    alone = [
        encode_points("m", {}, {name: column[row : row + 1] for name, column in fields.items()}, times[row : row + 1])
        for row in range(len(values))
    ]
    for line, own in zip(together, alone, strict=True):
        (one,) = own.strings.to_pylist()
        assert point_line(line[:-1]) == point_line(one[:-1])
        assert point_fields(point_line(one[:-1])) == point_fields(one[:-1])


def test_a_block_that_is_being_written_is_left_out_and_a_damaged_one_is_an_error(tmp_path):
    whole = gzip.compress(b"m f=1 1\n")
    path = tmp_path / "points-000001.lp.gz"
    path.write_bytes(whole + whole[:-5])
    assert [line for _, line in points_in(path)][:1] == ["m f=1 1"]
    path.write_bytes(whole[:12] + b"\xff\xff\xff" + whole[15:])
    with pytest.raises(SinkError, match="cannot be read"):
        list(points_in(path))
