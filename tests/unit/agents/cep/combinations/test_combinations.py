"""Sequences of which every combination of events matches: order, bounds, what is held, and which rules are such."""

from __future__ import annotations

import random

import numpy as np
import pytest

from astrocyte.agents.cep.combinations.program import why_not_combinations
from astrocyte.agents.cep.explain.mermaid import mermaid
from astrocyte.agents.cep.match_columns import MatchBatch
from astrocyte.agents.cep.matcher import Matcher
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import Group, InvalidRules, Rule, Step
from astrocyte.schemas.frames import Frame


def kind(name, letter="", **options):
    return Step(name=name, stream="s", where=f"type == '{letter or name[0].upper()}'", **options)


def then(name, letter="", **options):
    return kind(name, letter, contiguity="followed_by_any", **options)


def rule(*steps, within="100us", **options):
    return Rule(name=options.pop("name", "r"), within=within, seq=steps, **options)


THREE = rule(kind("a"), then("b"), then("c"))


def frame(letters, *, times=None, keys=None):
    times = range(len(letters)) if times is None else times
    columns = {"timestamp": np.array(times, np.int64), "key": keys or ["k"] * len(letters), "type": list(letters)}
    return Frame.from_columns("s", "", columns)


def feed(matcher, letters, **options):
    return matcher.process(matcher.prepare(frame(letters, **options)))


def events(batch):
    """The events of each match, in step order."""
    return [batch.ref[a:b].tolist() for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)]


def both_ways(one, letters, **options):
    """Matches by the operator, which are those of the automaton, in the same order."""
    own, automaton = (Matcher([one], room=4, combinations=way) for way in (True, False))
    found = events(feed(own, letters, **options))
    assert found == events(feed(automaton, letters, **options))
    assert own.counters()[0]["cut"] == automaton.counters()[0]["cut"]
    return found


def test_matches_of_one_event_come_by_their_first_event_then_by_their_second():
    assert both_ways(THREE, "AABBC") == [[0, 2, 4], [0, 3, 4], [1, 2, 4], [1, 3, 4]]


def test_an_event_that_fits_several_steps_is_taken_once_in_a_match():
    every = rule(
        *(Step(name=f"s{n}", stream="s", **({"contiguity": "followed_by_any"} if n else {})) for n in range(3))
    )
    assert both_ways(every, "XXXX") == [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]


def test_a_loop_of_fixed_length_with_combinations_is_so_many_places():
    loop = rule(kind("a", times=2, combinations=True), then("c"))
    assert why_not_combinations(loop) is None
    matcher = Matcher([loop])
    batch = feed(matcher, "AAAC")
    assert events(batch) == [[0, 1, 3], [0, 2, 3], [1, 2, 3]]
    assert batch.step.tolist() == [0, 0, 1] * 3
    assert both_ways(loop, "AAAC") == events(batch)


def test_partial_matches_are_not_made_while_nothing_completes():
    steps = [kind("x0", "X"), *(then(f"x{n}", "X") for n in range(1, 8)), then("z")]
    matcher = Matcher([rule(*steps, within="400us")])
    for start in range(0, 4_000, 500):
        feed(matcher, "X" * 500, times=range(start, start + 500))
        assert matcher.partials() <= 400 * 8
    counters = matcher.counters()[0]
    assert (counters["matches"], counters["cut"]) == (0, 0)
    assert counters["work"] == counters["events"] == 4_000


def test_what_is_too_old_is_freed_and_the_state_does_not_grow():
    matcher, sizes = Matcher([THREE]), []
    letters = random.Random(3).choices("ABD", k=2_000)
    for start in range(0, 40_000, 2_000):
        batch = matcher.prepare(frame(letters, times=range(start, start + 2_000)), start)
        matcher.process(batch)
        now = start + 1_999
        matcher.advance(now)
        assert now - 100 < matcher.low_water_us() <= now
        assert matcher.live_refs()[0] > now - 100
        sizes.append(matcher.state_bytes)
    assert sizes[1] == sizes[-1]
    matcher.advance(40_000 + 99)
    assert matcher.low_water_us() is None
    assert (matcher.partials(), len(matcher.live_refs())) == (0, 0)


def test_a_key_without_new_events_is_freed_by_time_alone():
    matcher = Matcher([THREE], room=4)
    keys = [f"k{n}" for n in range(300)]
    feed(matcher, "A" * 300, times=[5] * 300, keys=keys)
    feed(matcher, "B" * 300, times=[6] * 300, keys=keys)
    assert matcher.partials() == 600
    matcher.advance(104)
    assert matcher.partials() == 600
    matcher.advance(105)
    assert matcher.partials() == 0
    assert matcher._named["combinations"].size()["keys"] == 0


def test_max_matches_keeps_those_that_began_first_and_counts_the_event():
    matcher = Matcher([rule(kind("a"), then("b"), max_matches=3)], room=4)
    batch = feed(matcher, "AAABAB")
    assert events(batch) == [[0, 3], [1, 3], [2, 3], [0, 5], [1, 5], [2, 5]]
    assert matcher.counters()[0]["cut"] == 1


def test_a_completion_of_any_size_is_written_in_parts(monkeypatch):
    monkeypatch.setattr("astrocyte.agents.cep.combinations.operator.MOST_REFS", 128)
    letters = "A" * 30 + "B" * 30 + "CC"
    found = both_ways(THREE, letters)
    assert len(found) == len({tuple(each) for each in found}) == 2 * 30 * 30
    assert found[0] == [0, 30, 60]
    assert found[-1] == [29, 59, 61]


@pytest.mark.parametrize(("policy", "first"), [("drop_oldest", 3), ("drop_newest", 0)])
def test_max_partials_bounds_the_events_of_a_key(policy, first):
    bounded = rule(kind("a"), then("b"), max_partials={"limit": 2, "policy": policy})
    assert both_ways(bounded, "AAAAAB") == [[first, 5], [first + 1, 5]]


def test_at_the_limit_the_step_that_holds_the_most_loses_its_oldest_event():
    matcher = Matcher([rule(kind("a"), then("b"), then("c"), max_partials=4)])
    batch = feed(matcher, "ABBBBBABC")
    assert events(batch) == [[0, 5, 8], [0, 7, 8], [6, 7, 8]]
    assert matcher.counters()[0]["cut"] == 4
    assert matcher.live_refs().tolist() == [0, 5, 6, 7]


@pytest.mark.parametrize("seed", range(8))
def test_after_drops_at_the_limit_all_combinations_of_what_is_held_match(seed):
    letters = random.Random(seed).choices("ABB", k=60)
    matcher = Matcher([rule(kind("a"), then("b"), then("c"), max_partials=9, max_matches=99)])
    feed(matcher, letters)
    held = matcher.live_refs().tolist()
    pairs = [[a, b] for a in held for b in held if a < b and letters[a] + letters[b] == "AB"]
    assert events(feed(matcher, "C", times=[60])) == [[a, b, 0] for a, b in pairs]
    assert len(pairs) > 5


def test_events_that_only_a_dropped_one_preceded_are_dropped_too():
    matcher = Matcher([rule(kind("a"), then("b"), then("c"), then("d"), max_partials=4)])
    assert events(feed(matcher, "ABCBBBD")) == []
    assert matcher.live_refs().tolist() == [0, 3, 4, 5]
    assert events(feed(matcher, "CD", times=[7, 8])) == [[0, 4, 0, 1], [0, 5, 0, 1]]


@pytest.mark.parametrize("skip", ["past_last", "to_next", {"to_last": "c"}, {"to_first": "b"}])
def test_skip_strategies_keep_what_the_automaton_keeps(skip):
    letters = random.Random(5).choices("ABC", k=300)
    skipping = rule(kind("a"), then("b"), then("c"), within="12us", skip=skip)
    assert why_not_combinations(skipping) is None
    assert len(both_ways(skipping, letters)) > 20


def test_rules_keep_their_events_while_others_are_added_and_removed():
    two, four = rule(kind("a"), then("b"), name="two"), rule(kind("a"), *(then(each) for each in "bcd"), name="four")
    matcher = Matcher([two, THREE, four], room=4)
    feed(matcher, "AABBC", keys=["k", "l", "k", "l", "k"])
    matcher.update([THREE, rule(kind("b"), then("d"), name="new")])
    batch = feed(matcher, "DC", times=[5, 6])
    assert [matcher.rules[each].name for each in batch.rule] == ["r"]
    assert events(batch) == [[0, 2, 1]]
    matcher.update([])
    size = matcher._named["combinations"].size()
    assert (size["events"], size["timers"], size["keys"]) == (0, 0, 0)
    assert matcher.low_water_us() is None


def test_outputs_are_in_order_of_the_rules_whichever_operator_runs_them():
    rules = [rule(kind("a"), then("b"), name="own"), rule(kind("a"), kind("b"), name="automaton")]
    for given in (rules, rules[::-1]):
        batch = feed(Matcher(given), "AB")
        assert batch.rule.tolist() == [0, 1]


def test_single_events_give_the_matches_of_frames():
    letters = random.Random(9).choices("ABC", k=60)
    matcher = Matcher([THREE])
    batches = [
        matcher.process_event("s", {"timestamp": t, "key": "k", "type": letter}, t) for t, letter in enumerate(letters)
    ]
    found = events(MatchBatch.concat(batches))
    assert found == events(feed(Matcher([THREE]), letters))
    assert len(found) > 500


def test_keys_without_events_are_forgotten():
    matcher = Matcher([THREE], waiting=tuple)
    matcher._keys["key"].least = 100
    for start in range(0, 2_000, 50):
        feed(matcher, "A" * 50, times=[start] * 50, keys=[f"key-{start + n}" for n in range(50)])
        matcher.advance(start + 200)
    assert matcher._keys["key"].numbers < 500


def test_a_snapshot_in_the_midst_of_a_window_continues_exactly():
    letters = random.Random(4).choices("ABC", k=200)
    whole = events(feed(Matcher([THREE]), letters))
    matcher, found = Matcher([THREE]), []
    for start in range(0, 200, 20):
        prepared = matcher.prepare(frame(letters[start : start + 20], times=range(start, start + 20)), start)
        saved = {name: array.copy() for name, array in matcher.snapshot().items()}
        matcher = Matcher([THREE])
        matcher.restore(saved)
        found += events(matcher.process(prepared))
    assert found == whole


OTHERS = {
    "it is an any": Rule(name="r", within="1s", any=[kind("a"), kind("b")]),
    "it has no within": Rule(name="r", seq=[kind("a"), then("b")], max_partials=10),
    "on_timeout emits each partial match": rule(kind("a"), then("b"), on_timeout=True),
    "it has one step": rule(kind("a")),
    "it has a group": rule(kind("a"), Group(seq=[kind("b"), kind("c")], contiguity="followed_by_any")),
    "n is negated": rule(kind("a"), kind("n", negated=True), then("b")),
    "b is optional": rule(kind("a"), then("b", optional=True), then("c")),
    "b is a loop of no fixed length": rule(kind("a"), then("b", min=1)),
    "b is a loop without combinations": rule(kind("a"), then("b", times=2)),
    "b has gap": rule(kind("a"), then("b", times=2, combinations=True, gap="5us")),
    "b has within_prev": rule(kind("a"), then("b", within_prev="5us")),
    "b is followed_by": rule(kind("a"), kind("b"), then("c")),
    "b is next": rule(kind("a"), kind("b", contiguity="next")),
    "the condition of b reads earlier events": rule(
        kind("a"), Step(name="b", stream="s", where="value > a.value", contiguity="followed_by_any")
    ),
    "a match has more than 64 events": rule(kind("a", times=65, combinations=True)),
    "skip names its first event": rule(kind("a"), then("b"), skip={"to_first": "a"}),
}


@pytest.mark.parametrize("why", OTHERS)
def test_other_rules_run_as_an_automaton_and_the_reason_is_explained(why):
    other = OTHERS[why]
    assert (why_not_combinations(other) or "").startswith(why)
    assert f"%% operator automaton: partial matches are kept one by one, since {why}" in mermaid(other)
    assert "combinations" not in Matcher([other])._named


def test_the_operator_of_a_rule_and_its_bound_are_explained():
    assert why_not_combinations(THREE) is None
    assert "%% operator combinations: " in mermaid(THREE)
    assert "at most 10,000 (max_matches)" in mermaid(THREE)
    assert "at most 7 (max_matches)" in mermaid(rule(kind("a"), then("b"), max_matches=7))


def test_max_matches_of_a_rule_that_it_does_not_bound_is_refused():
    text = "rules: [{name: r, within: 1s, max_matches: 5, seq: [{as: a, stream: s}, {as: b, stream: s}]}]"
    with pytest.raises(InvalidRules, match=r"max_matches bounds .* here b is followed_by; leave it out") as caught:
        load_rules(text)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.field) == ("r", "max_matches")


def test_max_matches_is_part_of_the_version_only_where_it_is_written():
    plain, bounded = rule(kind("a"), then("b")), rule(kind("a"), then("b"), max_matches=5)
    assert plain.content_version != bounded.content_version
    assert "max_matches" not in plain.model_dump(exclude_defaults=True)
