import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.ids import event_ids, format_ids, hash_id, hash_ids, ids_from_bytes, match_ids, parse_ids


def test_event_ids_are_uuids_of_version_8_and_never_change():
    ids = event_ids("run", "axon_1", np.arange(3))
    strings = format_ids(ids)
    assert [uuid.UUID(text).version for text in strings] == [8, 8, 8]
    assert {uuid.UUID(text).variant for text in strings} == {uuid.RFC_4122}
    # Stored ids must stay valid: these values are part of the wire format.
    assert strings == [
        "b759378e-13ae-8500-a075-2bbeb47990f3",
        "35a19fa1-1da8-876f-8b61-74dcbc01a3b2",
        "60bf75e0-e052-80f1-b909-82b637746070",
    ]


def test_a_million_ids_of_neighbouring_runs_and_streams_are_distinct():
    ids = np.concatenate(
        [event_ids(run, stream, np.arange(250_000)) for run in ("a", "b") for stream in ("axon_1", "axon_2")]
    )
    assert len(np.unique(ids, axis=0)) == 1_000_000


@given(st.lists(st.uuids(), max_size=10))
def test_strings_and_bytes_of_ids_round_trip(values):
    strings = [str(value) for value in values]
    ids = parse_ids(strings)
    assert format_ids(ids) == strings
    assert format_ids(ids_from_bytes(b"".join(value.bytes for value in values))) == strings


def test_a_foreign_id_is_hashed_and_a_prefixed_uuid_is_itself():
    first, second, third = format_ids(parse_ids(["order-17", "order-17", "order-18"]))
    assert first == second != third
    value = uuid.UUID("6f0c4b1e-93d7-4c55-8f0a-2b7f5e1d9a34")
    assert format_ids(parse_ids([f"evt_dna_1703001234567_{value.hex}"])) == [str(value)]


@given(
    st.lists(
        st.uuids().map(str)
        | st.uuids().map(lambda value: str(value).upper())
        | st.uuids().map(lambda value: value.hex)
        | st.text(max_size=40)
        | st.text("0123456789abcdefg-é", min_size=36, max_size=36),
        max_size=6,
    )
)
def test_ids_of_a_batch_are_those_of_its_strings_one_by_one(strings):
    assert (parse_ids(strings) == np.concatenate([parse_ids([""]), *(_one_id(text) for text in strings)])[1:]).all()


def _one_id(text):
    """By the uuid module, which takes any spelling of a UUID."""
    try:
        value = uuid.UUID(text.rpartition("_")[2])
    except ValueError:
        value = hash_id(text)
    return ids_from_bytes(value.bytes)


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=5), max_size=4))
def test_ids_hashed_together_are_those_hashed_alone(first, last):
    alone = [hash_id(*first, text).bytes for text in last]
    assert (hash_ids(first, last) == ids_from_bytes(b"".join(alone))).all()


def test_parts_of_a_hashed_id_are_delimited():
    assert hash_id("ab", "c") != hash_id("a", "bc")


def test_a_match_id_depends_on_rule_version_events_order_and_steps_but_not_on_the_batch():
    events = event_ids("r", "s", np.arange(6))
    steps = np.array([0, 1, 0, 1, 1, 0])
    together = match_ids("rule", "1", events, steps, np.array([0, 2, 5, 6]))
    alone = np.concatenate(
        [match_ids("rule", "1", events[a:b], steps[a:b], np.array([0, b - a])) for a, b in ((0, 2), (2, 5), (5, 6))]
    )
    assert (together == alone).all()
    base = match_ids("rule", "1", events[:2], steps[:2], np.array([0, 2]))
    variants = [
        match_ids("other", "1", events[:2], steps[:2], np.array([0, 2])),
        match_ids("rule", "2", events[:2], steps[:2], np.array([0, 2])),
        match_ids("rule", "1", events[1::-1], steps[:2], np.array([0, 2])),
        match_ids("rule", "1", events[:2], np.array([0, 0]), np.array([0, 2])),
        match_ids("rule", "1", events[:1], steps[:1], np.array([0, 1])),
    ]
    assert len({tuple(ids[0]) for ids in [base, *variants]}) == 6
