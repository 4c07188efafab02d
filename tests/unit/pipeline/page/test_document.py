"""What a browser holds, and the patches that change it."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.page.aggregates.newest import Newest
from astrocyte.pipeline.page.content.document import Feed, Shown, array, encode, patch

NUMBERS = st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=6)
VALUES = st.one_of(
    NUMBERS.map(lambda each: np.array([np.nan if one is None else float(one) for one in each])),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 3), max_size=2),
    st.booleans(),
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


def applied(held, changes):
    """What ``static/store.js`` makes of a patch."""
    held = dict(held)
    held.update(changes.get("set", {}))
    for name, part in changes.get("at", {}).items():
        values = (list(held[name]) + [None] * part["n"])[: part["n"]]
        for place, value in zip(part["i"], part["v"], strict=True):
            values[place] = value
        held[name] = values
    for name, part in changes.get("add", {}).items():
        feed = held.get(name)
        kept = feed["items"] if feed and feed["first"] + len(feed["items"]) == part["from"] else []
        items = (kept + part["items"])[-part["most"] :]
        held[name] = {"first": part["from"] + len(part["items"]) - len(items), "items": items}
    for name in changes.get("del", []):
        del held[name]
    return held


def over_the_wire(changes):
    return json.loads(encode(changes))


@given(DOCUMENTS, DOCUMENTS)
def test_a_patch_makes_the_second_document_of_the_first(first, second):
    held = applied({}, over_the_wire(patch({}, first)))
    held = applied(held, over_the_wire(patch(first, second)))
    assert held == applied({}, over_the_wire(patch({}, second)))
    assert patch(second, dict(second)) == {}


def test_a_long_array_is_changed_where_it_changed():
    before = np.arange(200.0)
    now = np.append(before, 7.5)
    now[3] = -1.0
    changes = over_the_wire(patch({"a": before}, {"a": now}))
    assert changes == {"at": {"a": {"n": 201, "i": [3, 200], "v": [-1.0, 7.5]}}}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 12))
def test_a_browser_holds_the_newest_items_of_a_feed_however_many_come_at_once(portions, most):
    newest, shown = Newest(most), Shown(lambda each: {"number": each}, most)
    held, before, number = {}, {}, 0
    for size in portions:
        newest.extend(range(number, number + size))
        number += size
        now = {"feed": shown.feed(newest)}
        held = applied(held, over_the_wire(patch(before, now)))
        before = now
        assert [each["number"] for each in held["feed"]["items"]] == list(range(number))[-most:]
        assert held["feed"]["first"] == max(number - most, 0)


def test_an_item_is_made_once():
    made = []
    shown = Shown(lambda each: made.append(each) or {"number": each}, 4)
    newest = Newest(4)
    newest.extend([1, 2])
    assert shown.feed(newest).items == shown.feed(newest).items
    assert made == [1, 2]


def test_numbers_have_as_many_digits_as_a_chart_shows():
    assert array(np.array([123456.7, 0.000123456, np.nan, np.inf, 0.0, -2.0])).tolist()[:2] == [123460.0, 0.00012346]
    assert json.loads(encode({"set": {"a": array(np.array([np.inf, np.nan]))}})) == {"set": {"a": [None, None]}}


def test_a_feed_that_began_anew_is_sent_as_a_whole():
    old, new = Feed(10, ({"n": 10}, {"n": 11}), 5), Feed(0, ({"n": 0},), 5)
    assert over_the_wire(patch({"f": old}, {"f": new}))["add"]["f"] == {"from": 0, "items": [{"n": 0}], "most": 5}
