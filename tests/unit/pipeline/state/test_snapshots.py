import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.state.snapshots import (
    PART_BYTES,
    SnapshotDamaged,
    SnapshotParts,
    pack_state,
    parts_of,
    unpack_state,
)
from astrocyte.schemas.errors import AstrocyteError

leaves = (
    st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.binary(max_size=20)
    | st.none()
    | st.booleans()
    | st.lists(st.integers(-9, 9), max_size=5).map(lambda values: np.array(values, np.int32))
    | st.lists(st.floats(width=32), max_size=5).map(lambda values: np.array(values, np.float32).reshape(1, -1))
)
states = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_size=4,
)


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(states)
def test_a_state_survives_packing(state):
    assert same(state, unpack_state(pack_state(state)))


def test_record_arrays_keep_their_layout():
    records = np.zeros(3, [("start", "i8"), ("link", "i4")])
    records["start"] = [1, 2, 3]
    back = unpack_state(pack_state({"runs": records}))["runs"]
    assert back.dtype == records.dtype
    assert back["start"].tolist() == [1, 2, 3]
    back["start"][0] = 9


@pytest.mark.parametrize("align", [False, True])
def test_padding_and_alignment_of_records_survive(align):
    records = np.zeros(2, np.dtype([("flag", "i1"), ("time", "i8"), ("link", "i4")], align=align))
    records["time"] = [5, 6]
    back = unpack_state(pack_state({"runs": records}))["runs"]
    assert back.dtype == records.dtype
    assert back.dtype.isalignedstruct == records.dtype.isalignedstruct
    assert back["time"].tolist() == [5, 6]


def test_damaged_bytes_are_refused():
    data = pack_state({"a": np.arange(1000)})
    for bad in (b"", b"xyz", data[:-1], data[: len(data) // 2]):
        with pytest.raises(AstrocyteError, match="expected a snapshot, got"):
            unpack_state(bad)


def test_the_newest_complete_snapshot_is_used_after_a_crash_truncated_the_last_one():
    old, new = np.random.default_rng(1).bytes(PART_BYTES * 2 + 5), np.random.default_rng(2).bytes(PART_BYTES + 1)
    parts = SnapshotParts()
    parts.add_all(parts_of("p3", 0, 7, old))
    parts.add_all(parts_of("p3", 1, 8, new)[:1])
    assert parts.newest("p3") == (7, old)
    parts.add_all(parts_of("p3", 1, 8, new)[1:])
    assert parts.newest("p3") == (8, new)
    assert parts.newest("p4") is None


def test_compaction_keeps_both_slots_complete():
    log = []
    for number in range(6):
        log += parts_of("p0", number % 2, number, bytes([number]) * (PART_BYTES + 1))
    log += parts_of("p0", 0, 6, b"cut off" * PART_BYTES)[:2]
    compacted = dict(log)
    parts = SnapshotParts()
    parts.add_all(compacted.items())
    assert parts.newest("p0") == (5, bytes([5]) * (PART_BYTES + 1))


def test_a_foreign_message_in_a_state_topic_is_named():
    for damaged in (
        b"hello",
        b"",
        b"\0\2{}",
        b"\0\4null",
        b"\0\x3a" + b'{"number": "x", "part": 0, "parts": 1, "writer": "", "b": 1}',
    ):
        parts = SnapshotParts()
        parts.add_all(parts_of("d0", 1, 5, b"five"))
        parts.add(b"d0/0/0", damaged)
        with pytest.raises(SnapshotDamaged, match="expected a part of a snapshot in the state topic") as raised:
            parts.newest("d0")
        assert raised.value.number == 5
        parts.add_all(parts_of("d0", 0, 6, b"six"))
        assert parts.newest("d0") == (6, b"six")


def test_parts_that_a_successor_and_a_stopped_process_wrote_under_one_number_are_not_mixed():
    parts, log = SnapshotParts(), {}
    old, new = bytes(PART_BYTES * 3), b"n" * (PART_BYTES + 5)
    log |= dict(parts_of("p", 0, 6, b"before", "first"))
    log |= dict(parts_of("p", 1, 7, new, "second"))
    log |= dict(parts_of("p", 1, 7, old, "first")[:1])  # it goes on, and is killed
    parts.add_all(log.items())
    assert parts.newest("p") == (6, b"before")
    log |= dict(parts_of("p", 1, 7, old, "first"))
    parts = SnapshotParts()
    parts.add_all(log.items())
    assert parts.newest("p") == (7, old)
