import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.schemas.ids import (
    derived_id,
    event_ids,
    format_ids,
    hash_id,
    ids_from_bytes,
    match_ids,
    mixed,
    parse_ids,
    place_ids,
)


def test_event_ids_are_uuids_of_version_8_and_never_change():
    ids = event_ids("run", "axon_1", np.arange(3))
    strings = format_ids(ids)
    assert [uuid.UUID(text).version for text in strings] == [8, 8, 8]
    assert {uuid.UUID(text).variant for text in strings} == {uuid.RFC_4122}
    # Stored ids must stay valid: these values are part of the wire format.
    assert strings == [
        "e9e76f9e-a82e-8c9b-a000-000000000000",
        "e9e76f9e-a82e-8c9b-a000-000000000001",
        "e9e76f9e-a82e-8c9b-a000-000000000002",
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


VALUE = uuid.UUID("6f0c4b1e-93d7-4c55-8f0a-2b7f5e1d9a34")


def test_a_foreign_id_is_hashed_and_that_of_the_dna_envelope_is_the_uuid_in_it():
    first, second, third = format_ids(parse_ids(["order-17", "order-17", "order-18"]))
    assert first == second != third
    assert format_ids(parse_ids([f"evt_dna_1703001234567_{VALUE.hex}"])) == [str(VALUE)]


def test_a_prefix_of_a_uuid_is_part_of_the_id():
    prefixed = [f"{before}{VALUE}" for before in ("", "req_", "evt_", "a:", "a:req_", "uuid:", "urn:uuid:", "{")]
    assert len(set(format_ids(parse_ids(prefixed)))) == len(prefixed)
    assert len({derived_id(text, "lap", "2") for text in prefixed}) == len(prefixed)


@given(
    st.lists(
        st.uuids().map(str)
        | st.uuids().map(lambda value: str(value).upper())
        | st.uuids().map(lambda value: value.hex)
        | st.uuids().map(lambda value: f"evt_dna_17_{value.hex}")
        | st.uuids().map(lambda value: f"req_{value}")
        | st.text(max_size=40)
        | st.text("0123456789abcdefg-é", min_size=36, max_size=36),
        max_size=6,
    )
)
def test_ids_of_a_batch_are_those_of_its_strings_one_by_one(strings):
    assert (parse_ids(strings) == np.concatenate([parse_ids([""]), *(_one_id(text) for text in strings)])[1:]).all()


def _one_id(text):
    """By the uuid module, of the spellings that are ids: with hyphens, without, and that of the dna envelope."""
    bare = text.removeprefix("evt_dna_17_").lower()
    try:
        value = uuid.UUID(bare)
    except ValueError:
        value = None
    return ids_from_bytes((hash_id(text) if value is None or bare not in (str(value), value.hex) else value).bytes)


NUMBERS = st.lists(st.integers(-(2**60), 2**60) | st.integers(0, 9), unique=True, max_size=9)


@given(NUMBERS)
def test_ids_of_one_run_and_stream_sort_as_its_sequence_numbers(numbers):
    ids = event_ids("run", "axon_1", np.array(numbers, np.int64))
    assert np.lexsort((ids[:, 1], ids[:, 0])).tolist() == np.argsort(numbers).tolist()


@given(st.lists(st.tuples(st.integers(0, 2**49) | st.integers(0, 3), st.integers(0, 2**24 - 1)), unique=True))
def test_ids_of_one_partition_sort_as_offset_and_row(places):
    offsets, rows = np.array(places, np.int64).reshape(-1, 2).T
    ids = place_ids("mono.S", 0, offsets, rows)
    assert all(uuid.UUID(text).version == 8 for text in format_ids(ids))
    order = sorted(range(len(places)), key=lambda at: places[at])
    assert np.lexsort((ids[:, 1], ids[:, 0])).tolist() == order
    assert len(np.unique(ids, axis=0)) == len(places)


def test_ids_of_places_of_neighbouring_topics_and_partitions_are_distinct():
    places = [(f"mono.{number}", partition) for number in range(100) for partition in range(50)]
    ids = np.concatenate([place_ids(*place, np.arange(20)) for place in places])
    assert len(np.unique(ids, axis=0)) == len(ids)


@given(NUMBERS, st.integers(2, 5))
def test_derived_ids_are_others_and_sort_as_those_that_they_are_made_of(numbers, lap):
    strings = format_ids(event_ids("run", "axon_1", np.array(sorted(numbers), np.int64)))
    derived = [derived_id(text, "lap", str(lap)) for text in strings]
    assert derived == sorted(derived)
    assert not set(derived) & set(strings)
    assert derived_id("order-7", "lap", "2") != derived_id("order-7", "lap", "3")


def test_mixed_ids_are_evenly_distributed_in_all_of_their_bits():
    for ids in (event_ids("r", "s", np.arange(4096)), place_ids("t", 0, np.arange(4096))):
        bits = np.unpackbits(mixed(ids).view(np.uint8).reshape(-1, 8), axis=1)
        assert (np.abs(bits.mean(axis=0) - 0.5) < 0.05).all()


def test_match_ids_of_events_of_one_producer_differ_in_both_words():
    events = event_ids("r", "s", np.arange(2000))
    pairs = match_ids("rule", "1", events, np.tile([0, 1], 1000), np.arange(0, 2001, 2))
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == 1000


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
