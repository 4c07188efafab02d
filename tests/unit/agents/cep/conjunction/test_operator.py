"""The ``all`` operator against enumeration of every choice of events, with state that starts as small as it can be."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astrocyte.agents.cep.conjunction.operator import ConjunctionOperator
from astrocyte.agents.cep.conjunction.program import compile_conjunction
from astrocyte.agents.cep.operator import Task
from astrocyte.agents.cep.rows import Rows
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.rules.model import Rule
from astrocyte.schemas.errors import InvalidRule

Event = dict[str, Any]
Match = tuple[int, int, tuple[tuple[int, int], ...]]
"""Kind, time, (step, event) in step order."""


def rule_of(steps: list[dict[str, Any]], **options: Any) -> Rule:
    return Rule(name="r", **{"within": "10us", **options}, all=[{"stream": "s", **step} for step in steps])


class Driver:
    """Feeds events (t, key, fields) to one rule through the operator, a chunk at a time."""

    def __init__(self, *rules: Rule) -> None:
        self.operator = ConjunctionOperator()
        self.programs = [compile_conjunction(rule) for rule in rules]
        names = sorted({name for program in self.programs for name in program.captures})
        self.names = names
        self.operator.add_all([(i, p, [names.index(n) for n in p.captures]) for i, p in enumerate(self.programs)])
        self.count = 0

    def rows(self, events: list[Event]) -> tuple[Rows, list[int]]:
        masks = np.zeros(len(events), np.uint64)
        shifts, shift = [], 0
        for program in self.programs:
            shifts.append(shift)
            for atom in program.atoms:
                test = (lambda event, prior: True) if atom.condition is None else compile_scalar(atom.condition)
                for i, event in enumerate(events):
                    if event.get("stream", "s") in atom.streams and test(event, {}):
                        masks[i] |= np.uint64(1 << shift)
                shift += 1
        values = [[event.get(name) for event in events] for name in self.names]
        high = [[float("nan") if v is None else float(v) for v in row] for row in values]
        low = [[float(v - int(float(v))) if isinstance(v, int) else 0.0 for v in row] for row in values]
        lows = np.array(low).reshape(len(self.names), len(events))
        refs = np.arange(self.count, self.count + len(events))
        self.count += len(events)
        return Rows(
            np.array([event["t"] for event in events], np.int64), refs, refs,
            np.array([event.get("key", 0) for event in events], np.int32), masks,
            np.array(high).reshape(len(self.names), len(events)), lows if lows.any() else np.empty((0, 0)),
        ), shifts  # fmt: skip

    def feed(self, events: list[Event]) -> dict[int, list[Match]]:
        rows, shifts = self.rows(events)
        return matches_of(self.operator.process([Task(i, shift, rows) for i, shift in enumerate(shifts)]))

    def run(self, events: list[Event], chunk: int = 0, flush: bool = True) -> list[Match]:
        found: list[Match] = []
        size = chunk or max(len(events), 1)
        for start in range(0, len(events), size):
            found += self.feed(events[start : start + size]).get(0, [])
        if flush:
            found += matches_of(self.operator.finish()).get(0, [])
            assert self.operator.low_water_us() is None
            assert len(self.operator.live_refs()) == 0
        return found


def matches_of(outputs: Any) -> dict[int, list[Match]]:
    found: dict[int, list[Match]] = {}
    for slot, out in outputs:
        for i in range(len(out.key)):
            part = slice(out.offsets[i], out.offsets[i + 1])
            events = tuple(zip(out.step[part].tolist(), out.ref[part].tolist(), strict=True))
            found.setdefault(slot, []).append((int(out.kind[i]), int(out.time_us[i]), events))
    return found


def brute_force(rule: Rule, events: list[Event]) -> list[Match]:
    """Every choice of events for the current one is enumerated and tested; nothing is kept but what waits."""
    assert rule.within is not None
    positive = [step for step in rule.steps if not step.negated]
    negated = [step for step in rule.steps if step.negated]
    nodes = {step.name: rule.condition(step) for step in rule.steps}
    tests = {name: compile_scalar(node) if node is not None else None for name, node in nodes.items()}
    alone = {}
    for step in rule.steps:
        program = compile_conjunction(rule)
        slot = [*[s.name for s in positive]].index(step.name) if not step.negated else None
        alone[step.name] = compile_scalar(program.atoms[slot].condition) if slot is not None and program.atoms[
            slot].condition is not None else (lambda event, prior: True)  # fmt: skip
    found: list[Match] = []
    waiting: list[int] = []

    def fits(step: Any, i: int, chosen: dict[str, list[Event]]) -> bool:
        if events[i].get("stream", "s") not in step.stream:
            return False
        test = tests[step.name]
        return test is None or bool(test(events[i], {k: v for k, v in chosen.items() if k != step.name}))

    for i, event in enumerate(events):
        limit = rule.within.time + (1 if rule.within.closed else 0)
        waiting = [w for w in waiting if event["t"] - events[w]["t"] < limit]
        pool = [w for w in waiting if events[w].get("key", 0) == event.get("key", 0)] + [i]
        candidates = []
        for choice in product(pool, repeat=len(positive)):
            if i not in choice or len(set(choice)) != len(choice):
                continue
            chosen = {str(step.name): [events[w]] for step, w in zip(positive, choice, strict=True)}
            if not all(fits(step, w, chosen) for step, w in zip(positive, choice, strict=True)):
                continue
            between = [w for w in range(min(choice) + 1, i + 1) if events[w].get("key", 0) == event.get("key", 0)]
            if any(fits(step, w, chosen) for step in negated for w in between):
                continue
            candidates.append(choice)
        candidates.sort()
        if candidates and rule.pairing == "once":
            candidates = candidates[:1]
            waiting = [w for w in waiting if w not in candidates[0]]
        elif candidates and rule.pairing == "latest":
            candidates = candidates[-1:]
        found += [(0, event["t"], tuple(enumerate(choice))) for choice in candidates]
        if not (candidates and rule.pairing == "once") and any(
            event.get("stream", "s") in step.stream and alone[step.name](event, {}) for step in positive
        ):
            waiting.append(i)
    return found


AB = [{"as": "a", "where": "type in ('A', 'AB')"}, {"as": "b", "where": "type in ('B', 'AB')"}]
ABC = [*AB, {"as": "c", "where": "type == 'C'"}]
OVERLAP = [{"as": "a", "where": "type in ('A', 'AB', 'ABC')"}, {"as": "b", "where": "type in ('B', 'AB', 'ABC')"},
           {"as": "c", "where": "type in ('C', 'ABC')"}]  # fmt: skip
RISING = [{"as": "a", "where": "type in ('A', 'AB')"}, {"as": "b", "where": "type in ('B', 'AB') and value > a.value"}]
MUTUAL = [{"as": "a", "where": "type in ('A', 'AB') and (value < c.value or c.type == 'C')"},
          {"as": "b", "where": "type in ('B', 'AB') and value + 1 >= a.value"},
          {"as": "c", "where": "type in ('C', 'ABC') and (value == a.value or value == b.value or type == 'ABC')"},
          ]  # fmt: skip
FORBIDDEN = [*AB, {"not": {"as": "x", "where": "type in ('X', 'AB')"}}]
FORBIDDEN_IF = [*AB, {"not": {"as": "x", "where": "type in ('X', 'A') and value > a.value"}}]
PATTERNS = {"ab": AB, "abc": ABC, "overlap": OVERLAP, "rising": RISING, "mutual": MUTUAL, "forbidden": FORBIDDEN,
            "forbidden_if": FORBIDDEN_IF}  # fmt: skip

histories = st.lists(
    st.fixed_dictionaries(
        {
            "gap": st.integers(0, 4),
            "key": st.integers(0, 2),
            "type": st.sampled_from(["A", "A", "B", "B", "C", "AB", "ABC", "X", "-"]),
            "value": st.one_of(st.none(), st.integers(0, 4), st.integers(2**60, 2**60 + 2)),
        }
    ),
    max_size=40,
)


def timed(history: list[Event]) -> list[Event]:
    t, events = 0, []
    for event in history:
        t += event["gap"]
        events.append({"t": t, **{name: event[name] for name in ("key", "type", "value")}})
    return events


@pytest.mark.parametrize("pairing", ["once", "each", "latest"])
@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@settings(max_examples=60, deadline=None)
@given(history=histories, chunk=st.integers(1, 9), closed=st.booleans())
@example(
    history=[
        {"gap": 0, "key": 0, "type": kind, "value": 2**60 + step} for kind, step in (("A", 1), ("B", 0), ("ABC", 0))
    ],
    chunk=1,
    closed=False,
)
def test_matches_are_those_of_enumeration(
    pattern: str, pairing: str, history: list[Event], chunk: int, closed: bool
) -> None:
    rule = rule_of(PATTERNS[pattern], pairing=pairing, within={"time": "10us", "closed": closed})
    events = timed(history)
    assert Driver(rule).run(events, chunk) == brute_force(rule, events)


@pytest.fixture
def tiny_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array starts so small that it must grow, often in the middle of an event."""
    monkeypatch.setattr("astrocyte.agents.cep.conjunction.operator.SMALLEST_RING", 8)
    monkeypatch.setattr("astrocyte.agents.cep.conjunction.operator.SMALLEST_TABLE", 4)
    monkeypatch.setattr("astrocyte.agents.cep.conjunction.operator.FIRST_OUTPUT", 1)
    monkeypatch.setattr("astrocyte.agents.cep.conjunction.operator.LARGEST_OUTPUT", 4)


def stream(count: int, *, keys: int, gap: float, seed: int, types: str = "A A B B C AB X -") -> list[Event]:
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.random(count) < gap)
    kinds = rng.choice(types.split(), count)
    return [
        {"t": int(t[i]), "key": int(rng.integers(keys)), "type": str(kinds[i]), "value": int(rng.integers(5))}
        for i in range(count)
    ]


@pytest.mark.usefixtures("tiny_arrays")
@pytest.mark.parametrize("pairing", ["once", "each", "latest"])
@pytest.mark.parametrize(
    ("pattern", "keys", "gap"), [("ab", 1, 0.5), ("ab", 200, 0.05), ("overlap", 3, 0.9), ("forbidden_if", 2, 0.9)]
)
def test_growing_arrays_lose_and_add_nothing(pattern: str, pairing: str, keys: int, gap: float) -> None:
    rule = rule_of(PATTERNS[pattern], pairing=pairing, within="12us")
    events = stream(600, keys=keys, gap=gap, seed=7)
    expected = brute_force(rule, events)
    assert len(expected) > 20
    assert Driver(rule).run(events, chunk=37) == expected


@pytest.mark.parametrize("pairing", ["once", "each", "latest"])
def test_the_fast_path_and_the_general_operator_agree(pairing: str) -> None:
    # A timeout makes a rule general; the matches must not change.
    events = stream(2000, keys=40, gap=0.3, seed=11, types="A B -")
    plain = Driver(rule_of(AB, pairing=pairing, within="30us")).run(events, chunk=100)
    general = Driver(rule_of(AB, pairing=pairing, within="30us", on_timeout=True)).run(events, chunk=100)
    assert [match for match in general if match[0] == 0] == plain


@settings(max_examples=60, deadline=None)
@given(history=histories, cuts=st.lists(st.integers(0, 40), max_size=3), pattern=st.sampled_from(sorted(PATTERNS)),
       pairing=st.sampled_from(["once", "each", "latest"]))  # fmt: skip
def test_a_snapshot_restores_to_identical_results(
    history: list[Event], cuts: list[int], pattern: str, pairing: str
) -> None:
    rule = rule_of(PATTERNS[pattern], pairing=pairing, on_timeout=True)
    events = timed(history)
    whole = Driver(rule).run(events)
    driver, found, start = Driver(rule), [], 0
    for cut in [*sorted(cut for cut in cuts if cut < len(events)), len(events)]:
        found += driver.feed(events[start:cut]).get(0, [])
        snapshot, count = driver.operator.snapshot(), driver.count
        assert all(isinstance(array, np.ndarray) for array in snapshot.values())
        driver, start = Driver(rule), cut
        driver.operator.restore(snapshot)
        driver.count = count
    found += matches_of(driver.operator.finish()).get(0, [])
    assert found == whole


@settings(max_examples=40, deadline=None)
@given(history=histories, chunk=st.integers(1, 9), now=st.integers(0, 3))
def test_advancing_time_between_events_changes_no_match(history: list[Event], chunk: int, now: int) -> None:
    rule = rule_of(ABC, pairing="each", on_timeout=True)
    events = timed(history)
    driver, found = Driver(rule), []
    for start in range(0, len(events), chunk):
        part = events[start : start + chunk]
        found += driver.feed(part).get(0, [])
        following = events[start + chunk]["t"] if start + chunk < len(events) else 10**6
        found += matches_of(driver.operator.advance(min(part[-1]["t"] + now, following - 1))).get(0, [])
    found += matches_of(driver.operator.finish()).get(0, [])
    assert sorted(found) == sorted(Driver(rule).run(events))


def test_rules_together_match_as_each_alone() -> None:
    events = stream(800, keys=5, gap=0.5, seed=3)
    rules = [
        rule_of(PATTERNS[pattern], pairing=pairing, within="15us")
        for pattern in ("ab", "rising", "forbidden", "mutual")
        for pairing in ("once", "latest")
    ]
    together: dict[int, list[Match]] = {}
    driver = Driver(*rules)
    for start in range(0, len(events), 50):
        for slot, found in driver.feed(events[start : start + 50]).items():
            together.setdefault(slot, []).extend(found)
    for slot, rule in enumerate(rules):
        assert together.get(slot, []) == Driver(rule).run(events)


def test_removing_and_adding_rules_keeps_what_waits_for_the_others() -> None:
    kept, gone = rule_of(AB), rule_of(ABC)
    events = [{"t": 0, "type": "A"}, {"t": 1, "type": "B"}]
    driver = Driver(kept, gone)
    driver.feed(events[:1])
    driver.operator.remove(1)
    driver.operator.add(7, compile_conjunction(gone), [])
    assert driver.operator.live_refs().tolist() == [0]
    driver.programs.pop()
    assert driver.feed(events[1:]) == {0: [(0, 1, ((0, 0), (1, 1)))]}
    assert driver.operator.counters(0).tolist()[:3] == [2, 1, 1]
    assert driver.operator.counters(7).tolist()[:3] == [0, 0, 0]


def test_the_pairings_of_a1_a2_b1_b2() -> None:
    events = [{"t": t, "type": kind} for t, kind in enumerate("AABB")]
    pairs = {
        pairing: [tuple(ref for _, ref in match[2]) for match in Driver(rule_of(AB, pairing=pairing)).run(events)]
        for pairing in ("once", "each", "latest")
    }
    assert pairs == {
        "once": [(0, 2), (1, 3)],
        "each": [(0, 2), (1, 2), (0, 3), (1, 3)],
        "latest": [(1, 2), (1, 3)],
    }


@pytest.mark.parametrize(("gap", "closed", "matches"), [(9, False, 1), (10, False, 0), (10, True, 1), (11, True, 0)])
def test_the_window_is_half_open_unless_closed(gap: int, closed: bool, matches: int) -> None:
    events = [{"t": 0, "type": "A"}, {"t": gap, "type": "B"}]
    assert len(Driver(rule_of(AB, within={"time": "10us", "closed": closed})).run(events)) == matches


def test_a_forbidden_event_ends_what_began_before_it_and_nothing_else() -> None:
    rule = rule_of(FORBIDDEN)
    kinds = ["X", "A", "X", "B", "A", "X"]
    found = Driver(rule).run([{"t": t, "type": kind} for t, kind in enumerate(kinds)])
    assert found == [(0, 4, ((0, 4), (1, 3)))]


def test_an_event_that_fits_two_steps_fills_one_of_them() -> None:
    found = Driver(rule_of(AB)).run([{"t": t, "type": "AB"} for t in range(4)])
    assert found == [(0, 1, ((0, 0), (1, 1))), (0, 3, ((0, 2), (1, 3)))]


def test_an_unmatched_event_times_out_once_with_what_waited_beside_it() -> None:
    driver = Driver(rule_of(ABC, on_timeout=True))
    found = driver.run([{"t": 0, "type": "A"}, {"t": 4, "type": "B"}, {"t": 7, "type": "B"}])
    assert found == [(1, 10, ((0, 0), (1, 1))), (1, 17, ((1, 2),))]
    assert driver.operator.counters(0).tolist()[:5] == [3, 3, 0, 2, 0]


def test_a_matched_event_does_not_time_out() -> None:
    for pairing in ("once", "each", "latest"):
        driver = Driver(rule_of(AB, pairing=pairing, on_timeout=True))
        found = driver.run([{"t": 0, "type": "A"}, {"t": 1, "type": "B"}])
        assert found == [(0, 1, ((0, 0), (1, 1)))]


@pytest.mark.parametrize(("policy", "first"), [("drop_oldest", 2), ("drop_newest", 0)])
def test_max_partials_bounds_each_key_and_counts_what_it_cuts(policy: str, first: int) -> None:
    driver = Driver(rule_of(AB, max_partials={"limit": 3, "policy": policy}))
    events = [{"t": t, "key": key, "type": "A"} for t in range(5) for key in (0, 1)]
    driver.feed(events)
    assert len(driver.operator.live_refs()) == 6
    assert driver.operator.counters(0)[4] == 4
    found = driver.feed([{"t": 6, "type": "B"}])
    assert found == {0: [(0, 6, ((0, 2 * first), (1, 10)))]}


def test_all_matches_of_one_event_are_returned_beyond_the_output_size() -> None:
    driver = Driver(rule_of(AB, pairing="each"))
    driver.feed([{"t": 0, "type": "A"}] * 5000)
    assert len(driver.feed([{"t": 1, "type": "B"}])[0]) == 5000


def test_state_follows_the_open_windows_and_not_the_keys_ever_seen() -> None:
    driver = Driver(rule_of(AB))
    for start in range(0, 60_000, 1000):
        driver.feed([{"t": t, "key": t, "type": "A"} for t in range(start, start + 1000)])
    size = driver.operator.size()
    assert size["waiting"] == 10
    assert size["keys"] < 5000
    assert size["bytes"] < 1_000_000


def test_low_water_is_the_oldest_event_that_still_waits() -> None:
    driver = Driver(rule_of(AB))
    assert driver.operator.low_water_us() is None
    driver.feed([{"t": 3, "type": "A"}, {"t": 5, "type": "A"}, {"t": 6, "type": "B"}])
    assert driver.operator.low_water_us() == 5
    driver.operator.advance(14)
    assert driver.operator.low_water_us() == 5
    driver.operator.advance(15)
    assert driver.operator.low_water_us() is None


def test_integers_beyond_float64_are_distinguished_in_conditions() -> None:
    rule = rule_of([{"as": "a", "where": "type == 'A'"}, {"as": "b", "where": "type == 'B' and value - a.value == 1"}])
    events = [{"t": 0, "type": "A", "value": 2**60}, {"t": 1, "type": "B", "value": 2**60 + 2},
              {"t": 2, "type": "B", "value": 2**60 + 1}]  # fmt: skip
    assert Driver(rule).run(events) == [(0, 2, ((0, 0), (1, 2)))]


def test_a_string_test_over_two_events_is_refused_with_its_rule() -> None:
    rule = rule_of([{"as": "a"}, {"as": "b", "where": "contains(a.name, 'x') or max(a.value, value) in ('u', 'v')"}])
    with pytest.raises(InvalidRule, match="text test"):
        compile_conjunction(rule)
