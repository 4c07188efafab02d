"""Events in many small blocks and in few joined ones: the same answers to every question."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.event_time.event_store import EventStore, Located, Origin
from astrocyte.schemas.frames import Frame

blocks = st.lists(
    st.tuples(
        st.sampled_from(["axon_1", "axon_2"]),
        st.sampled_from(["run", ""]),
        st.integers(1, 4),
        st.sampled_from([None, 7, "rows"]),
        st.sampled_from(["plain", "ids", "list"]),
    ),
    min_size=1,
    max_size=8,
)


def frame_of(number: int, stream: str, run: str, rows: int, form: str) -> Frame:
    columns = {
        "timestamp": np.arange(rows) + 10 * number,
        "key": [f"d{(number + row) % 3}" for row in range(rows)],
        "type": ["A"] * rows,
        "value": [None if row == 2 else row + number / 8 for row in range(rows)],
    }
    if form == "ids":
        columns["event_id"] = [f"own {number} {row}" for row in range(rows)]
    if form == "list":
        columns["several"] = pa.array([[1.0] * row for row in range(rows)], pa.list_(pa.float32()))
    return Frame.from_columns(stream, run, columns, first_seq=100 * number)


def held(given_blocks) -> EventStore:
    store = EventStore()
    for number, (stream, run, rows, place, form) in enumerate(given_blocks):
        offsets = np.arange(rows) + 50 * number if place == "rows" else place
        origin = None if place is None else Origin(f"mono.{stream}", 3, offsets)
        store.add(frame_of(number, stream, run, rows, form), origin)
    return store


def described(events: Located) -> list[tuple]:
    """All that is known of each event, in order."""
    found: list[tuple] = [()] * len(events)
    ids, refs, times = events.ids(), events.refs().tolist(), events.timestamps().tolist()
    for block, positions, rows in events.parts():
        frame, origin = block.frame, block.origin
        columns = {name: frame.values(name) for name in ("key", "type", *frame.fields)}
        strings = frame.id_strings(rows)
        for at, (position, row) in enumerate(zip(positions.tolist(), rows.tolist(), strict=True)):
            place = None if origin is None else (origin.topic, origin.partition, origin.offset_of(row))
            values = {name: column[row] for name, column in columns.items()}
            numbers = ids[position].tolist(), refs[position], times[position]
            found[position] = (frame.stream, frame.run, place, values, numbers, strings[at])
    return found


@given(blocks, st.randoms(use_true_random=False))
def test_joined_blocks_hold_the_same_events(given_blocks, random):
    store = held(given_blocks)
    refs = [random.randrange(store.next_ref) for _ in range(random.randrange(1, 12))]
    events = store.locate(np.array(refs, np.int64))
    joined = events.joined()
    assert described(joined) == described(events)
    assert joined.refs().tolist() == refs
    kinds = {(stream, run, place is not None, form) for stream, run, _, place, form in given_blocks if form != "list"}
    assert len(joined.blocks) <= len(kinds) + sum(form == "list" for *_, form in given_blocks)


def test_blocks_that_a_compaction_has_copied_are_joined_with_whole_ones():
    store = held([("axon_1", "run", 4, 7, "plain")] * 3)
    store.compact(np.array([1, 4, 5, 6, 7, 11], np.int64), thorough=True)
    events = store.locate(np.array([11, 1, 6], np.int64))
    joined = events.joined()
    assert described(joined) == described(events)
    assert joined.refs().tolist() == [11, 1, 6]
    assert len(joined.blocks) < 3


def test_large_blocks_are_left_as_they_are():
    store = held([("axon_1", "run", 3000, 7, "plain")] * 2)
    events = store.locate(np.array([0, 3000], np.int64))
    assert events.joined() is events
