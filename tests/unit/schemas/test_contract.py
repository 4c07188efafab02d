"""What identifies an event, and what its key is, by the contract of its stream."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import load_rules, match
from astrocyte.schemas.contract import scoped_id
from astrocyte.schemas.ids import parse_ids
from tests.support.declared import message, read

UUID = "73ef885b-fdf0-87c8-90be-1d60884f4e8b"
PARTS = st.text("a:%3A5", max_size=6) | st.text(max_size=60)


@given(PARTS, PARTS, PARTS, PARTS)
def test_an_id_in_a_scope_is_that_of_no_other_pair(scope, text, other_scope, other_text):
    first, second = scoped_id(scope, text), scoped_id(other_scope, other_text)
    assert (first == second) == ((scope, text) == (other_scope, other_text))
    assert max(len(first), len(second)) <= 100


def ids_of(frames):
    return [text for item in frames for text in item.frame.id_strings()]


def words_of(frames):
    return [tuple(row) for item in frames for row in item.frame.ids().tolist()]


@pytest.mark.parametrize("value", ["o-17", UUID, UUID.upper(), UUID.replace("-", ""), f"req_{UUID}", 17])
def test_one_declared_id_in_two_streams_is_two_events(value):
    streams = "streams: [{name: a, id: rid, time: {field: at}}, {name: b, id: rid, time: {field: at}}]\n"
    rules = load_rules(
        streams + "rules: [{name: r, by: key, within: 5s, all: [{as: x, stream: a}, {as: y, stream: b}]}]"
    )
    body = {"rid": value, "key": "k"}
    events = [{**body, "stream": "a", "at": "2025-09-28T10:30:00Z"}, {**body, "stream": "b", "at": 1759055401}]
    found = match(rules, [*events, events[0]])
    assert (len(found), found.duplicates) == (1, 1)
    assert sorted(each.id for step in found[0].events.values() for each in step) == [f"a:{value}", f"b:{value}"]
    read_ids = [ids_of(read(f"{{name: {name}, id: rid}}", message(body))[2]) for name in ("a", "b")]
    assert read_ids == [[f"a:{value}"], [f"b:{value}"]]


@pytest.mark.parametrize("binary", [False, True])
def test_cloud_events_are_one_only_with_one_id_of_one_source(binary):
    pairs = [
        *((source, f"{before}{UUID}") for source in ("/orders", "/payments") for before in ("", "req_", "evt_")),
        ("urn:a", "1:x"),
        ("urn:a:1", "x"),
    ]
    attributes = [{"specversion": "1.0", "id": name, "source": source, "type": "t"} for source, name in pairs]
    messages = [
        message({"v": 1}, headers=[(f"ce_{name}", value.encode()) for name, value in each.items()])
        if binary
        else message({**each, "data": {"v": 1}})
        for each in attributes
    ]
    _, letters, frames = read("{name: s, decoder: cloudevents}", *messages, messages[0])
    words = words_of(frames)
    assert letters == []
    assert len(set(words)) == len(pairs) == len(words) - 1
    assert [tuple(row) for row in parse_ids(ids_of(frames)).tolist()] == words


@given(st.lists(st.uuids().map(str) | st.text(max_size=5) | st.text("0123456789abcdef-_:", max_size=40), max_size=5))
def test_events_of_one_declared_id_are_one_whatever_form_the_id_has(values):
    _, _, frames = read("{name: s, id: uid}", *(message({"uid": value}) for value in values))
    for (one, word), (other, other_word) in combinations(zip(values, words_of(frames), strict=True), 2):
        assert (word == other_word) == (one == other)
