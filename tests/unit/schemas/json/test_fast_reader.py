"""Reading a valid chunk at once gives the same rows as reading it record by record."""

from unittest import mock

import orjson
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.catalog import Catalog, EventType
from astrocyte.schemas.json import reader as records
from astrocyte.schemas.times import iso_from_us

CATALOG = Catalog()
CATALOG.register(
    EventType(
        "probe",
        key="cell",
        types=("A", "B"),
        fields={
            "value": "float64", "cell": "string", "count": "int64", "small": "int32", "narrow": "float32",
            "alive": "bool",
        },
    )
)  # fmt: skip
CATALOG.register(
    EventType("nested", key="cell", fields={"value": "float64", "weights": "list<float32>", "note": "json"})
)

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-(2**63), 2**63) | st.sampled_from([-0.0, 0, 2**53 + 1, 1e300, 5.0])
ODD = st.none() | st.booleans() | st.text(max_size=4) | st.just([1]) | st.just({"x": 1})
STRINGS = st.text(max_size=8) | st.sampled_from(["", "é", 'a"b', "a\nb", "\0", "2025-01-01"])


def mostly(usual, odd=ODD):
    """Odd values now and then."""
    return st.integers(0, 30).flatmap(lambda dice: odd if dice == 0 else usual)


DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "cell": mostly(STRINGS), "count": mostly(st.integers(-5, 5)), "small": mostly(st.integers(-5, 2**32)),
        "narrow": mostly(NUMBERS), "alive": mostly(st.booleans()), "unlisted": mostly(STRINGS | NUMBERS),
        "weights": st.lists(st.floats(-1, 1), max_size=2), "note": ODD,
    },
)  # fmt: skip
BODIES = st.fixed_dictionaries(
    {
        "event_id": mostly(st.uuids().map(str) | STRINGS),
        "timestamp": mostly(st.integers(0, 2**51).map(iso_from_us)),
        "source_stream": st.just("stream:probe"),
        "type": mostly(st.sampled_from(["A", "B"])),
        "value": mostly(NUMBERS),
        "metadata": mostly(DETAILS),
    },
    optional={"time": st.none()},
)
VALUES = st.one_of(
    BODIES.map(orjson.dumps),
    BODIES.map(orjson.dumps),
    BODIES.map(orjson.dumps),
    BODIES.map(lambda body: orjson.dumps(body, option=orjson.OPT_INDENT_2)),
    st.sampled_from([None, b"", b"{}", b"{}{}", b'{"a":1}\n{"a":2}', b"NaN", b'{"value":NaN}', b'{"event_id":"\xff"}']),
)
CHUNKS = st.lists(BODIES.map(orjson.dumps), min_size=1, max_size=5) | st.lists(VALUES, max_size=5)


@given(
    chunk=CHUNKS, stream=st.sampled_from(["probe", "nested"]), key=st.sampled_from([b"k", "é".encode(), None, b"\xff"])
)
def test_a_chunk_read_at_once_is_the_chunk_read_record_by_record(chunk, stream, key):
    raw = [records.RawRecord(place, 1_000, key, value) for place, value in enumerate(chunk)]
    at_once = records.records_to_frame("mono.probe", 0, stream, raw, CATALOG)
    with mock.patch.object(records, "uniform_columns", return_value=None):
        one_by_one = records.records_to_frame("mono.probe", 0, stream, raw, CATALOG)
    assert at_once[1:] == one_by_one[1:]
    assert (at_once[0] is None) == (one_by_one[0] is None)
    if at_once[0] is not None and one_by_one[0] is not None:
        assert at_once[0].batch.schema == one_by_one[0].batch.schema
        assert repr(at_once[0].rows()) == repr(one_by_one[0].rows())  # NaN does not equal itself
        assert at_once[0].id_strings() == one_by_one[0].id_strings()


def test_a_valid_chunk_is_read_at_once():
    chunk = [
        orjson.dumps(
            {
                "event_id": "e", "timestamp": "2025-01-01T00:00:00Z", "source_stream": "stream:probe", "type": "A",
                "value": number, "metadata": {"cell": "c", "unlisted": 1},
            }
        )
        for number in range(3)
    ]  # fmt: skip
    raw = [records.RawRecord(place, 0, b"k", value) for place, value in enumerate(chunk)]
    assert records.uniform_columns(raw, CATALOG["probe"]) is not None
