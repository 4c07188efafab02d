"""Junctions that form and dissolve, against a second implementation, which goes boundary by boundary over dicts."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.output import EngineOutput
from astrocyte.agents.matches.table import Match
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.times import us_from_iso
from tests.conformance.test_junctions import content, frames_of, identified
from tests.support.forming import Decided, let_through, random_forming_rules
from tests.support.linked import found_in_passes, random_events, rules_of
from tests.support.logs import frame_messages, write_log
from tests.support.search import examples

SEEDS = st.integers(0, 2**32 - 1)
pytestmark = pytest.mark.time_limit(180, "matches each example several times, by two implementations")


def expected_of(text: str, events: list[dict[str, Any]]) -> tuple[list[Match], list[Decided]]:
    decided: list[Decided] = []
    found = found_in_passes(text, events, lambda junction, led: let_through(junction, led, events, decided))
    return found, sorted(decided)


def decided_by(output: EngineOutput) -> list[Decided]:
    return [
        (each.decision.at_us, each.junction.name, *each.decision.pair,
         "formed" if each.decision.formed else "dissolved", each.decision.co_activity)
        for each in output.formed
    ]  # fmt: skip


@examples(15, 400)
@given(SEEDS)
def test_the_cuts_of_the_input_and_a_restart_change_nothing(seed):
    rng = random.Random(seed)
    text, events = random_forming_rules(rng), random_events(rng, 60)
    expected, decisions = expected_of(text, identified(events))
    engine = Engine(rules_of(text))
    found: list[Match] = []
    decided: list[Decided] = []

    def take(output: EngineOutput) -> None:
        nonlocal engine, found, decided
        found += output.matches.matches()
        decided += decided_by(output)
        if rng.random() < 0.3:
            before, engine = engine, Engine(rules_of(text))
            engine.restore(before.snapshot())

    for frame in frames_of(events, rng):
        engine.push(frame)
    for at_us in sorted(rng.sample([event["timestamp"] for event in events], 12)):
        take(engine.advance(at_us))
    take(engine.flush())
    assert content(found) == content(expected), text
    assert sorted(decided) == decisions, text


@pytest.mark.parametrize("partitions", [1, 3])
@examples(8, 150)
@given(SEEDS)
def test_domains_find_and_decide_what_passes_over_dicts_do(partitions, tmp_path_factory, seed):
    rng = random.Random(seed)
    text, events = random_forming_rules(rng), random_events(rng, 80)
    expected, decisions = expected_of(text, identified(events))
    offsets: dict[tuple[str, int], int] = {}
    records: list[ConsumedRecord] = []
    for frame in frames_of(events, rng):
        records += frame_messages(frame, partitions, offsets)
    path = write_log(tmp_path_factory.mktemp("log") / "log.jsonl.zst", records, partitions=partitions)
    run, outputs = run_rules(rules_of(text), [path], lateness_us=0)
    made = list(outputs)
    bodies = [orjson.loads(record.value) for output in made for record in output.multi_events]
    found = sorted((us_from_iso(body["timestamp"]), body["correlation_rule"], body["event_id"]) for body in bodies)
    assert found == sorted((each.time_us, each.rule, each.id) for each in expected), text
    bodies = [orjson.loads(record.value) for output in made for record in output.topology]
    decided = [
        (us_from_iso(each["timestamp"]), each["junction"], each["from"], each["to"], each["kind"], each["co_activity"])
        for each in bodies
    ]
    assert sorted(decided) == decisions, text
    assert len({each["decision_id"] for each in bodies}) == len(bodies)
    for counts in run.led.values():  # what was led on arrived, and each event of it counts once
        assert counts["joined"] + counts["closed"] == counts["led"]
