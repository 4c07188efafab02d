"""``'x' in field`` for lists, objects and text: one meaning, whatever form the events come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Engine, Frame, load_rules, match

T0_US = 1_767_225_600_000_000
LISTS: list[Any] = [["temperature", "top_k"], ["temper"], [], ["a temper b"], None, ["x", "temper"]]
OBJECTS: list[Any] = [{"temper": 1}, {"temperature": 2}, {"x": 3}, {"x": 4, "temper": 5}]
STRINGS: list[Any] = ["temperature", "[temper", "temp", "say [temper]", '{"temper"', '["temper"] and more']
NUMBERS: list[Any] = [[1, 2], [12], ["1"], None]
ALONE: list[Any] = [1, True, None, "1"]


def found(events: Any, rules: str) -> list[int]:
    return [each.time_us - T0_US for each in match(load_rules(rules), events)]


def rules_of(part: str, declared: bool) -> str:
    streams = "streams: [{name: S, key: key, fields: {v: json}}]\n" if declared else ""
    return f"""{streams}rules: [{{name: r, any: [{{as: a, stream: S, where: "{part!r} in v"}}]}}]"""


def events_of(values: list[Any]) -> list[dict[str, Any]]:
    return [{"stream": "S", "key": "k", "timestamp": T0_US + n, "v": value} for n, value in enumerate(values)]


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(
    ("part", "values", "wanted"),
    [
        ("temper", LISTS, [1, 5]),
        ("temper", OBJECTS, [0, 3]),
        ("temper", STRINGS, [0, 1, 3, 4, 5]),
        ("1", NUMBERS, [2]),
    ],
)
def test_by_every_door(part: str, values: list[Any], wanted: list[int], declared: bool, tmp_path: Path) -> None:
    rules = rules_of(part, declared)
    events = events_of(values)
    doors: dict[str, Any] = {"mappings": events}
    lines = tmp_path / "events.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in events))
    doors["JSON lines"] = [json.loads(line) for line in lines.read_text().splitlines()]
    doors["JSON text"] = events_of([each if each is None else json.dumps(each) for each in values])
    if any(not isinstance(each, list | dict | None) for each in values):
        del doors["JSON text"]  # a text in quotation marks is another text
    columns: dict[str, Any] = {"timestamp": [each["timestamp"] for each in events], "key": ["k"] * len(events)}
    doors["columns"] = [Frame.from_columns("S", "run", columns | {"v": values})]
    if values is LISTS and not declared:
        pq.write_table(pa.table({name: pa.array(each) for name, each in (columns | {"v": values}).items()}), lines)
        table = pq.read_table(lines)
        read = {name: table[name].combine_chunks() for name in table.schema.names}
        doors["lists of Arrow"] = [Frame.from_columns("S", "run", read)]
    for door, given in doors.items():
        assert found(given, rules) == wanted, door
    engine = Engine(load_rules(rules), consistency="eventual", validated=True)
    assert [each.time_us - T0_US for event in events for each in engine.push_event(event)] == wanted


def test_numbers_and_booleans_alone_hold_no_text_but_in_a_declared_field_of_json_they_are_text() -> None:
    assert found(events_of(ALONE), rules_of("1", declared=False)) == [3]
    assert found(events_of(ALONE), rules_of("1", declared=True)) == [0, 3]
