"""An engine without a pipeline applies its rule set's validators as `astrocyte match` does."""

import json
import math
import re
from typing import Any

import orjson
import pytest

from astrocyte import Engine, Match, load_rules, match
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.rules.validator_functions import register_validator
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from tests.support.logs import write_log


@register_validator("halved_below")
def halved_below(event: dict[str, Any], limit: float) -> Any:
    if event["value"] >= limit:
        return f"{event['value']} is {limit} or more"
    return {"value": event["value"] / 2}


TEXT = """
validators:
  - {stream: A, require: [value], use: halved_below, with: {limit: 100}, set: {twice: "value * 2"}}
rules:
  - name: pair
    within: 10s
    seq: [{as: a, stream: A, where: "twice > 20"}, {as: b, stream: B}]
    emit: {half: "a.value"}
"""
START_US = 1_750_000_000_000_000
VALUES = [30.0, None, 250.0, 10.0, math.nan, 80.0]


def events() -> list[dict[str, Any]]:
    found = []
    for number, value in enumerate(VALUES):
        at = START_US + number * 2_000_000
        found.append({"stream": "A", "timestamp": at, "key": "k", "value": value, "event_id": f"a{number}"})
        found.append({"stream": "B", "timestamp": at + 1_000_000, "key": "k", "value": 1.0, "event_id": f"b{number}"})
    found.append({"stream": "B", "timestamp": -5, "key": "k", "value": 1.0, "event_id": "long ago"})
    return found


REFUSED = {
    "a1": "field 'value' is null",
    "a2": "250.0 is 100 or more",
    "a4": "field 'value' is nan; expected a finite number",
    "long ago": "timestamp -5; expected microseconds since 1970 (UTC) before the year 2100; is it in another unit?",
}


def summary(matches: list[Match]) -> set[tuple[str, Any]]:
    return {(found.id, found.emit["half"]) for found in matches}


def test_match_applies_validators() -> None:
    found = match(load_rules(TEXT), events())
    assert {event.id: event.reason for event in found.refused} == REFUSED
    assert sorted(each.emit["half"] for each in found) == [15.0, 40.0]
    assert next(event for event in found.refused if event.id == "a2").fields["value"] == 250.0


PLAIN_TEXT = "rules: [{name: r, seq: [{as: a, stream: S}], emit: {x: a.x}}]"
PLAIN = load_rules(PLAIN_TEXT)
SOUND = {"stream": "S", "timestamp": START_US, "key": "k", "x": 1}
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]


class NAType:
    """Stands for the type of pandas' NA, which is recognised by its name and module."""

    __module__ = "pandas._libs.missing"


UNREADABLE: dict[str, tuple[dict[Any, Any], str]] = {
    "no time": ({name: value for name, value in SOUND.items() if name != "timestamp"}, "has no timestamp"),
    "a time that is none": ({**SOUND, "timestamp": "nope"}, "timestamp 'nope'; expected ISO 8601"),
    "a time in seconds": ({**SOUND, "timestamp": 1759055400.5}, "of type float; expected integer microseconds"),
    "half a character": ({**SOUND, "x": "\ud800"}, "field 'x' holds half a character"),
    "half a character inside": ({**SOUND, "x": ["\ud800"]}, "field 'x' cannot be read: .*surrogates"),
    "half a character in the key": ({**SOUND, "key": "\ud800"}, "field 'key' holds half a character"),
    "half a character in a name": ({**SOUND, "\ud800": 1}, r"field name '\\ud800' holds half a character"),
    "a number as a name": ({**SOUND, 2: 1}, "field name 2 of type int; expected text"),
    "a deep list": ({**SOUND, "x": DEEP}, "field 'x' cannot be read: a value is nested too deeply"),
    "an object": ({**SOUND, "x": object()}, "field 'x' cannot be read: expected a number, text, .* got object"),
    "an object inside": ({**SOUND, "x": {"y": object()}}, "field 'x' cannot be read"),
    "a complex number": ({**SOUND, "x": 1j}, "got complex"),
    "a number beyond the floats": ({**SOUND, "x": [10**400]}, "field 'x' is inf; expected a finite number"),
}


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_event_that_cannot_be_read_is_refused_alone(name: str, consistency: Any) -> None:
    bad, reason = UNREADABLE[name]
    found = match(PLAIN, [SOUND, bad, {**SOUND, "x": 2}])
    assert [each.emit["x"] for each in found] == [1, 2]
    one_by_one = Engine(PLAIN, consistency=consistency)
    for event in (SOUND, bad, {**SOUND, "x": 2}):
        one_by_one.push_event(event)
    assert one_by_one.refused == 1
    output = one_by_one.flush()
    assert [each.emit["x"] for each in output.matches.matches() if each.status != "provisional"] == [1, 2]
    for (event,) in (found.refused, output.refused):
        assert re.search(reason, event.reason)
        assert (event.stream, event.timestamp_us) == ("S", None if "time" in name else START_US)


@pytest.mark.parametrize("value", [2**64, 2**70, -(2**63) - 1, {"q": 2**64}, [1, [2**70]]])
@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "string", "json", None])
def test_integers_beyond_64_bits_are_in_mappings_what_they_are_in_json(
    value: Any, kind: str | None, tmp_path: Any
) -> None:
    declared = f", fields: {{x: {kind}}}" if kind else ""
    rules = load_rules(f"streams: [{{name: S{declared}}}]\n" + PLAIN_TEXT)
    event = {**SOUND, "x": value}
    body = orjson.dumps({"timestamp": START_US}).decode()[:-1] + f', "x": {json.dumps(value)}}}'
    records = [ConsumedRecord("mono.S", 0, 0, START_US // 1000, b"k", body.encode(), [])]
    _, outputs = run_rules(rules, [write_log(tmp_path / "log.jsonl", records)], lateness_us=1)
    wanted = [orjson.loads(record.value)["metadata"] for output in outputs for record in output.multi_events]
    found = match(rules, [event])
    assert repr([dict(each.emit) for each in found]) == repr(wanted)
    assert len(found.refused) == 1 - len(wanted)


def test_missing_values_of_pandas_are_null() -> None:
    (found,) = match(PLAIN, [{**SOUND, "x": NAType()}])
    assert found.emit == {"x": None}


def test_match_and_the_command_agree_on_the_same_log(tmp_path: Any) -> None:
    sound = [event for event in events() if event["event_id"] not in ("a4", "long ago")]  # JSON has no NaN
    records = [
        ConsumedRecord(
            f"mono.{event['stream']}", 0, offset, event["timestamp"] // 1000, b"k",
            orjson.dumps(event), [],
        )
        for offset, event in enumerate(sound)
    ]  # fmt: skip
    rules = load_rules(TEXT)
    run, outputs = run_rules(rules, [write_log(tmp_path / "log.jsonl", records)], lateness_us=60_000_000)
    made = [orjson.loads(record.value) for output in outputs for record in output.multi_events]
    found = match(rules, sound)
    assert {record["event_id"] for record in made} == {each.id for each in found} != set()
    assert run.counters.dead == len(found.refused) == 2


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
@pytest.mark.parametrize("form", ["frames", "single events"])
def test_an_engine_refuses_the_same_events_in_every_input_form(consistency: Any, form: str) -> None:
    engine = Engine(load_rules(TEXT), consistency=consistency)
    given: list[Match] = []
    if form == "frames":
        for frame in frames_of(events(), []):
            engine.push(frame)
    else:
        for event in events():
            given += engine.push_event(event)
    output = engine.flush()
    assert {event.id: event.reason for event in output.refused} == REFUSED
    assert engine.refused == len(REFUSED)
    final = [found for found in output.matches if found.status in ("final", "confirmed")]
    assert summary(final) == summary(match(load_rules(TEXT), events()))
    if consistency == "eventual" and form == "single events":
        assert summary(given) == summary(final)
    assert engine.advance(0).refused == []


def test_events_without_ids_are_numbered_alike_in_a_batch_and_one_by_one() -> None:
    bare = [{name: value for name, value in event.items() if name != "event_id"} for event in events()]
    engine = Engine(load_rules(TEXT))
    for event in bare:
        engine.push_event(event)
    assert summary(engine.flush().matches.matches()) == summary(match(load_rules(TEXT), bare))


def test_refused_events_are_counted_over_a_snapshot() -> None:
    engine = Engine(load_rules(TEXT))
    engine.push_events(events())
    other = Engine(load_rules(TEXT))
    other.restore(engine.snapshot())
    assert other.refused == len(REFUSED)


def test_sampling_counts_and_weighs_also_without_a_pipeline() -> None:
    rules = load_rules(
        """
        validators: [{stream: A, sample: 0.25}]
        windows: [{name: rate, from: A, every: 1h, select: {n: "count()"}}]
        """
    )
    engine = Engine(rules)
    for number in range(400):
        engine.push_event({"stream": "A", "timestamp": START_US + number, "key": "k", "value": 1.0})
    (frame,) = engine.flush().frames
    assert frame.rows()[0]["n"] == 4 * (400 - engine.sampled) != 0


ALONE = {"stream": "S", "timestamp": 1, "key": "k", "value": 1}
BESIDE = {
    "refused": {"timestamp": 2, "value": float("nan")},
    "a duplicate": {"event_id": "twice"},
    "with fields of these names": {"timestamp": 2, "seq": 7, "event_id": 4625, "source_stream": 1},
    "without either": {"timestamp": 2},
}


@pytest.mark.parametrize("own_id", [{}, {"event_id": "n0"}, {"event_id": "11111111-2222-3333-4444-555555555555"}])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("consistency", ["strong", "eventual"])
def test_seq_and_event_id_are_fields_of_the_event_and_never_what_numbers_it_whatever_stands_beside(
    own_id, beside, consistency
):
    rules = load_rules(
        "rules: [{name: r, seq: [{as: a, stream: S, where: 'value == 1 and seq is None and event_id is None'}], "
        "emit: {seq: a.seq, id: a.event_id}}]"
    )
    events = [ALONE | own_id, *(ALONE | {"value": 2} | beside for _ in range(2))]
    one, many = (Engine(rules, consistency=consistency) for _ in range(2))
    for event in events:
        for found in one.push_event(event):
            assert found.emit == {"seq": None, "id": None}
    many.push_events(events)
    for engine in (one, many):
        emitted = [found.emit for found in engine.flush().matches.matches() if found.status != "confirmed"]
        assert emitted == ([] if consistency == "eventual" and engine is one else [{"seq": None, "id": None}])
