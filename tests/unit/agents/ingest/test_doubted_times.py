"""Numbers of an undeclared unit that are hardly times are said to be so, with the first example and its reading."""

import orjson
import pytest

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.match_command import event, files, lines, run

RULES = "rules: [{name: r, seq: [{as: a, stream: A}]}]"


def declared(**stream: object) -> str:
    return f"streams: [{orjson.dumps({'name': 'A', **stream}).decode()}]\n{RULES}"


def said(tmp_path, rules: str, *bodies: dict[str, object]) -> list[str]:
    records = [
        event(0)._replace(offset=offset, value=orjson.dumps(body), key=b"k") for offset, body in enumerate(bodies)
    ]
    return [line for line in lines(run("match", *files(tmp_path, rules, *records))) if "hardly a time" in line]


def test_a_year_as_the_time_is_counted_with_how_it_was_read_and_what_to_declare(tmp_path):
    (line,) = said(tmp_path, RULES, {"timestamp": 2025}, {"timestamp": "2026-03-01T10:00:00Z"}, {"timestamp": 2026.5})
    assert line == (
        "2 events of A have a number in 'timestamp' that is hardly a time, such as mono.A[0]@0: 2025, read in s since "
        "1970 as 1970-01-01T00:33:45Z; declare under streams: which member is the time, or the unit of this one, such "
        "as 'time: {field: timestamp, unit: s}'"
    )


@pytest.mark.parametrize(
    ("rules", "body", "member"),
    [
        (RULES, {"ts": 12.5, "x": 1}, "ts"),
        (RULES, {"time": 0, "type": "boot"}, "time"),
        (declared(time="at"), {"at": 99_999_999}, "at"),
        (declared(decoder={"name": "csv", "columns": ["timestamp", "x"]}), {"timestamp": 7, "x": 1}, "timestamp"),
        (RULES, {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "time": 77}, "time"),
        (RULES, {"ts": 134_088_822_000_000_000}, "ts"),
        (RULES, {"ts": 638_999_999_990_000_000}, "ts"),
        (RULES, {"stream": "A", "timestamp": 5, "metadata": {"x": 1}}, "timestamp"),
    ],
)
def test_whatever_the_form_of_the_event_the_member_is_named(tmp_path, rules, body, member):
    if "csv" in rules:
        line = f"{body['timestamp']},{body['x']}".encode()
        records = [event(0)._replace(value=line)]
        found = [each for each in lines(run("match", *files(tmp_path, rules, *records))) if "hardly a time" in each]
    else:
        found = said(tmp_path, rules, body)
    assert [each.partition(" that")[0] for each in found] == [f"1 event of A has a number in {member!r}"]


@pytest.mark.parametrize(
    ("rules", "body"),
    [
        (RULES, {"timestamp": "1970-01-01T00:33:45Z"}),
        (RULES, {"timestamp": 315_532_800}),
        (RULES, {"timestamp": 900_000_000_000}),
        (RULES, {"timestamp": 1_000_000_000_000_000_000}),
        (RULES, {"timestamp": 1_772_359_200_000}),
        (RULES, {"x": 2025}),
        (declared(time={"field": "timestamp", "unit": "s"}), {"timestamp": 2025}),
    ],
)
def test_times_that_are_stated_or_have_one_reading_are_not_counted(tmp_path, rules, body):
    assert said(tmp_path, rules, body) == []


def test_columns_of_frames_are_in_microseconds():
    plan = make_plan(load_rules(RULES))
    groups = [DomainGroup(each.field, Engine(each.ruleset, validated=True), each.topics) for each in plan.groups]
    domain = Domain(0, groups, topics=plan.topics)
    frame = Frame.from_columns("A", "run", {"timestamp": [2025], "key": ["k"]})
    domain.feed("mono.A", [RawRecord(0, -1, None, encode_frame(frame))])
    domain.trust()
    assert domain.counters.received == 1
    assert not list(domain.unused)
    domain.feed("mono.A", [RawRecord(1, -1, b"k", b'{"timestamp": 2025}')])
    domain.trust()
    assert [(cause, detail, each.count) for cause, _, detail, each in domain.unused] == [
        ("guessed_unit", "timestamp", 1)
    ]
