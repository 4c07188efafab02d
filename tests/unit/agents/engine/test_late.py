"""Late events in a program: returned once, and taken by windows that revise, whichever way they are pushed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from astrocyte import Engine, Frame, load_rules
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.testing import START_US, RuleTester
from astrocyte.schemas.json.reader import RawRecord
from astrocyte.schemas.times import iso_from_us

S = 1_000_000
RULES = load_rules("""
windows:
  - {name: w, from: A, by: key, every: 10s, late: revise, keep: 5s, select: {n: "count()", s: "sum(value)"}}
  - {name: v, from: A, by: key, every: 10s, select: {n: "count()"}}
rules:
  - {name: r, seq: [{as: a, stream: A, where: "value > 3"}]}
""")
STEPS: list[float | int] = [1.0, 12, 9.0, 14, 9.5, 16, 8.0, 18]
"""Times of events as floats, and watermarks, in seconds."""
REVISED = [(1, 1.0, 0), (2, 10.0, 1), (3, 19.5, 2)]
"""Count, sum and revision of each result of ``w``; the event at 8 comes when nothing is kept any more."""


def event_of(at_s: float) -> dict[str, Any]:
    return {"stream": "A", "timestamp": round(at_s * S), "key": "k", "value": at_s}


def put(engine: Engine, how: str, event: dict[str, Any]) -> None:
    columns = {"timestamp": np.array([event["timestamp"]]), "key": ["k"], "value": np.array([event["value"]])}
    if how == "push":
        engine.push(Frame.from_columns("A", "", columns))
    elif how == "push_events":
        engine.push_events([event])
    else:
        engine.push_event(event)


def outputs_of(engine: Engine, how: str) -> Iterator[EngineOutput]:
    for step in STEPS:
        if isinstance(step, int):
            yield engine.advance(step * S)
        else:
            put(engine, how, event_of(step))
    yield engine.flush()


def results(frames: list[Frame], window: str) -> list[tuple[int, float | None, int]]:
    rows = [row for frame in frames if frame.stream == window for row in frame.rows()]
    return [(row["n"], row.get("s"), row["revision"]) for row in rows]


@pytest.mark.parametrize("how", ["push", "push_event", "push_events"])
@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_late_events_revise_windows_take_no_part_in_rules_and_are_returned_by_the_next_step(how, consistency):
    engine = Engine(RULES, consistency=consistency)
    outputs = list(outputs_of(engine, how))
    frames = [frame for output in outputs for frame in output.frames]
    assert results(frames, "w") == REVISED
    assert results(frames, "v") == [(1, None, 0)]
    assert [[row["value"] for frame in output.late for row in frame.rows()] for output in outputs] == [
        [], [9.0], [9.5], [8.0], []
    ]  # fmt: skip
    assert [match for output in outputs for match in output.matches] == []
    assert engine.late == 3


def test_a_domain_gives_the_same_results_of_late_events_as_an_engine_in_a_program():
    engine = Engine(RULES, validated=True)
    domain = Domain(0, [DomainGroup("key", engine, {"A": "mono.A"})], topics=["mono.A"])
    frames, late = [], 0
    for offset, at_s in enumerate([1.0, 12.0, 9.0, 14.0, 9.5, 16.0, 8.0, 18.0]):
        time_us = START_US + round(at_s * S)
        body = orjson.dumps({"timestamp": iso_from_us(time_us), "value": at_s})
        output = domain.feed("mono.A", [RawRecord(offset, time_us // 1000, b"k", body)])
        frames, late = frames + output.frames, late + len(output.late)
    assert results(frames, "w") == REVISED
    assert late == 3


def test_a_tester_of_rules_revises_windows_by_late_events_and_returns_each_once():
    tester = RuleTester(RULES)
    for at in ("1s", "12s", "9s", "14s", "9.5s", "16s", "8s", "18s"):
        tester.send("A", at=at, value=float(at[:-1]))
    assert [(row["n"], row["s"], row["revision"]) for row in tester.results("w")] == REVISED
    assert [(event["stream"], event["key"], event["value"]) for event in tester.late()] == [
        ("A", "key", 9.0), ("A", "key", 9.5), ("A", "key", 8.0)
    ]  # fmt: skip
    assert tester.late() == []


def test_the_numbers_of_events_do_not_depend_on_how_late_ones_are_pushed():
    rule = load_rules('rules: [{name: r, seq: [{as: a, stream: A, where: "value > 20"}]}]')
    ids = set()
    for how in ("push", "push_event", "push_events"):
        engine = Engine(rule)
        engine.advance(12 * S)
        put(engine, how, event_of(9.0))
        put(engine, how, event_of(21.0))
        (found,) = engine.flush().matches
        ids.add(found.id)
    assert len(ids) == 1


def test_a_late_event_that_is_refused_by_a_validator_revises_nothing():
    rules = load_rules("""
validators: [{stream: A, where: "value != 9.5"}]
windows: [{name: w, from: A, by: key, every: 10s, late: revise, keep: 5s, select: {n: "count()", s: "sum(value)"}}]
""")
    outputs = list(outputs_of(Engine(rules), "push_event"))
    assert results([frame for output in outputs for frame in output.frames], "w") == [(1, 1.0, 0), (2, 10.0, 1)]
    assert [event.fields["value"] for output in outputs for event in output.refused] == [9.5]


def restored(engine: Engine, rules: Any = RULES) -> Engine:
    other = Engine(rules)
    other.restore(engine.snapshot())
    return other


def test_late_events_that_wait_for_the_next_step_are_in_a_snapshot():
    engine = Engine(RULES)
    engine.push_event(event_of(1.0))
    engine.advance(12 * S)
    engine.push_event(event_of(9.0))
    engine.push_event(event_of(2.0))
    engine = restored(restored(engine))
    output = engine.advance(13 * S)
    assert [row["value"] for frame in output.late for row in frame.rows()] == [9.0, 2.0]
    assert engine.late == 2
    assert restored(engine).advance(14 * S).late == []


def test_refused_events_that_wait_for_the_next_step_are_in_a_snapshot():
    rules = load_rules('validators: [{stream: A, where: "value < 5"}]\nwindows: ' + RULES_OF_ONE)
    engine = Engine(rules)
    engine.push_event(event_of(7.0) | {"note": "a", "list": [1, {"x": None}]})
    engine.push_event({"stream": "A", "timestamp": object(), "lone": "\ud800", 5: float("inf")})
    expected = [(event.id, event.stream, event.timestamp_us, event.reason) for event in engine.advance(1 * S).refused]
    assert len(expected) == 2
    engine = Engine(rules)
    engine.push_event(event_of(7.0) | {"note": "a", "list": [1, {"x": None}]})
    engine.push_event({"stream": "A", "timestamp": object(), "lone": "\ud800", 5: float("inf")})
    engine = restored(engine, rules)
    assert engine.refused == 2
    found = engine.advance(1 * S).refused
    assert [(event.id, event.stream, event.timestamp_us, event.reason) for event in found] == expected
    assert found[0].fields["note"] == "a"
    assert found[1].fields["lone"] == "'\\ud800'"
    assert engine.advance(2 * S).refused == []


RULES_OF_ONE = '[{name: w, from: A, by: key, every: 4s, late: revise, keep: 5s, select: {n: "count()"}}]'


@pytest.mark.parametrize("before", ["nothing", "a snapshot", "new rules", "new rules and a snapshot", "a flush"])
@pytest.mark.parametrize(("at_s", "expected"), [(1.0, []), (7.9, []), (8.1, [(1, None, 0)]), (15.0, [(1, None, 0)])])
def test_the_first_event_that_a_window_sees_is_not_taken_when_nothing_of_its_time_is_kept(before, at_s, expected):
    rules = load_rules(f"windows: {RULES_OF_ONE}")
    new = "new rules" in before
    engine = Engine(load_rules("rules: [{name: r, seq: [{as: a, stream: A}]}]") if new else rules)
    if before == "a flush":
        engine.advance(100 * S)
        engine.flush()
    engine.advance(int(16.5 * S))
    if new:
        engine.update(rules)
    if "a snapshot" in before:
        engine = restored(engine, rules)
    engine.push_event(event_of(at_s))
    outputs = [engine.advance(18 * S), engine.flush()]
    assert results([frame for output in outputs for frame in output.frames], "w") == expected
    assert sum(frame.num_rows for output in outputs for frame in output.late) == 1


@pytest.mark.parametrize("kind", ["session: 3s", "sliding: 3s", "every: 4s"])
def test_event_time_may_begin_anew_after_a_flush_for_windows_that_saw_nothing_before(kind):
    engine = Engine(load_rules(f'windows: [{{name: w, from: A, by: key, {kind}, select: {{n: "count()"}}}}]'))
    engine.advance(100 * S)
    engine.flush()
    engine.push_event(event_of(5.0))
    assert results(engine.flush().frames, "w") == [(1, None, 0)]
