"""When a junction joins two domains: against the definition, boundary by boundary, and however the input is cut."""

import random

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import Engine, load_rules
from astrocyte.agents.engine.formation import Decision, Formation, Pair
from astrocyte.agents.rules.junctions import Forms
from tests.support.forming import joined_buckets

SECOND = 1_000_000
FORMS = Forms.model_validate({"with": "B", "over": "4s", "every": "1s", "above": 1, "below": 1})
PAIR = Pair("x", "y")


def judged(formation: Formation, times_s: list[float], pair: Pair = PAIR) -> list[bool]:
    times = np.array([int(at * SECOND) for at in times_s], np.int64)
    return formation.judge(times, [pair.sender] * len(times), [pair.receiver] * len(times)).tolist()


def active(formation: Formation, times_s: list[float], receiver: str | None = "y") -> None:
    formation.active(np.array([int(at * SECOND) for at in times_s], np.int64), [receiver] * len(times_s))


def test_it_forms_above_the_upper_bound_and_dissolves_below_the_lower():
    formation = Formation(FORMS)
    active(formation, [0.9, 1.1, 2.5])
    assert judged(formation, [0.1, 1.9, 2.0, 6.9, 7.0]) == [False, False, True, True, False]
    # Buckets 0 and 1 are in the window at 2 s; bucket 2, the last in which both are active, is in it until 6 s.
    formation.reach(20 * SECOND)
    assert formation.take() == [
        Decision(2 * SECOND, PAIR, formed=True, co_activity=2), Decision(7 * SECOND, PAIR, formed=False, co_activity=0),
    ]  # fmt: skip


@pytest.mark.parametrize("receiver", ["z", None])
def test_events_of_other_domains_and_of_none_join_nothing(receiver):
    formation = Formation(FORMS)
    active(formation, [0.5, 1.5, 2.5], receiver)
    assert judged(formation, [0.1, 1.1, 2.1, 3.1]) == [False] * 4
    formation.end()
    assert formation.take() == []


def test_several_events_in_a_bucket_count_once():
    formation = Formation(FORMS)
    active(formation, [0.5, 0.6, 0.7])
    assert judged(formation, [0.1, 0.2, 0.3, 1.0]) == [False] * 4


def test_what_is_joined_dissolves_after_the_end_when_its_time_has_come():
    formation = Formation(FORMS)
    active(formation, [0.5, 1.5])
    judged(formation, [0.5, 1.5])
    formation.end()
    assert [(each.at_us // SECOND, each.formed) for each in formation.take()] == [(2, True), (6, False)]
    assert formation.joined == 0


def test_a_changed_bound_joins_nothing_at_first():
    formation = Formation(FORMS)
    active(formation, [0.5, 1.5])
    judged(formation, [0.5, 1.5, 2.5])
    other = Formation(FORMS.model_copy(update={"below": 2}))
    other.restore(formation.snapshot())
    assert (formation.joined, other.joined) == (1, 0)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_decides_as_the_definition_says_however_it_is_cut_and_restored(seed):
    rng = random.Random(seed)
    above, buckets = rng.randrange(4), rng.randrange(4, 9)
    text = {"with": "B", "over": f"{buckets * 500}ms", "every": "500ms"}
    forms = Forms.model_validate(text | {"above": above, "below": rng.randrange(1, above + 2)})
    senders, receivers = ["", "a", "b"], ["", "c"]
    span_us = 40 * 500_000
    came = [(rng.randrange(span_us), rng.choice(senders), rng.choice(receivers)) for _ in range(rng.randrange(150))]
    own = [(rng.randrange(span_us), rng.choice(receivers)) for _ in range(rng.randrange(60))]

    active_in = {each: {at_us // 500_000 for at_us, receiver in own if receiver == each} for each in receivers}
    formation, decided, flags = Formation(forms), [], {}
    for at_us in [*sorted(rng.sample(range(span_us), rng.randrange(8))), span_us]:
        # The events of receiving domains may be here long before event time has come that far.
        early = [each for each in own if each[0] < at_us or rng.random() < 0.3]
        own = [each for each in own if each not in early]
        formation.active(np.array([each[0] for each in early], np.int64), [each[1] for each in early])
        ready = [each for each in came if each[0] < at_us and each not in flags]
        rng.shuffle(ready)
        times, froms, to = ([each[part] for each in ready] for part in range(3))
        flags |= dict(zip(ready, formation.judge(np.array(times, np.int64), froms, to).tolist(), strict=True))
        formation.reach(at_us)
        decided += formation.take()
        if rng.random() < 0.4:
            before, formation = formation, Formation(forms)
            formation.restore(orjson.loads(orjson.dumps(before.snapshot())))
    formation.end()
    decided += formation.take()

    expected = []
    for pair in {Pair(*each[1:]) for each in came}:
        mine = [each for each in came if each[1:] == pair]
        buckets, decisions = joined_buckets(forms, {each[0] // 500_000 for each in mine}, active_in[pair.receiver])
        expected += [Decision(at * 500_000, pair, formed, count) for at, formed, count in decisions]
        assert [flags[each] for each in mine] == [each[0] // 500_000 in buckets for each in mine]
    assert decided == sorted(expected)


RULES = """
rules:
  - {name: spike, seq: [{as: a, stream: A}], emit: {next: "a.next"}}
  - {name: arrival, within: 2s, seq: [{as: wave, stream: wave}, {as: b, stream: B}]}
junctions:
  - {name: wave, from: spike, key: next, delay: 5s, forms: {with: B, over: 4s, every: 1s, above: 1, below: 1}}
"""


@pytest.mark.parametrize(
    ("change", "matches"), [("", 0), (", forms: {with: B, over: 4s, every: 1s, above: 1, below: 1}", 1)]
)
def test_what_waits_is_let_through_once_the_rules_say_that_the_junction_is_always_there(change, matches):
    engine = Engine(load_rules(RULES))
    engine.push_events([{"stream": "A", "timestamp": 0, "key": "x", "next": "y"}])
    engine.advance(SECOND)
    assert engine.size()["waiting"] == 1
    assert engine.low_water_us() == 5 * SECOND
    engine.update(load_rules(RULES.replace(change, "")))
    engine.push_events([{"stream": "B", "timestamp": 6 * SECOND, "key": "y"}])
    found = [each.rule for each in engine.flush().matches.matches()]
    assert found == ["arrival"] * matches
    assert engine.size()["waiting"] == 0


def test_events_that_are_pushed_one_at_a_time_are_judged_alike():
    engine = Engine(load_rules(RULES.replace("delay: 5s, ", "")))
    for second in range(4):
        engine.push_event({"stream": "A", "timestamp": second * SECOND, "key": "x", "next": "y"})
        engine.push_event({"stream": "B", "timestamp": second * SECOND + 500_000, "key": "y"})
    output = engine.flush()
    assert [each.rule for each in output.matches.matches()].count("arrival") == 2
    assert [each.decision.formed for each in output.formed] == [True, False]
    assert engine.gates.counts["wave"] == {"joined": 2, "closed": 2}
