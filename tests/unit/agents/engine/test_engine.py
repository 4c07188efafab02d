"""The engine: late rows, windows, rules over rules, changed rules, single events, outputs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from astrocyte import Engine, Rule, RuleSet, load_rules, match
from astrocyte.agents.engine.strata import Stratum
from astrocyte.agents.matches.lineage import alert_records, lineages, multi_event_records
from astrocyte.schemas.errors import InvalidEvent, InvalidRule, InvalidSettings
from astrocyte.schemas.events import Alert, MultiEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US

PAIR = load_rules(
    """
rules:
  - name: type_A_and_B_within_2s
    within: 2s
    all:
      - {as: a, stream: axon_1, where: "type == 'A'"}
      - {as: b, stream: axon_2, where: "type == 'B'"}
    emit: {integrated_value: "a.value + b.value", spread: "b.value - a.value", confidence: "a.value / b.value"}
    alert: {severity: warning, message: "{a.value:.1f} and {b.value:.1f} by {a.type}"}
    on_timeout: {emit: {seen: "count(a)"}, alert: {severity: info, message: "alone: {a.value}"}}
"""
)
S = 1_000_000


def frame(stream: str, rows: list[tuple[int, str, str, float]], *, first_seq: int = 0, **meta: Any) -> Frame:
    names = ("timestamp", "key", "type", "value")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Frame.from_columns(stream, "run", columns, first_seq=first_seq, **meta)


A = frame("axon_1", [(0, "k", "A", 1.0), (3 * S, "k", "A", 3.0)])
B = frame("axon_2", [(1 * S, "k", "B", 2.0), (9 * S, "l", "B", 4.0)])


def test_a_match_carries_its_events_values_and_alert() -> None:
    engine = Engine(PAIR)
    engine.push(B, topic="mono.axon_2", partition=3, offsets=np.array([40, 41]))
    engine.push(A)
    (found,) = engine.advance(2 * S).matches
    assert (found.rule, found.key, found.time_us, found.timed_out) == ("type_A_and_B_within_2s", "k", S, False)
    assert found.events["a"][0].fields == {"key": "k", "type": "A", "value": 1.0}
    assert (found.events["b"][0].topic, found.events["b"][0].partition, found.events["b"][0].offset) == (
        "mono.axon_2", 3, 40,
    )  # fmt: skip
    assert found.emit == {"integrated_value": 3.0, "spread": 1.0, "confidence": 0.5}
    assert (found.integrated_value, found.confidence) == (3.0, 0.5)
    assert found.alert is not None
    assert (found.alert.severity, found.alert.message) == ("warning", "1.0 and 2.0 by A")


def test_timeouts_have_their_own_values_and_alerts_and_fire_once_time_has_passed_them() -> None:
    engine = Engine(PAIR)
    engine.push(A)
    assert len(engine.advance(2 * S).matches) == 0
    (found,) = engine.advance(2 * S + 1).matches
    assert (found.timed_out, found.time_us, found.emit) == (True, 2 * S, {"seen": 1})
    assert found.alert is not None
    assert found.alert.message == "alone: 1.0"


def test_rows_behind_the_watermark_are_returned_as_late_and_not_matched() -> None:
    engine = Engine(PAIR)
    engine.advance(1 * S)
    engine.push(A)
    engine.push(B)
    output = engine.flush()
    assert [late.rows()[0]["timestamp"] for late in output.late] == [0]
    assert engine.late == 1
    assert not any(not each.timed_out and each.time_us == S for each in output.matches)


def test_records_have_the_documented_shape_and_lineage_down_to_the_offset() -> None:
    engine = Engine(PAIR)
    engine.push(A, topic="mono.axon_1", partition=1, offsets=7)
    engine.push(B, topic="mono.axon_2", partition=1, offsets=np.array([40, 41]))
    table = engine.flush().matches
    record = multi_event_records(table)[0]
    event = MultiEvent.model_validate_json(record.value)
    assert record.key == b"k"
    assert event.event_type == "MULTI_ORIGINATED"
    assert event.metadata == {"spread": 1.0}
    assert list(event.lineage) == ["axon_1", "axon_2"]
    assert event.lineage["axon_2"].model_dump() == {
        "event_id": event.source_events[1], "timestamp": "1970-01-01T00:00:01Z", "step": "b",
        "topic": "mono.axon_2", "partition": 1, "offset": 40,
    }  # fmt: skip
    assert event.lineage["axon_1"].offset == 7
    assert dict(record.headers)["ce_ruleversion"] == PAIR.rules[0].content_version.encode()
    alerts = [Alert.model_validate_json(each.value) for each in alert_records(table)]
    assert alerts[0].multi_event_id == event.event_id
    assert [alert.severity for alert in alerts] == ["warning", "info", "info"]
    assert [dict(each.headers).get("ce_timedout") for each in multi_event_records(table)] == [None, b"true", b"true"]


def test_further_events_of_one_stream_follow_its_first_in_the_lineage() -> None:
    rule = Rule(name="r", within="9s", seq=[{"as": "a", "stream": "s", "min": 2}, {"as": "b", "stream": "t"}],
                skip="past_last")  # fmt: skip
    engine = Engine(rule)
    engine.push(frame("s", [(0, "k", "A", 1.0), (1, "k", "A", 2.0)]))
    engine.push(frame("t", [(2, "k", "B", 1.0)]))
    table = engine.flush().matches
    (lineage,) = lineages(table)
    ids = [event.id for event in table.matches()[0].events["a"]]
    assert [lineage["s"]["event_id"], *(also["event_id"] for also in lineage["s"]["also"])] == ids


WINDOWS = """
rules:
  - {name: fell, within: 100s, seq: [{as: before, stream: level}, {as: now, stream: level, where: "n < before.n"}]}
  - name: again
    within: 1000s
    all: [{as: x, stream: fell}, {as: y, stream: fell, where: "y.timestamp > x.timestamp"}]
windows:
  - {name: level, from: s, every: 10s, select: {n: "count()"}}
"""


def test_rules_over_windows_and_over_rules_follow_event_time() -> None:
    rows = [(t * S, "k", "A", 1.0) for t in (0, 1, 2, 11, 12, 21, 35, 36, 37, 38, 41)]
    engine = Engine(load_rules(WINDOWS), exports=["fell"])
    engine.push(frame("s", rows))
    output = engine.flush()
    fell = [each.time_us // S for each in output.matches if each.rule == "fell"]
    assert fell == [20, 30, 50]
    assert [(each.key, len(each.events)) for each in output.matches if each.rule == "again"] == [("k", 2)]
    assert {each.stream for each in output.frames} == {"level", "fell"}
    exported = [each for each in output.frames if each.stream == "fell"]
    assert [row["timestamp"] // S for each in exported for row in each.rows()] == fell


def test_a_window_result_comes_before_the_events_of_its_instant() -> None:
    rules = load_rules(
        """
rules:
  - {name: r, within: 100s, seq: [{as: w, stream: level}, {as: e, stream: s, contiguity: next}]}
windows:
  - {name: level, from: s, every: 10s, select: {n: "count()"}}
"""
    )
    engine = Engine(rules)
    engine.push(frame("s", [(1 * S, "k", "A", 1.0), (10 * S, "k", "A", 2.0)]))
    found = [each for each in engine.flush().matches if each.events["e"][0].timestamp_us == 10 * S]
    assert [each.events["w"][0].timestamp_us for each in found] == [10 * S]


def test_cyclic_rules_are_refused() -> None:
    rules = [Rule(name=one, seq=[{"as": "a", "stream": two}]) for one, two in (("r", "q"), ("q", "r"))]
    with pytest.raises(InvalidRule, match="in a circle"):
        Engine(RuleSet(rules=tuple(rules)))


def test_an_unchanged_rule_keeps_its_partial_matches_when_another_changes() -> None:
    other = Rule(name="other", seq=[{"as": "a", "stream": "axon_1", "where": "value > 2"}])
    engine = Engine([*PAIR.rules, other])
    engine.push(A)
    engine.advance(1)
    changed = Rule(name="other", seq=[{"as": "a", "stream": "axon_1", "where": "value > 9"}])
    engine.update([changed, *PAIR.rules])
    engine.push(B)
    found = [each for each in engine.advance(2 * S).matches if not each.timed_out]
    assert [(each.rule, each.time_us) for each in found] == [("type_A_and_B_within_2s", S)]
    with pytest.raises(InvalidRule):
        engine.update([changed, changed])
    assert [rule.name for rule in engine.rules] == ["other", "type_A_and_B_within_2s"]


OTHER_RULES = {
    "one condition changed": ("value > 0.5", "value > 2.5"),
    "a rule renamed": ("name: high", "name: higher"),
    "another window": ("every: 4s", "every: 2s"),
    "no rule over the rule": ("  - {name: over, by: key, seq: [{as: h, stream: high}]}\n", ""),
    "another stream": ("stream: axon_2, where", "stream: axon_1, where"),
    "another span": ("within: 9s", "within: 5s"),
}
LAYERS = """
windows:
  - {name: counts, from: axon_1, by: key, every: 4s, select: {n: count()}}
rules:
  - {name: pair, by: key, within: 9s, all: [{as: a, stream: axon_1}, {as: b, stream: axon_2, where: "value > 0.5"}]}
  - {name: high, by: key, seq: [{as: a, stream: axon_1, where: "value > 0.5"}]}
  - {name: over, by: key, seq: [{as: h, stream: high}]}
  - {name: busy, by: key, seq: [{as: w, stream: counts, where: "n > 0"}]}
"""


@pytest.mark.parametrize("change", OTHER_RULES)
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_a_snapshot_under_changed_rules_goes_on_as_a_running_engine_whose_rules_change(change, back, consistency):
    before, after = load_rules(LAYERS), load_rules(LAYERS.replace(*OTHER_RULES[change]))
    assert before != after
    if back:
        before, after = after, before
    running = Engine(before, consistency=consistency)
    running.push(A)
    running.push(frame("axon_2", [(1 * S, "k", "B", 2.0)]))
    running.advance(2 * S)
    restarted = Engine(after, consistency=consistency)
    restarted.restore(running.snapshot())
    running.update(after)
    made = []
    for engine in (running, restarted):
        engine.push(frame("axon_2", [(4 * S, "k", "B", 2.0), (9 * S, "l", "B", 4.0)], first_seq=1))
        engine.push(frame("axon_1", [(10 * S, "k", "A", 3.0)], first_seq=2))
        outputs = [engine.advance(8 * S), engine.flush()]
        made.append(sorted((each.rule, each.id, each.status, each.time_us) for o in outputs for each in o.matches))
    assert made[0] == made[1] != []


def test_events_of_one_instant_keep_the_order_of_their_producer() -> None:
    rule = Rule(name="r", within="1s", seq=[{"as": "a", "stream": "s", "where": "value == 1"},
                                            {"as": "b", "stream": "s", "contiguity": "next"}])  # fmt: skip
    events = [{"stream": "s", "timestamp": 0, "key": "k", "value": value} for value in (5, 1, 7, 9)]
    assert [each.events["b"][0].fields["value"] for each in match(rule, events)] == [7]


def test_an_eventual_engine_is_stored_before_event_time_has_begun() -> None:
    """As a worker does before it has received messages of every topic."""
    engine = Engine(PAIR, consistency="eventual")
    engine.push(frame("axon_1", [(1_000_000, "k", "A", 0.5)]))
    engine.push(frame("axon_2", [(1_500_000, "k", "B", 0.5)]))
    eventual = [found.id for found in engine.advance(NEVER_US).matches]
    other = Engine(PAIR, consistency="eventual")
    other.restore(engine.snapshot())
    assert len(eventual) == 1
    for each in (engine, other):
        assert [(found.status, found.id) for found in each.flush().matches] == [("confirmed", eventual[0])]


def test_single_events_match_like_frames() -> None:
    events = [{"stream": each.stream, **row} for each in (A, B) for row in each.rows()]
    events.sort(key=lambda event: event["timestamp"])
    engine = Engine(PAIR, consistency="eventual")
    eventual = [found for event in events for found in engine.push_event(event)]
    assert [(each.status, each.time_us, each.timed_out) for each in eventual] == [
        ("provisional", S, False), ("provisional", 5 * S, True),
    ]  # fmt: skip
    assert [(each.status, each.id) for each in engine.advance(2 * S).matches] == [("confirmed", eventual[0].id)]
    assert [(each.status, each.id) for each in engine.advance(9 * S).matches] == [("confirmed", eventual[1].id)]
    assert Engine(PAIR).push_event(events[0]) == []


@pytest.mark.parametrize(
    ("stream", "members", "where"),
    [
        ("s", {"type": 5}, "type == '5'"),
        ("s", {"key": 5}, "key == '5'"),
        ("s", {}, "type == 's'"),
        ("s", {"type": None}, "type == 's'"),
        ("cell_vitals", {}, "type == 'vitals'"),  # the only type that the catalog lists
    ],
)
def test_key_and_type_of_a_single_event_are_text_before_and_after_the_watermark(stream, members, where) -> None:
    rule = Rule(name="r", by=None, any=[{"as": "a", "stream": stream, "where": where}])
    engine = Engine(rule, consistency="eventual")
    (eventual,) = engine.push_event({"stream": stream, "timestamp": S, "key": "k", **members})
    (final,) = engine.flush().matches
    assert (final.status, final.id, final.events["a"][0].fields) == (
        "confirmed", eventual.id, eventual.events["a"][0].fields,
    )  # fmt: skip


def test_a_provisional_match_that_a_later_arrival_forbids_is_retracted() -> None:
    rule = Rule(name="r", within="9s", seq=[{"as": "a", "stream": "s", "where": "type == 'A'"},
                                            {"not": {"stream": "s", "where": "type == 'X'"}},
                                            {"as": "b", "stream": "s", "where": "type == 'B'"}])  # fmt: skip
    engine = Engine(rule, consistency="eventual")
    (eventual,) = [each for t, kind in ((0, "A"), (2, "B")) for each in
                engine.push_event({"stream": "s", "timestamp": t, "key": "k", "type": kind})]  # fmt: skip
    assert eventual.provisional
    engine.push_event({"stream": "s", "timestamp": 1, "key": "k", "type": "X"})
    assert [(each.status, each.id) for each in engine.advance(5).matches] == [("retracted", eventual.id)]


def test_plain_events_may_have_any_common_form() -> None:
    rule = Rule(name="r", within="2s", all=[{"as": "a", "stream": "axon_1"}, {"as": "b", "stream": "axon_2"}])
    events = [
        {"event_id": "x", "timestamp": "2025-09-28T10:30:00Z", "source_stream": "stream:axon_1", "key": "k",
         "type": "A", "value": 10, "metadata": {"depth": 3}},
        {"timestamp": 1_759_055_401_000_000, "stream": "axon_2", "key": "k", "type": "B", "value": 1.5},
    ]  # fmt: skip
    (found,) = match(rule, events)
    assert found.events["a"][0].id == "x"
    assert found.events["a"][0].fields["depth"] == 3
    for wrong in ({"stream": "axon_1"}, {"stream": "axon_1", "timestamp": 1.5}):
        assert len(match(rule, [wrong]).refused) == 1
    for wrong in ({"timestamp": 1}, 7):
        with pytest.raises(InvalidEvent):
            match(rule, [wrong])  # type: ignore[list-item]


def test_a_misspelt_consistency_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="strong or eventual"):
        Engine(PAIR, consistency="sometimes")  # type: ignore[arg-type]


def test_importing_agents_loads_no_heavy_library() -> None:
    code = "import sys, agents; print(sorted({'numba', 'faust', 'aiokafka', 'jax', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("rules", ["rules.yaml", "rules: [{name: r}]" * 40, {"rules": []}, [1], None])
def test_an_object_that_is_not_a_rule_is_refused_once_with_what_to_do(rules: Any) -> None:
    for use in (Engine, lambda given: match(given, [])):
        with pytest.raises(InvalidRule, match=r"expected a Rule, .* load_rules\(\.\.\.\) makes a RuleSet") as caught:
            use(rules)
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)


def test_two_rules_of_one_name_are_an_invalid_rule() -> None:
    with pytest.raises(InvalidRule, match="given to two rules"):
        Engine([*PAIR.rules, *PAIR.rules])


def test_an_event_pushed_alone_completes_a_match_that_a_frame_began() -> None:
    engine = Engine(PAIR, consistency="eventual")
    engine.push(frame("axon_1", [(0, "k", "A", 1.0)]))
    event = {"stream": "axon_2", "timestamp": S, "key": "k", "type": "B", "value": 2.0}
    (found,) = engine.push_event(event)
    assert (found.rule, found.status, found.emit["spread"]) == ("type_A_and_B_within_2s", "provisional", 1.0)
    assert [each.status for each in engine.advance(2 * S).matches] == ["confirmed"]


def test_events_pushed_in_several_calls_have_ids_of_their_own() -> None:
    rules = load_rules("rules: [{name: any_a, seq: [{as: a, stream: A}]}]")
    events = [{"stream": "A", "timestamp": time, "key": "k", "value": 1} for time in (1, 2, 3, 4)]
    engine = Engine(rules)
    engine.push_events(events[:1])
    engine.push_event(events[1])
    engine.push_events(events[2:3])
    engine.push_event(events[3])
    table = engine.flush().matches
    assert engine.duplicates == 0
    assert [found.time_us for found in table] == [1, 2, 3, 4]
    assert [found.id for found in table] == [found.id for found in match(rules, events)]


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_the_member_stream_names_the_stream_and_a_field_of_that_name_is_in_metadata(consistency: Any) -> None:
    rules = load_rules(
        """
        rules:
          - {name: field, seq: [{as: a, stream: A, where: "stream == 'north'"}], emit: {v: a.stream}}
          - {name: none, seq: [{as: a, stream: A, where: "stream is None and source_stream is None"}]}
        """
    )
    events = [
        {"stream": "A", "timestamp": 1, "key": "k"},
        {"source_stream": "stream:A", "timestamp": 2, "key": "k"},
        {"stream": "A", "source_stream": "stream:B", "timestamp": 3, "key": "k"},
        {"stream": "A", "timestamp": 4, "key": "k", "metadata": {"stream": "north"}},
    ]
    wanted = [("none", 1, None), ("none", 2, None), ("none", 3, None), ("field", 4, "north")]

    def shown(found: Any) -> list[Any]:
        matches = [each for each in found if each.status in ("final", "confirmed")]
        for each in matches:
            (event,) = each.events["a"]
            assert event.fields.get("stream") == each.emit.get("v")
        return [(each.rule, each.time_us, each.emit.get("v")) for each in matches]

    assert shown(match(rules, events)) == wanted
    engine = Engine(rules, consistency=consistency)
    early = [found for event in events for found in engine.push_event(event)]
    assert [found.events["a"][0].fields.get("stream") for found in early] == (
        [None, None, None, "north"] if consistency == "eventual" else []
    )
    assert shown([*engine.advance(100).matches.matches(), *engine.flush().matches.matches()]) == wanted


def test_a_frame_with_a_value_of_another_type_than_the_declared_loses_that_row_alone() -> None:
    rules = load_rules("rules: [{name: high, seq: [{as: a, stream: axon_1, where: value > 3}], emit: {v: a.value}}]")
    columns = {"timestamp": [1, 2, 3, 4], "key": ["k"] * 4, "type": ["A"] * 4, "value": [5, "n/a", True, 7.5]}
    engine = Engine(rules)
    engine.push(Frame.from_columns("axon_1", "r", columns))
    output = engine.flush()
    assert [repr(found.emit["v"]) for found in output.matches] == ["5.0", "7.5"]
    assert [event.reason for event in output.refused] == [
        "field 'value' is 'n/a'; expected double", "field 'value' is True; expected double",
    ]  # fmt: skip
    engine.push(Frame.from_columns("axon_1", "r", {**columns, "value": [5, 6, 7, 2**53 + 1]}, first_seq=4))
    output = engine.flush()
    assert not output.refused
    assert [found.emit["v"] for found in output.matches] == [5.0, 6.0, 7.0, 2.0**53]  # the nearest one


def test_a_restored_engine_says_nothing_of_results_that_could_not_be_read_before(monkeypatch) -> None:
    rules = load_rules(
        """
rules:
  - {name: first, seq: [{as: a, stream: axon_1}]}
  - {name: second, seq: [{as: a, stream: first}]}
"""
    )
    engine = Engine(rules)
    before = engine.snapshot()
    engine.push(A)
    advance, take = Stratum.advance, Engine._take
    advanced: list[Stratum] = []

    def failing_take(self: Engine, made: Frame, *rest: Any) -> None:
        if made.stream == "first":
            raise ZeroDivisionError("a bug")
        take(self, made, *rest)

    def failing_advance(self: Stratum, *rest: Any) -> Any:
        advanced.append(self)
        if len(advanced) > 1:
            raise ZeroDivisionError("a bug")
        return advance(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_take", failing_take)
        patch.setattr(Stratum, "advance", failing_advance)
        with pytest.raises(ZeroDivisionError):
            engine.advance(9 * S)
    engine.restore(before)
    assert engine.flush().failed == []
