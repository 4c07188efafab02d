"""The ledger against two plain dictionaries."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.analysis.verify.ledger import Item, Ledger

NAMES = st.sampled_from("abcdef")
FOUND = st.lists(st.tuples(NAMES, st.integers(0, 2)), max_size=12)
EXPECTED = st.dictionaries(NAMES, st.tuples(st.integers(0, 2), st.booleans()))


def item(name, value):
    return Item(name, 1, "run", {"value": value})


def kinds_of(entry):
    """What an entry is: lost, unexpected, wrong; and how often it is there too much."""
    wrong = entry.expected is not None and any(
        each is not None and each != entry.expected for each in (entry.found, entry.other)
    )
    return entry.times == 0, entry.times > 0 and entry.expected is None, wrong and entry.times > 0


@given(found=FOUND, expected=EXPECTED, before=st.booleans())
def test_differences_are_those_of_two_dictionaries(tmp_path_factory, found, expected, before):
    with closing(Ledger(tmp_path_factory.mktemp("ledger") / "entries.db", cache_bytes=1 << 20)) as ledger:

        def enter():
            for offset, (name, value) in enumerate(found):
                ledger.found("place", item(name, value), (0, offset))

        if before:
            enter()
        for name, (value, due) in expected.items():
            ledger.expect("place", item(name, value), due=due)
        if not before:
            enter()
        entries = {entry.identity: entry for entry in ledger.differing("place")}
        counts = ledger.counts("place")
    times = Counter(name for name, _ in found)
    contents = {name: {value for other, value in found if other == name} for name in times}
    lost = {name for name, (_, due) in expected.items() if due and name not in times}
    unexpected = times.keys() - expected.keys()
    wrong = {name for name in expected.keys() & times if contents[name] != {expected[name][0]}}
    assert {name for name, entry in entries.items() if kinds_of(entry)[0]} == lost
    assert {name for name, entry in entries.items() if kinds_of(entry)[1]} == unexpected
    assert {name for name, entry in entries.items() if kinds_of(entry)[2]} == wrong
    assert all(entries[name].times == count for name, count in times.items() if count > 1)
    waiting = sum(not due and name not in times for name, (_, due) in expected.items())
    assert counts == (len(expected) - waiting, len(times), waiting)


def test_a_message_that_is_entered_again_is_not_there_twice(tmp_path):
    with closing(Ledger(tmp_path / "entries.db")) as ledger:
        for _ in range(2):
            ledger.found("place", item("a", 1), (0, 7))
        ledger.expect("place", item("a", 1), due=True)
        assert list(ledger.differing("place")) == []


def test_a_later_value_replaces_an_expected_one(tmp_path):
    with closing(Ledger(tmp_path / "entries.db")) as ledger:
        ledger.found("place", item("a", 2), (0, 1))
        for value in (1, 2):
            ledger.expect("place", item("a", value), due=True, replace=True)
        assert list(ledger.differing("place")) == []


def test_two_expected_contents_under_one_id_are_a_difference(tmp_path):
    with closing(Ledger(tmp_path / "entries.db")) as ledger:
        ledger.found("place", item("a", 1), (0, 1))
        for value in (1, 2):
            ledger.expect("place", item("a", value), due=True)
        (entry,) = ledger.differing("place")
        assert kinds_of(entry) == (False, False, True)
