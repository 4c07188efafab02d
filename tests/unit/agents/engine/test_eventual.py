"""The eventual pass: when provisional matches are dated."""

from __future__ import annotations

import random

import numpy as np
import pytest

from astrocyte import Engine, Frame, Match, load_rules
from tests.support.random_rules import STREAM, RandomRule, random_events


@pytest.mark.parametrize("form", ["event", "frame"])
def test_a_provisional_match_has_the_time_of_its_own_events_whatever_other_keys_have_sent(form: str) -> None:
    rules = load_rules("""
rules:
  - {name: one, seq: [{as: a, stream: A}], alert: {severity: info, message: "x"}}
  - {name: two, within: 9us, seq: [{as: a, stream: A}, {as: b, stream: B}]}
  - {name: both, within: 9us, all: [{as: a, stream: A}, {as: b, stream: B}]}
  - {name: none, within: 9us, seq: [{as: a, stream: A}, {not: {stream: C}}]}
  - {name: late, within: 9us, seq: [{as: a, stream: A}, {as: c, stream: C}], on_timeout: true}
""")
    engine, found = Engine(rules, consistency="eventual"), list[Match]()
    for stream, time_us, key in (("A", 30, "fast"), ("A", 1, "slow"), ("B", 3, "slow")):
        if form == "event":
            found += engine.push_event({"stream": stream, "timestamp": time_us, "key": key})
        else:
            engine.push(Frame.from_columns(stream, "", {"timestamp": np.array([time_us]), "key": [key]}))
    found += engine.advance(50).matches.matches()
    slow = [each for each in found if each.key == "slow"]
    times = {"one": 1, "two": 3, "both": 3, "none": 10, "late": 10}
    for status in ("provisional", "confirmed"):
        assert {each.rule: each.time_us for each in slow if each.status == status} == times
    assert not [each for each in slow if each.status in ("retracted", "final")]


def test_what_a_random_sequence_gives_provisionally_is_dated_as_when_it_is_confirmed() -> None:
    confirmed = 0
    for seed in range(60):
        made = RandomRule(rng := random.Random(seed))
        engine, times = Engine(made.rule, consistency="eventual"), dict[str, int]()
        found: list[Match] = []
        for event in random_events(rng, 25):
            row = {"stream": STREAM, "timestamp": event["t"], "key": "k", "type": event["type"]}
            found += engine.push_event({**row, "value": event["value"]})
        for each in [*found, *engine.flush().matches]:
            if each.status == "provisional":
                times[each.id] = each.time_us
            elif each.status == "confirmed":
                assert each.time_us == times[each.id]
                confirmed += 1
    assert confirmed > 100
