"""Junctions against a second implementation, which runs the matcher in passes over lists of dicts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.engine.matching import match
from astrocyte.agents.matches.table import Match
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import event_ids, format_ids
from astrocyte.schemas.times import us_from_iso
from tests.support.linked import (
    found_in_generations,
    found_in_passes,
    random_circle,
    random_events,
    random_linked_rules,
    rules_of,
)
from tests.support.logs import frame_messages, write_log
from tests.support.search import examples

SEEDS = st.integers(0, 2**32 - 1)
pytestmark = pytest.mark.time_limit(180, "matches each example several times, by two implementations")


def content(matches: Sequence[Match]) -> list[tuple[Any, ...]]:
    """What makes a match, in one order. Ids of matches and of what junctions lead on are in it."""
    return sorted(
        (
            each.time_us, each.rule, each.key or "", each.id, str(dict(each.emit)), each.confidence,
            str({step: [(event.stream, event.id, event.timestamp_us) for event in events]
                 for step, events in each.events.items()}),
        )
        for each in matches
    )  # fmt: skip


def frames_of(events: Sequence[dict[str, Any]], rng: random.Random) -> list[Frame]:
    """The events as frames of a producer that asserts watermarks, cut at random, in order of their last times."""
    streams = sorted({event["stream"] for event in events})
    frames = []
    for stream in streams:
        own = [event for event in events if event["stream"] == stream]
        cuts = sorted({0, len(own), *(rng.randrange(len(own) + 1) for _ in range(4))})
        for first, last in pairwise(cuts):
            part = [{name: value for name, value in each.items() if name != "stream"} for each in own[first:last]]
            columns = {name: [each[name] for each in part] for name in part[0]}
            meta = {"watermark_us": int(part[-1]["timestamp"]), "origin": "sim", "peers": tuple(streams)}
            columns["timestamp"] = np.array(columns["timestamp"], np.int64)
            frames.append((part[-1]["timestamp"], Frame.from_columns(stream, "run", columns, first_seq=first, **meta)))
    return [frame for _, frame in sorted(frames, key=lambda each: each[0])]


def identified(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events with the ids that `frames_of` gives them."""
    numbers: dict[str, int] = {}
    found = []
    for event in events:
        stream = event["stream"]
        number = numbers[stream] = numbers.get(stream, -1) + 1
        found.append(event | {"event_id": format_ids(event_ids("run", stream, np.array([number], np.int64)))[0]})
    return found


@examples(20, 400)
@given(SEEDS)
def test_one_engine_finds_what_passes_over_dicts_find(seed):
    rng = random.Random(seed)
    text, events = random_linked_rules(rng), identified(random_events(rng, 60))
    assert content(match(rules_of(text), events)) == content(found_in_passes(text, events)), text


@examples(10, 300)
@given(SEEDS)
def test_the_cuts_of_the_input_and_a_restart_change_nothing(seed):
    rng = random.Random(seed)
    text, events = random_linked_rules(rng), random_events(rng, 60)
    expected = content(found_in_passes(text, identified(events)))
    engine = Engine(rules_of(text))
    found: list[Match] = []
    for frame in frames_of(events, rng):
        engine.push(frame)
        # Nothing of any stream is older than what was pushed as a whole; a frame may reach far ahead of the others.
        if rng.random() < 0.3:
            engine_before, engine = engine, Engine(rules_of(text))
            engine.restore(engine_before.snapshot())
    for at_us in sorted(rng.sample([event["timestamp"] for event in events], 12)):
        found += engine.advance(at_us).matches.matches()
        if rng.random() < 0.3:
            engine_before, engine = engine, Engine(rules_of(text))
            engine.restore(engine_before.snapshot())
    found += engine.flush().matches.matches()
    assert content(found) == expected, text


@pytest.mark.parametrize("partitions", [1, 3])
@examples(8, 150)
@given(SEEDS)
@example(44)  # a junction from rules of two depths
def test_domains_find_what_passes_over_dicts_find(partitions, tmp_path_factory, seed):
    rng = random.Random(seed)
    text, events = random_linked_rules(rng), random_events(rng, 80)
    expected = found_in_passes(text, identified(events))
    offsets: dict[tuple[str, int], int] = {}
    records: list[ConsumedRecord] = []
    for frame in frames_of(events, rng):
        records += frame_messages(frame, partitions, offsets)
    path = write_log(tmp_path_factory.mktemp("log") / "log.jsonl.zst", records, partitions=partitions)
    run, outputs = run_rules(rules_of(text), [path], lateness_us=0)
    bodies = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    found = sorted((us_from_iso(body["timestamp"]), body["correlation_rule"], body["event_id"]) for body in bodies)
    assert found == sorted((each.time_us, each.rule, each.id) for each in expected), text
    assert run.counters.late == run.counters.dead == 0


@pytest.mark.parametrize("partitions", [1, 3])
@examples(6, 150)
@given(SEEDS)
def test_a_circle_gives_what_its_generations_give_one_after_the_other_and_dies_out(partitions, tmp_path_factory, seed):
    rng = random.Random(seed)
    text, events = random_circle(rng), random_events(rng, 50)
    expected = found_in_generations(text, identified(events))
    offsets: dict[tuple[str, int], int] = {}
    records: list[ConsumedRecord] = []
    for frame in frames_of(events, rng):
        records += frame_messages(frame, partitions, offsets)
    path = write_log(tmp_path_factory.mktemp("log") / "log.jsonl.zst", records, partitions=partitions)
    run, outputs = run_rules(rules_of(text.replace("WAVE", "wave")), [path], lateness_us=0)
    bodies = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    found = sorted((us_from_iso(body["timestamp"]), body["correlation_rule"], body["event_id"]) for body in bodies)
    assert found == sorted((each.time_us, each.rule, each.id) for each in expected), text
    assert run.counters.late == run.counters.dead == 0
