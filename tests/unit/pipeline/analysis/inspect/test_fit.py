"""Whether rules fit a sample: what they name and what it holds."""

from __future__ import annotations

import orjson
import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.analysis.inspect.fit import fit
from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
from astrocyte.pipeline.analysis.inspect.text import render, render_fit
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.settings import Settings
from tests.support.logs import write_log

START_S = 1_759_055_400
STREAM = "streams: [{name: rooms, time: {field: at, unit: s}, key: room}]\n"


def rooms(count: int = 40) -> list[dict]:
    return [
        {"at": START_S + number, "room": f"r{number % 4}", "value": number % 10, "text": str(number), "ok": number > 3}
        for number in range(count)
    ]


def fitted(tmp_path, rules: str, bodies: list[dict] | None = None, **options):
    path = tmp_path / "rooms.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, bodies or rooms())))
    ruleset = load_rules(rules if rules.startswith("streams") else STREAM + rules)
    request = Request(str(path), Settings(**options), ruleset=ruleset)
    sample = take_sample(request)
    return fit(ruleset, sample, inspect(request, sample), request.settings)


def rule(where: str, **more: object) -> str:
    body = {"name": "hot", "by": "room", "seq": [{"as": "a", "stream": "rooms", "where": where}], **more}
    return "rules: [" + orjson.dumps(body).decode() + "]"


def test_rules_that_fit_have_no_problems_and_give_what_match_gives(tmp_path):
    found = fitted(tmp_path, rule("value > 8", alert={"severity": "info", "message": "{a.room} has {a.value}"}))
    assert found.problems == []
    (result,) = found.rules
    assert (result.matches, result.keys, result.example) == (4, 2, "r1 has 9")
    assert "rules x.yaml: 1 rule, fit" in render_fit(found, "x.yaml", width=80)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("value > '8'", "compares 'value' of rooms with the text '8', but none of its 40 values is text, such as 0"),
        ("text > 3", "compares 'text' of rooms with the number 3, but none of its 40 values is a number, such as '0'"),
        ("ok == 1", "compares 'ok' of rooms with the number 1, but none of its 40 values is a number, such as True"),
        ("3 < text", "compares 'text' of rooms with the number 3"),
        ("text in (1, 2)", "compares 'text' of rooms with the number 1"),
        ("contains(value, 'x')", "compares 'value' of rooms with the text 'x'"),
        ("valu > 3", "field 'valu' of rooms, which rule 'hot' reads, never came; did you mean 'value'?"),
    ],
)
def test_what_can_never_hold_is_said(tmp_path, where, problem):
    (said,) = fitted(tmp_path, rule(where)).problems
    assert problem in said


def test_values_of_another_kind_are_counted_where_some_compare(tmp_path):
    bodies = [body | ({"value": "n/a"} if number % 8 == 0 else {}) for number, body in enumerate(rooms())]
    found = fitted(tmp_path, rule("value > 8"), bodies)
    assert found.problems == []
    (said,) = found.notes
    assert "5 of 40 values are no number, such as 'n/a', and never compare" in said


def test_a_stream_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    rules = """
rules:
  - name: pair
    by: room
    within: 10s
    seq: [{as: a, stream: rooms}, {as: b, stream: room}]
"""
    path = tmp_path / "rooms.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(body | {"stream": "rooms"}) for body in rooms()))
    ruleset = load_rules(STREAM + rules)
    request = Request(str(path), Settings(), ruleset=ruleset)
    sample = take_sample(request)
    found = fit(ruleset, sample, inspect(request, sample), request.settings)
    assert found.problems == [
        "topic mono.room, which rule 'pair' reads, is not in the file; did you mean 'mono.rooms'?"
    ]


def test_events_without_the_field_by_which_a_rule_correlates_are_counted(tmp_path):
    bodies = [body | ({"floor": 1} if number > 9 else {}) for number, body in enumerate(rooms())]
    problems = fitted(tmp_path, rule("value > 8", by="floor"), bodies).problems
    assert any("10 events of rooms without 'floor'" in said for said in problems)


def test_a_heavy_key_is_said_with_its_share(tmp_path):
    bodies = [body | {"room": "hall" if number % 10 else f"r{number}"} for number, body in enumerate(rooms())]
    (said,) = fitted(tmp_path, rule("value > 8"), bodies).problems
    assert said.startswith("90% of the events of rooms have the room 'hall'")


def fitted_log(tmp_path, values: list[bytes], declaration: str):
    records = [
        ConsumedRecord("plant.boilers", 0, number, (START_S + number) * 1000, f"b{number % 4}".encode(), value)
        for number, value in enumerate(values)
    ]
    path = write_log(tmp_path / "boilers.jsonl", records, partitions=1)
    ruleset = load_rules(f"streams: [{{name: boilers, topic: plant.boilers, {declaration}}}]\n{HOT}")
    request = Request(str(path), Settings(), ruleset=ruleset)
    sample = take_sample(request)
    found = inspect(request, sample)
    return fit(ruleset, sample, found, request.settings), found


HOT = "rules: [{name: hot, by: null, within: 5m, seq: [{as: a, stream: boilers}]}]\n"
EVENT = {"specversion": "1.0", "source": "/s", "type": "t", "data": {"temp": 3}}


@pytest.mark.parametrize(
    ("write", "declaration", "reason", "advice"),
    [
        (lambda n: b"%d;b%d;%d.5" % (START_S + n, n % 4, n), "key: boiler", "not JSON", "with decoder: csv"),
        (
            lambda n: b'{"at": %d, "temp": %d}' % (START_S + n, n),
            "decoder: {name: csv, columns: [at, temp, room]}",
            "expected 3",
            "without a decoder",
        ),
        (
            lambda n: orjson.dumps({**EVENT, "id": str(n)}),
            "decoder: debezium",
            "expected a Debezium event",
            "with decoder: cloudevents",
        ),
        (lambda n: b'{"at": %d, "temp": %d}' % (START_S + n, n), "time: {field: when}", "the declared time", None),
    ],
)
def test_a_declaration_that_refuses_all_messages_does_not_fit(tmp_path, write, declaration, reason, advice):
    found, _ = fitted_log(tmp_path, [write(number) for number in range(48)], declaration)
    first, second, *_ = found.problems
    assert first == "nearly all messages of plant.boilers are refused as the rules declare the stream" + (
        "" if advice is None else f"; they can be read {advice}"
    )
    assert second.startswith("48 events are refused (decode), such as plant.boilers[0]@0: ")
    assert reason in second
    assert "1 rule, fit" not in render_fit(found, "hot.yaml")
    assert found.notes == []


def test_refusals_by_a_wrong_clock_are_a_problem_that_names_the_key(tmp_path):
    values = [
        orjson.dumps({"at": START_S + number + (5 * 3600 if number % 4 == 3 else 0), "temp": number})
        for number in range(79)
    ]
    found, inspection = fitted_log(tmp_path, values, "time: {field: at, unit: s}")
    (problem,) = [line for line in found.problems if "(clock)" in line]
    assert problem.startswith("19 events are refused (clock), such as plant.boilers[0]@3: ")
    for text in (render_fit(found, "hot.yaml"), render(inspection)):
        assert "the clock of key 'b3' is wrong" in " ".join(text.split())


def test_a_unit_that_the_numbers_contradict_is_said(tmp_path):
    rules = STREAM.replace("unit: s", "unit: ms") + rule("value > 8")
    problems = fitted(tmp_path, rules).problems
    assert any("is declared in ms, but numbers such as 1759055400 look like s" in said for said in problems)


def test_late_events_are_said_with_the_lateness_that_they_need(tmp_path):
    bodies = rooms()
    bodies[20]["at"] -= 9
    found = fitted(tmp_path, rule("value > 8"), bodies)
    assert found.late == 1
    assert found.problems == ["1 event is late with the lateness of 1s; none is with 10s (ASTROCYTE_LATENESS=10s)"]
    assert fitted(tmp_path, rule("value > 8"), bodies, lateness="10s").problems == []


def test_what_a_time_limit_keeps_follows_from_the_rate(tmp_path):
    rules = rule("value > 8", within="20s")
    (result,) = fitted(tmp_path, rules).rules
    assert result.open_events == pytest.approx(20 * 40 / 39)


def test_a_time_limit_longer_than_the_sample_is_noted(tmp_path):
    found = fitted(tmp_path, rule("value > 8", within="1h"))
    assert found.notes == ["rule 'hot' looks at 1h, and the sample covers 39s only"]


@pytest.mark.parametrize(
    ("kafka_key", "key", "problem"),
    [
        (None, "room", "40 messages of rooms came without a Kafka key"),
        (b"door", "room", "4 keys have events in several partitions of rooms, which never meet"),
        (b"door", "{field: room, partitioned: true}", "4 keys have events in several partitions of rooms, which never"),
    ],
)
def test_a_topic_that_is_not_partitioned_by_the_declared_key_is_a_problem(tmp_path, kafka_key, key, problem):
    records = [
        ConsumedRecord(
            "rooms", number // 4 % 2, number // 8 * 4 + number % 4, body["at"] * 1000, kafka_key, orjson.dumps(body)
        )
        for number, body in enumerate(rooms())
    ]
    path = write_log(tmp_path / "log.jsonl", records, partitions=2)
    ruleset = load_rules(STREAM.replace("key: room", f"topic: rooms, key: {key}") + rule("value > 8"))
    request = Request(str(path), Settings(), ruleset=ruleset)
    sample = take_sample(request)
    (said,) = fit(ruleset, sample, inspect(request, sample), request.settings).problems
    assert said.startswith(problem)
    assert "declare 'key: {field: room, partitioned: false}'" in said
