"""Strings that differ only in characters NUL are different strings, as keys, values, ids and groups."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from astrocyte import load_rules, match
from astrocyte.testing import RuleTester

RULES: Final = load_rules(
    """
rules:
  - {name: pair, within: 1h, seq: [{as: a, stream: s, where: "n < 3"}, {as: b, stream: s, where: "n > 2"}]}
  - {name: by_tag, by: tag, within: 1h, all: [{as: a, stream: s, where: "n < 3"}, {as: b, stream: s, where: "n > 2"}]}
  - {name: same, by: one, within: 1h, seq: [{as: a, stream: s}, {as: b, stream: s, where: "tag == a.tag and n > a.n"}]}
  - {name: below, by: one, within: 1h, seq: [{as: a, stream: s}, {as: b, stream: s, where: "tag < a.tag"}]}
windows:
  - {name: of_tag, from: s, by: tag, every: 1h, select: {n: count()}}
  - {name: of_all, from: s, by: one, every: 1h, select: {tags: count_distinct(tag), first: first(tag), last: last(tag)}}
"""
)
PLAIN: Final = {"\0": "a", "\0\0": "b", "x": "c", "x\0": "d", "x\0\0": "e", "x\0y": "f", "y": "g"}
"""Strings without a NUL that are in the same order."""
STRINGS: Final = list(PLAIN)


def results(rows: list[tuple[str, str, int]]) -> tuple[list[Any], list[Any]]:
    tester = RuleTester(RULES)
    for number, (key, tag, n) in enumerate(rows):
        tester.send("s", at=f"{number + 1}s", key=key, tag=tag, n=n, one="one")
    tester.finish()
    matches = [(each.rule, each.key, each.time_us, sorted(each.events)) for each in tester.matches()]
    tags = sorted((row["tag"], row["n"]) for row in tester.results("of_tag"))
    return matches, [*tags, *((row["tags"], row["first"], row["last"]) for row in tester.results("of_all"))]


def renamed(found: Any) -> Any:
    if isinstance(found, (list, tuple)):
        return type(found)(renamed(each) for each in found)
    return PLAIN.get(found, found) if isinstance(found, str) else found


@pytest.mark.parametrize("seed", range(3))
def test_rules_and_windows_tell_strings_apart_by_their_nuls(seed: int) -> None:
    draw = random.Random(seed)
    rows = [(draw.choice(STRINGS), draw.choice(STRINGS), draw.randrange(6)) for _ in range(14)]
    assert renamed(results(rows)) == results([(PLAIN[key], PLAIN[tag], n) for key, tag, n in rows])


@pytest.mark.parametrize("keys", [("x", "x\0"), ("x\0", "x"), ("x\0\0", "x\0")])
def test_matches_of_one_instant_are_in_the_order_of_their_keys_whatever_came_first(keys: tuple[str, str]) -> None:
    rules = load_rules("rules: [{name: each, seq: [{as: a, stream: s}]}]")
    events = [{"stream": "s", "timestamp": 1_000_000, "key": key} for key in keys]
    assert [each.key for each in match(rules, events)] == sorted(keys)


def test_ids_that_differ_in_a_nul_are_different_events() -> None:
    rules = load_rules("rules: [{name: each, seq: [{as: a, stream: s}]}]")
    event = {"stream": "s", "timestamp": 1_000_000, "key": "k"}
    found = match(rules, [{**event, "event_id": name} for name in ("x", "x\0", "\0x", "x")])
    assert (len(found), found.duplicates) == (3, 1)
