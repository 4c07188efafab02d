"""Chunks of flat objects, read column by column, are those of the general reader."""

from unittest import mock

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrocyte.schemas.json import reader
from astrocyte.schemas.json.flat_reader import flat_columns

TIMES = st.one_of(
    st.floats(1e8, 4e9),
    st.integers(0, 4_102_444_799),
    st.integers(10**12, 4 * 10**12),
    st.floats(1e11, 4e12),
    st.integers(10**18, 4 * 10**18),
    st.integers(-5, 5),
    st.sampled_from(["2025-01-01T00:00:00Z", "2025-01-01 00:00:00.5", "1735689600", "2025-01-01T24:00:00", "x", None]),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=2), st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2),
)  # fmt: skip
NAMES = st.sampled_from(
    ["timestamp", "time", "ts", "event_time", "x", "seq", "seq_", "simulation_id", "é", "key", "type", "metadata", "op"]
)
KEYS = st.sampled_from([b"k", "é".encode(), None, b"\xff", b"\x00\x01"])


@st.composite
def chunks(draw: st.DrawFn) -> list[reader.RawRecord]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    alike = st.sampled_from([TIMES, st.floats(1e9, 2e9), st.integers(1, 4 * 10**12)])
    times = draw(alike)
    records = []
    for offset in range(draw(st.integers(1, 5))):
        body = {
            name: draw(times if name in ("timestamp", "time", "ts", "event_time") else VALUES)
            for name in (names if draw(st.integers(0, 9)) else names[1:])
        }
        headers = draw(st.sampled_from([(), (), (), (("trace", b"1"),), (("ce_id", b"1"), ("ce_type", b"t"))]))
        stamp = draw(st.sampled_from([1_735_689_600_000, 1_735_689_600_001, -1]))
        records.append(reader.RawRecord(offset, stamp, draw(KEYS), orjson.dumps(body), headers))
    return records


def record(offset: int, **members: object) -> reader.RawRecord:
    return reader.RawRecord(offset, 1_735_689_600_000, b"k", orjson.dumps(members), ())


@given(records=chunks())
@example(records=[record(0, time=0.5, x=1), record(1, time=1e11, x=2)])  # two units
@example(records=[record(0, timestamp=None, time=1), record(1, timestamp=None, time=2)])
@example(records=[record(0, time=99999999999.9), record(1, time=1.0000005), record(2, time=0.0000015)])
def test_a_flat_chunk_read_at_once_is_the_chunk_read_record_by_record(records):
    at_once = reader.records_to_frame("mono.a", 0, "a", records)
    with mock.patch.object(reader, "flat_columns", return_value=None):
        one_by_one = reader.records_to_frame("mono.a", 0, "a", records)
    assert at_once[1:] == one_by_one[1:]
    assert (at_once[0] is None) == (one_by_one[0] is None)
    if at_once[0] is not None and one_by_one[0] is not None:
        assert at_once[0].batch.schema == one_by_one[0].batch.schema
        assert at_once[0].rows() == one_by_one[0].rows()
        assert at_once[0].id_strings() == one_by_one[0].id_strings()


def test_members_in_the_same_order_are_read_at_once():
    columns = flat_columns([record(0, time=1.5, x=1), record(1, time=2.5, x="a")])
    assert columns is not None
    assert columns["timestamp"].tolist() == [1_500_000, 2_500_000]


@pytest.mark.parametrize("second", [{"x": 1, "time": 2}, {"time": 2}, {"time": None, "x": 1}, {"time": "2", "x": 1}])
def test_records_that_differ_in_form_are_left_to_the_general_reader(second):
    assert flat_columns([record(0, time=1, x=1), record(1, **second)]) is None
