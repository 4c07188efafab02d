"""Rules over one event: matched on arrival, final at once, and the same matches as those of the ordered pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import Engine, Rule, load_rules
from astrocyte.agents.engine.arrival.immediate import is_order_free
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US

S = 1_000_000
RULES = load_rules(
    """
rules:
  - name: hot
    seq: [{as: a, stream: s, where: "value > 5"}]
    emit: {integrated_value: "a.value"}
    alert: {severity: critical, message: "{a.value:.0f}"}
  - name: odd
    any:
      - {as: x, stream: s, where: "value > 7"}
      - {as: y, stream: [s, t], where: "value > 8 or value < 1"}
  - name: all_keys
    by: null
    within: 1s
    any: [{as: z, stream: t}]
  - {name: hot_twice, within: 5s, seq: [{as: one, stream: hot}, {as: two, stream: hot, contiguity: next}]}
  - {name: pair, within: 3s, all: [{as: a, stream: s}, {as: b, stream: t}]}
windows:
  - {name: hot_rate, from: hot, every: 2s, select: {n: "count()"}}
"""
)
ALONE = ("hot", "odd", "all_keys")
STEP = {"as": "a", "stream": "s"}


def frame(stream: str, seq: int, time_s: float, key: str, value: float) -> Frame:
    columns = {"timestamp": [round(time_s * S)], "key": [key], "type": ["v"], "value": [value]}
    return Frame.from_columns(stream, "run", columns, first_seq=seq)


def found(matches: Any) -> dict[str, tuple[Any, ...]]:
    """Matches by id; none may occur twice."""
    by_id = {each.id: (each.rule, each.key, each.time_us, each.emit, each.alert, each.status) for each in matches}
    assert len(by_id) == len(list(matches))
    return by_id


def window_rows(frames: list[Frame]) -> list[dict[str, Any]]:
    return [{"stream": each.stream, **row} for each in frames for row in each.batch.to_pylist()]


def test_a_match_of_one_event_is_final_although_the_watermark_has_not_moved() -> None:
    engine = Engine(RULES, immediate=True)
    engine.push(frame("s", 0, 100, "k", 6.0))
    (match,) = engine.advance(NEVER_US).matches
    assert (match.rule, match.status, match.time_us) == ("hot", "final", 100 * S)
    assert match.alert is not None
    assert match.alert.message == "6"
    assert [each.rule for each in engine.flush().matches] == []


def test_without_the_option_every_match_waits_for_the_watermark() -> None:
    engine = Engine(RULES)
    engine.push(frame("s", 0, 100, "k", 6.0))
    assert len(engine.advance(NEVER_US).matches) == 0
    assert [each.rule for each in engine.flush().matches] == ["hot"]


def test_a_single_event_is_matched_by_the_call_that_pushes_it() -> None:
    engine = Engine(RULES, immediate=True)
    (match,) = engine.push_event({"stream": "s", "timestamp": 100 * S, "key": "k", "value": 6.0})
    assert (match.rule, match.status) == ("hot", "final")
    assert [each.rule for each in engine.flush().matches] == []


def test_late_and_repeated_events_are_not_matched() -> None:
    engine = Engine(RULES, immediate=True)
    engine.push(frame("s", 0, 100, "k", 6.0))
    engine.push(frame("s", 0, 100, "k", 6.0))
    assert len(engine.advance(101 * S).matches) == 1
    engine.push(frame("s", 1, 50, "k", 6.0))
    assert len(engine.flush().matches) == 0


def test_a_new_rule_does_not_match_what_came_before_it_and_a_kept_one_matches_nothing_twice() -> None:
    engine = Engine(RULES, immediate=True)
    engine.push(frame("s", 0, 100, "k", 6.0))
    assert [each.rule for each in engine.advance(NEVER_US).matches] == ["hot"]
    engine.update([*RULES.rules[:1], Rule(name="later", seq=({"as": "a", "stream": "s"},))])
    engine.push(frame("s", 1, 101, "k", 6.0))
    assert sorted(each.rule for each in engine.advance(NEVER_US).matches) == ["hot", "later"]
    assert len(engine.flush().matches) == 0


def test_events_that_waited_before_the_option_was_set_are_matched_once() -> None:
    before = Engine(RULES)
    before.push(frame("s", 0, 100, "k", 6.0))
    engine = Engine(RULES, immediate=True)
    engine.restore(before.snapshot())
    engine.push(frame("s", 1, 101, "k", 6.0))
    assert [each.time_us for each in engine.advance(NEVER_US).matches if each.rule == "hot"] == [101 * S]
    assert [each.time_us for each in engine.flush().matches if each.rule == "hot"] == [100 * S]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("st"), st.integers(0, 40), st.sampled_from("kl"), st.sampled_from([0.0, 3.0, 6.0, 7.5, 9.0])
    ),
    max_size=12,
)


@settings(max_examples=20)
@given(events=EVENTS, cuts=st.sets(st.integers(0, 11)), restarts=st.sets(st.integers(0, 11), max_size=2))
def test_it_finds_what_the_ordered_pass_finds_whatever_the_order_the_steps_and_the_restarts(
    events: list[tuple[str, int, str, float]], cuts: set[int], restarts: set[int]
) -> None:
    frames = [frame(stream, seq, at / 4, key, value) for seq, (stream, at, key, value) in enumerate(events)]
    ordered = Engine(RULES)
    for each in frames:
        ordered.push(each)
    expected = ordered.flush()

    at_once: dict[str, set[str]] = {}
    for match in (match for match in expected.matches if match.rule in ALONE):
        ((event,),) = match.events.values()
        at_once.setdefault(event.id, set()).add(match.id)

    engine = Engine(RULES, immediate=True)
    matches, windows = [], []
    for number, each in enumerate(frames):
        engine.push(each)
        rest = [int(other.timestamps()[0]) for other in frames[number + 1 :]]
        output = engine.advance(min(rest, default=NEVER_US) if number in cuts else NEVER_US)
        matches += list(output.matches)
        windows += output.frames
        assert {match.id for match in output.matches if match.rule in ALONE} == at_once.get(each.id_strings()[0], set())
        if number in restarts:
            snapshot, engine = engine.snapshot(), Engine(RULES, immediate=True)
            engine.restore(snapshot)
    last = engine.flush()
    assert found([*matches, *last.matches]) == found(expected.matches)
    assert window_rows([*windows, *last.frames]) == window_rows(expected.frames)


@pytest.mark.parametrize(
    "rule",
    [
        {"seq": [STEP]},
        {"any": [STEP, {"as": "b", "stream": "t", "where": "value > 1"}], "within": "2s", "by": None},
        {"seq": [STEP], "emit": {"integrated_value": "a.value"}, "alert": {"severity": "critical", "message": "x"}},
        {"seq": [STEP], "version": "7", "description": "one event"},
    ],
)
def test_rules_over_one_event_do_not_depend_on_order(rule: dict[str, Any]) -> None:
    assert is_order_free(Rule(name="r", **rule))


@pytest.mark.parametrize(
    "rule",
    [
        {"seq": [STEP, {"as": "b", "stream": "t"}]},
        {"seq": [STEP, {"not": {"stream": "t"}}], "within": "1s"},
        {"seq": [{**STEP, "times": 2}]},
        {"seq": [{**STEP, "optional": True}, {"as": "b", "stream": "t"}]},
        {"any": [{"seq": [STEP, {"as": "b", "stream": "t"}]}]},
        {"all": [STEP], "within": "1s"},
        {"seq": [STEP], "within": "1s", "skip": "past_last"},
        {"seq": [STEP], "within": "1s", "on_timeout": True},
        {"seq": [STEP], "alert": {"message": "x"}, "cool_down": "5s"},
        {"seq": [STEP], "alert": {"message": "x"}, "group": "5s"},
    ],
)
def test_rules_over_several_events_or_with_an_effect_on_others_are_left_to_the_ordered_pass(
    rule: dict[str, Any],
) -> None:
    assert not is_order_free(Rule(name="r", **rule))


def test_matches_in_one_frame_are_all_there_in_any_order_of_their_times() -> None:
    times = np.array([3, 1, 2]) * S
    columns = {"timestamp": times, "key": ["k"] * 3, "type": ["v"] * 3, "value": [6.0, 9.0, 6.0]}
    engine = Engine(RULES, immediate=True)
    engine.push(Frame.from_columns("s", "run", columns))
    output = engine.advance(NEVER_US)
    assert sorted(each.time_us for each in output.matches if each.rule == "hot") == [S, 2 * S, 3 * S]
