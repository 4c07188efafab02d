"""The engine against the naive matcher: random rules on random events give the same matches.

Rules of which every combination matches run both ways: by the operator of their own, and as an automaton.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.frames import Frame
from tests.support import naive
from tests.support.random_rules import STREAM, RandomCombinations, RandomRule, random_events


def engine_matches(rule, events, rng, *, combinations=True):
    """Matches of the engine: random cuts into calls, a snapshot now and then, the end of time at the end."""
    frame = Frame.from_columns(
        STREAM,
        "run",
        {
            "timestamp": np.array([event["t"] for event in events], np.int64),
            "key": [event["key"] for event in events],
            "type": [event["type"] for event in events],
            "value": np.array([event["value"] for event in events], np.int64),
        },
    )
    matcher = Matcher([rule], room=4, combinations=combinations)
    batches, start = [], 0
    while start < len(events):
        stop = min(len(events), start + rng.randint(1, 4))
        batches.append(matcher.process(matcher.prepare(frame.slice(start, stop), start)))
        if rng.random() < 0.5:
            batches.append(matcher.advance(events[stop - 1]["t"]))
        if rng.random() < 0.2:
            snapshot = matcher.snapshot()
            matcher = Matcher([rule], room=4, combinations=combinations)
            matcher.restore(snapshot)
        start = stop
    batches.append(matcher.advance(10**9))
    batches.append(matcher.flush())
    assert matcher.low_water_us() is None
    batch = MatchBatch.concat(batches)
    found = []
    for index in range(len(batch)):
        labels: dict[str, list[int]] = {}
        for row in range(batch.offsets[index], batch.offsets[index + 1]):
            labels.setdefault(rule.positive[batch.step[row]], []).append(int(batch.ref[row]))
        found.append(tuple(sorted((name, tuple(refs)) for name, refs in labels.items())))
    return found


def ends(matches):
    """First and last event of every match: what stays the same where only the order among equals decides."""
    indices = [sorted(index for _, each in match for index in each) for match in matches]
    return Counter((each[0], each[-1]) for each in indices)


def compare(seed: int, events: int, kind=RandomRule) -> bool:
    """Compare one random rule; False where the rule is malformed and there was nothing to compare."""
    rng = random.Random(seed)
    try:
        made = kind(rng)
    except InvalidRule:
        return False
    stream = random_events(rng, rng.randint(1, events))
    keys = rng.choice(["x", "x", "xy"])
    for event in stream:
        event["key"] = rng.choice(keys)
    wanted, said = [], set()
    for key in keys:
        places = [index for index, event in enumerate(stream) if event["key"] == key]
        mine = [stream[index] for index in places]
        found = naive.matches(made.parts, mine, within=made.within or naive.FOREVER)
        left, how = naive.skipped(found, made.skip, made.step, eager=made.eager)
        wanted += [tuple((name, tuple(places[i] for i in each)) for name, each in match) for match in left]
        said.add(how)
    how = next(each for each in ("undecided", "tied", "clear") if each in said)
    got = engine_matches(made.rule, stream, rng)
    if how == "undecided" or (how == "tied" and made.skip in ("to_first", "to_last")):
        return False
    if how == "tied":
        assert ends(got) == ends(wanted), f"seed {seed}"
    else:
        assert set(got) == set(wanted), f"seed {seed}"
        assert made.ambiguous or len(got) == len(wanted), f"seed {seed}: a match came out twice"
    return True


def same_both_ways(seed: int, events: int) -> int:
    """Number of matches of a random rule of combinations: the same by both operators, in the same order."""
    rng = random.Random(seed)
    made = RandomCombinations(rng)
    stream = random_events(rng, rng.randint(1, events))
    for event in stream:
        event["key"] = rng.choice("xxy")
    own = engine_matches(made.rule, stream, rng)
    assert own == engine_matches(made.rule, stream, rng, combinations=False), f"seed {seed}"
    return len(own)


@pytest.mark.search
def test_random_rules_match_as_the_naive_matcher_says(search_seed):
    compared = sum(compare(seed, 9) for seed in range(search_seed, search_seed + 200))
    assert compared > 150


@pytest.mark.soak
def test_many_random_rules_match_as_the_naive_matcher_says():
    compared = sum(compare(seed, 11) for seed in range(1_000, 21_000))
    assert compared > 10_000


@pytest.mark.search
def test_combinations_match_as_the_naive_matcher_says(search_seed):
    compared = sum(compare(seed, 9, RandomCombinations) for seed in range(search_seed, search_seed + 150))
    assert compared > 100


@pytest.mark.search
def test_combinations_come_in_the_order_in_which_the_automaton_finds_them(search_seed):
    matches = sum(same_both_ways(seed, 40) for seed in range(search_seed, search_seed + 60))
    assert matches > 300


@pytest.mark.soak
def test_many_combinations_match_as_the_naive_matcher_and_the_automaton_say():
    compared = sum(compare(seed, 11, RandomCombinations) for seed in range(1_000, 11_000))
    assert compared > 5_000
    assert sum(same_both_ways(seed, 60) for seed in range(1_000, 11_000)) > 10_000
