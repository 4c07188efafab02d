"""Rules over the tapes of a history find exactly what `backtest` finds in its messages."""

from __future__ import annotations

from collections import Counter

import numpy as np
import orjson
import pytest

from astrocyte.agents.engine import tape
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.backtest import backtest, compare
from astrocyte.pipeline.analysis.history.comparison import compare_rule_sets, differing
from astrocyte.pipeline.analysis.history.results import TooManyMatches, find_matches
from astrocyte.pipeline.analysis.history.tapes import History, Interrupted, TooLarge
from astrocyte.pipeline.analysis.inputs import Inputs
from astrocyte.pipeline.kafka.record import ConsumedRecord
from tests.support.logs import T0_US, axon_frame, frame_messages, write_log
from tests.support.pair_log import LATENESS, PAIR, STRICT

RULES = """
rules:
  - name: pair
    by: key
    within: 400ms
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {integrated_value: "a.value + b.value"}
    alert: {severity: warning, message: "{a.value} and {b.value}"}
    cool_down: 500ms
  - name: rising
    by: key
    within: 600ms
    seq:
      - {as: first, stream: axon_1}
      - {as: more, stream: axon_2, where: "value > first.value", min: 1, max: 3}
      - not: {as: stop, stream: axon_1, where: "type == 'C'"}
    skip: past_last
    emit: {integrated_value: "count(more)"}
    alert: {severity: info, message: "{first.value}"}
    group: {within: 1s}
  - name: anywhere
    by: null
    within: 50ms
    seq:
      - {as: one, stream: axon_1, where: "type == 'A'"}
      - {as: two, stream: axon_2, where: "type == 'B'"}
  - name: again
    by: key
    within: 1s
    seq:
      - {as: one, stream: pair}
      - {as: two, stream: pair}
    skip: past_last
  - name: single
    by: key
    within: 1s
    any:
      - {as: a, stream: axon_1, where: "type == 'A'"}
    emit: {integrated_value: "a.value * 2"}
  - name: busy
    by: key
    within: 2s
    seq:
      - {as: n, stream: counts, where: "n >= 4"}
windows:
  - name: counts
    from: axon_1
    by: key
    every: 500ms
    late: revise
    keep: 10s
    select: {n: "count()"}
validators:
  - {stream: axon_2, where: "value != 13", reason: "no thirteen"}
"""


def some_log(path, seed, *, as_json):
    """Spikes of five keys in disorder, with events that are late, that come twice, and that tie."""
    rng = np.random.default_rng(seed)
    offsets: dict[tuple[str, int], int] = {}
    messages = []
    for number in range(30):
        stream = ("axon_1", "axon_2")[int(rng.integers(2))]
        count = int(rng.integers(1, 9))
        times = number * 60_000 + rng.integers(-150_000, 60_000, count)
        if rng.random() < 0.1:
            times -= 3_000_000
        keys = [f"d{each}" for each in rng.integers(5, size=count)]
        frame = axon_frame(stream, keys, times, types="ABC", seq=number * 10 - int(rng.integers(3)), origin="p")
        if not as_json:
            messages += frame_messages(frame, 2, offsets)
            continue
        for row in frame.rows():
            place = (f"mono.{stream}", int(row["key"][1]) % 2)
            value = orjson.dumps({**row, "event_id": f"e{rng.integers(400)}"})
            offset = offsets.get(place, 0)
            offsets[place] = offset + 1
            messages.append(
                ConsumedRecord(*place, offset, (T0_US + number * 60_000) // 1000, row["key"].encode(), value)
            )
    return write_log(path, messages)


def history_of(log, **more):
    options = {"lateness_us": 100_000, "clock_tolerance_us": 10**12, "most_events": 10**6} | more
    return History(lambda ruleset: Inputs(ruleset, [log]), **options)


def assert_as_backtest(ruleset, log, found, lateness_us=100_000):
    expected = backtest(ruleset, [log], lateness_us=lateness_us, clock_tolerance_us=10**12)
    assert found.keys() == {rule.name for rule in ruleset.rules}
    assert Counter(each for own in found.values() for each in own.made()) == Counter(expected.made)
    assert Counter(each for own in found.values() for each in own.raised()) == Counter(expected.raised)
    for name, count in expected.rules.items():
        own = found[name]
        figures = (own.count, own.alerts, own.suppressed, own.grouped)
        assert figures == (count.matches, count.alerts, count.suppressed, count.grouped), name
    return expected


@pytest.mark.parametrize("rows", [5, 131_072])
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_all_rules_find_what_a_backtest_finds(tmp_path, monkeypatch, seed, as_json, rows):
    monkeypatch.setattr(tape, "_ROWS", rows)
    log = some_log(tmp_path / "run.jsonl.zst", seed, as_json=as_json)
    ruleset = load_rules(RULES)
    tapes = history_of(log).tapes(ruleset)
    found = find_matches(ruleset, tapes, only={rule.name for rule in ruleset.rules})
    expected = assert_as_backtest(ruleset, log, found)
    assert (tapes.events, tapes.late, tapes.dead) == tuple(
        getattr(expected.counters, name) for name in ("received", "late", "dead")
    )
    assert expected.counters.late > 0
    assert found["pair"].count > 0
    assert found["busy"].count > 0
    assert found["single"].count > 0


LINKED = """
rules:
  - {name: seed, seq: [{as: a, stream: axon_1, where: "type == 'A'"}], emit: {to: "a.value"}}
  - name: relay
    within: 300ms
    seq:
      - {as: w, stream: [wave, axon_1]}
      - {as: b, stream: axon_2}
    emit: {to: "b.value + 1"}
  - {name: heard, within: 200ms, seq: [{as: one, stream: wave}, {as: two, stream: wave}]}
junctions:
  - {name: wave, from: [seed, relay], delay: 1ms, damping: 0.5, max_hops: 3}
"""


@pytest.mark.parametrize("seed", range(2))
def test_rules_in_a_circle_of_junctions_find_what_a_backtest_finds(tmp_path, seed):
    log = some_log(tmp_path / "run.jsonl.zst", seed, as_json=False)
    ruleset = load_rules(LINKED)
    found = find_matches(ruleset, history_of(log).tapes(ruleset), only={rule.name for rule in ruleset.rules})
    assert_as_backtest(ruleset, log, found)
    assert found["relay"].count > found["seed"].count > 0
    assert found["heard"].count > 0


FORMING = """
rules:
  - {name: sent, seq: [{as: a, stream: axon_1}], emit: {to: "a.value"}}
  - {name: met, within: 300ms, seq: [{as: one, stream: bond}, {as: b, stream: axon_2}]}
junctions:
  - {name: bond, from: sent, delay: 1ms, forms: {with: axon_2, over: 1s, every: 100ms, above: 0, below: 1}}
"""


def test_rules_behind_a_junction_that_forms_find_what_a_backtest_finds(tmp_path):
    log = some_log(tmp_path / "run.jsonl.zst", 3, as_json=False)
    ruleset = load_rules(FORMING)
    found = find_matches(ruleset, history_of(log).tapes(ruleset), only={"sent", "met"})
    assert_as_backtest(ruleset, log, found)
    always = load_rules(FORMING.replace(", forms: {with: axon_2, over: 1s, every: 100ms, above: 0, below: 1}", ""))
    every = find_matches(always, history_of(log).tapes(always), only={"sent", "met"})
    assert every["met"].count > found["met"].count > 0


@pytest.mark.parametrize(
    "edit",
    [
        ("above: 0", "above: 1"),
        ("within: 400ms", "within: 250ms"),
        ("n >= 4", "n >= 3"),
        ("every: 500ms", "every: 250ms"),
        ("value != 13", "value != 12"),
        ("  - name: again", "  - name: once_more"),
        ("stream: axon_1, where: \"type == 'C'\"", "stream: axon_3, where: \"type == 'C'\""),
        ("by: null", "by: type"),
        ("within: 200ms", "within: 100ms"),
        ("max_hops: 3", "max_hops: 2"),
    ],
)
def test_an_edit_gives_what_two_backtests_give(tmp_path, edit):
    log = some_log(tmp_path / "run.jsonl.zst", 11, as_json=True)
    (text,) = (each for each in (RULES, LINKED, FORMING) if edit[0] in each)
    before, after = load_rules(text), load_rules(text.replace(*edit))
    history = history_of(log)
    compared = compare_rule_sets(history, before, after)
    a, b = (backtest(each, [log], lateness_us=100_000, clock_tolerance_us=10**12).made for each in (before, after))
    changed = {each.name: each for each in compared.changes}
    for expected in compare(a, b):
        if expected.rule in compared.unchanged:
            assert not expected.only_a
            assert not expected.only_b
            continue
        own = changed[expected.rule]
        assert len(own.both) == expected.both
        for side, numbers, made in (
            (own.before, own.only_before, expected.only_a),
            (own.after, own.only_after, expected.only_b),
        ):
            all_made = [] if side is None else side.made()
            assert Counter(all_made[number].identity for number in numbers) == Counter(each.identity for each in made)


def test_only_what_an_edit_can_change_is_run_again(tmp_path):
    before, after = load_rules(RULES), load_rules(RULES.replace("n >= 4", "n >= 3"))
    assert differing(before, after) == {"busy"}
    assert differing(before, load_rules(RULES.replace("within: 400ms", "within: 1s"))) == {"pair", "again"}
    assert differing(before, load_rules(RULES.replace("every: 500ms", "every: 1s"))) == {"counts", "busy"}
    log = some_log(tmp_path / "run.jsonl.zst", 3, as_json=False)
    history = history_of(log)
    first = compare_rule_sets(history, before, after)
    assert [each.name for each in first.changes] == ["busy"]
    assert not first.anew
    assert history.tapes(after) is history.tapes(before), "decoded once"
    changed = load_rules(RULES.replace("value != 13", "value != 12"))
    assert compare_rule_sets(history, before, changed).anew


def test_a_match_is_shown_with_its_events_and_their_fields(tmp_path):
    log = some_log(tmp_path / "run.jsonl.zst", 5, as_json=False)
    ruleset = load_rules(PAIR)
    found = find_matches(ruleset, history_of(log, lateness_us=LATENESS).tapes(ruleset), only={"pair"})["pair"]
    shown = found.explained(3)
    made = found.made()[3]
    assert (shown.event_id, shown.key, shown.time_us) == (made.event_id, made.key, made.time_us)
    assert [source.event_id for source in shown.sources] == list(made.sources)
    assert [(source.step, source.topic) for source in shown.sources] == [("a", "mono.axon_1"), ("b", "mono.axon_2")]
    assert [source.fields["type"] for source in shown.sources] == ["A", "B"]
    assert shown.integrated_value == sum(source.fields["value"] for source in shown.sources)
    assert shown.alerts[0]["severity"] == "warning"


def test_what_exceeds_a_bound_is_refused(tmp_path):
    log = some_log(tmp_path / "run.jsonl.zst", 5, as_json=False)
    ruleset = load_rules(STRICT)
    with pytest.raises(TooLarge):
        history_of(log, most_events=50).tapes(ruleset)
    tapes = history_of(log).tapes(ruleset)
    with pytest.raises(TooManyMatches):
        find_matches(ruleset, tapes, only={"pair"}, most_matches=2)
    with pytest.raises(Interrupted):
        history_of(log).tapes(ruleset, wanted=lambda: False)
