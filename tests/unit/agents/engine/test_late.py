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
