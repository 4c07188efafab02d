"""Lists, structs and mappings with odd values inside: the same for every form of the input."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Engine, Frame, load_rules, match
from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.ingest.validate import Validators
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord

T0_US = 1_767_225_600_000_000
FAR_US = 2**62
"""A time after the year 9999, which `datetime` does not hold."""
RULES = "rules: [{name: r, seq: [{as: a, stream: S}], emit: {v: a.v}}]"
Found = tuple[list[Any], list[str]]
"""The values of the field that matched, and why the other events were refused."""


def rules_with(policy: str | None) -> str:
    return RULES if policy is None else f"validators: [{{stream: S, non_finite: {policy}}}]\n{RULES}"


def from_matches(events: list[Any], policy: str | None) -> Found:
    found = match(load_rules(rules_with(policy)), events)
    return [each.emit["v"] for each in found], [each.reason for each in found.refused]


def from_single_events(events: list[dict[str, Any]], policy: str | None) -> Found:
    engine = Engine(load_rules(rules_with(policy)))
    for event in events:
        engine.push_event(event)
    output = engine.flush()
    return [each.emit["v"] for each in output.matches.matches()], [each.reason for each in output.refused]


def from_messages(values: list[bytes], policy: str | None) -> Found:
    rules = load_rules(rules_with(policy))
    engine = Engine(rules, validated=True)
    domain = Domain(
        0, [DomainGroup("key", engine, {"S": "mono.S"})], topics=["mono.S"], validators=Validators(rules.validators)
    )
    output = domain.feed("mono.S", [RawRecord(offset, 0, b"k", value) for offset, value in enumerate(values)])
    bodies = [orjson.loads(record.value) for record in output.multi_events + domain.flush().multi_events]
    assert all(letter.stage == "validate" for letter in output.dead_letters)
    assert domain.counters.dead == len(output.dead_letters)
    return [body["metadata"].get("v") for body in bodies], [letter.reason for letter in output.dead_letters]


def from_file(path: Path, policy: str | None) -> Found:
    _, outputs = run_rules(load_rules(rules_with(policy)), [path], lateness_us=0)
    found, reasons = [], []
    for output in outputs:
        found += [orjson.loads(record.value)["metadata"].get("v") for record in output.multi_events]
        reasons += [letter.reason for letter in output.dead_letters]
    return found, reasons


def events_of(values: list[Any]) -> list[dict[str, Any]]:
    return [{"stream": "S", "timestamp": T0_US + row, "key": "k", "v": value} for row, value in enumerate(values)]


def by_every_entrance(values: list[Any], column: pa.Array | None, policy: str | None, folder: Path) -> dict[str, Found]:
    """What comes of the values as mappings, JSON and lists of frames, and of the column, where one holds them."""
    events = events_of(values)
    lines = [json.dumps(event).encode() for event in events]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines))
    own = {"timestamp": np.arange(T0_US, T0_US + len(values)), "key": ["k"] * len(values)}
    frame = Frame.from_columns("S", "run", own | {"v": values})
    found = {
        "mappings": from_matches(events, policy),
        "single mappings": from_single_events(events, policy),
        "list in a frame": from_matches([frame], policy),
        "frame in a topic": from_messages([encode_frame(frame)], policy),
        "JSON": from_messages(lines, policy),
        "JSON lines": from_file(folder / "events.jsonl", policy),
    }
    if column is not None:
        frame = Frame.from_columns("S", "run", own | {"v": column})
        table = pa.table({"timestamp": own["timestamp"], "key": own["key"], "v": column, "stream": ["S"] * len(values)})
        pq.write_table(table, folder / "events.parquet")
        found |= {
            "column": from_matches([frame], policy),
            "column in a topic": from_messages([encode_frame(frame)], policy),
            "Parquet": from_file(folder / "events.parquet", policy),
        }
    return found


NAN, INF = math.nan, math.inf
VALUES: dict[str, tuple[list[Any], pa.DataType | None, list[str], str]] = {
    "list": ([[1.0, NAN], [2.0]], pa.list_(pa.float64()), ["[1.0,null]", "[2.0]"], "field 'v' is nan"),
    "large list": ([[-INF], [2.0]], pa.large_list(pa.float64()), ["[null]", "[2.0]"], "field 'v' is -inf"),
    "list of one size": ([[1.5, NAN], [2.0, 3.0]], pa.list_(pa.float64(), 2), ["[1.5,null]", "[2.0,3.0]"], "nan"),
    "struct": ([{"x": INF}, {"x": 1.0}], pa.struct([("x", pa.float64())]), ['{"x":null}', '{"x":1.0}'],
               "field 'v.x' is inf"),
    "nested": ([{"x": [{"y": NAN}]}, {"x": []}], pa.struct([("x", pa.list_(pa.struct([("y", pa.float64())])))]),
               ['{"x":[{"y":null}]}', '{"x":[]}'], "field 'v.x.y' is nan"),
    "of several types": ([["null", NAN, 1], {"x": None}], None, ['["null",null,1]', '{"x":null}'], "field 'v' is nan"),
}  # fmt: skip


def test_a_huge_integer_of_python_inside_is_infinite_as_in_json() -> None:
    values = [[10**400], {"a": [1, -(10**400)]}, [2**70]]
    events = [{"stream": "S", "timestamp": T0_US, "key": "k", "v": value} for value in values]
    shown = ["[null]", '{"a":[1,null]}', "[1.1805916207174113e+21]"]
    for read in (from_matches, from_single_events):
        found, refused = read(events, "'null'")
        assert (found, refused) == (shown, [])
        found, refused = read(events, None)
        assert found == shown[2:]
        assert refused == [
            "field 'v' is inf; expected a finite number",
            "field 'v.a' is -inf; expected a finite number",
        ]
    messages = [orjson.dumps({"timestamp": T0_US, "v": 0})[:-2] + json.dumps(value).encode() + b"}" for value in values]
    assert from_messages(messages, "'null'") == (shown, [])


@pytest.mark.parametrize("name", VALUES)
def test_a_number_inside_that_is_not_finite_is_what_the_policy_makes_of_it(name: str, tmp_path: Path) -> None:
    values, kind, finite, reason = VALUES[name]
    column = None if kind is None else pa.array(values, kind)
    for policy in (None, "reject"):
        for entrance, (found, reasons) in by_every_entrance(values, column, policy, tmp_path).items():
            assert found == finite[1:], (entrance, policy)
            assert len(reasons) == 1, (entrance, policy)
            assert reason in reasons[0], (entrance, policy)
            assert reasons[0].endswith("; expected a finite number"), (entrance, policy)
    for policy in ("null", "keep"):
        for entrance, outcome in by_every_entrance(values, column, policy, tmp_path).items():
            assert outcome == (finite, []), (entrance, policy)


def test_text_that_looks_like_such_a_list_is_text(tmp_path: Path) -> None:
    for entrance, outcome in by_every_entrance(["[NaN]", "[null]"], None, None, tmp_path).items():
        assert outcome == (["[NaN]", "[null]"], []), entrance


def test_a_number_in_json_that_no_float_holds_is_infinite_also_inside_a_list() -> None:
    strings = ["1e400", "[1e400]", '{"x": -1e999}', "9" * 400, "[" + "9" * 5000 + "]", "[1e-400]"]
    lines = [f'{{"timestamp": {T0_US + row}, "v": {text}}}'.encode() for row, text in enumerate(strings)]
    found, reasons = from_messages(lines, None)
    assert found == ["[0.0]"]
    assert [reason.partition(";")[0] for reason in reasons] == [
        "field 'v' is inf", "field 'v' is inf", "field 'v.x' is -inf", "field 'v' is inf", "field 'v' is inf",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"), [("1e+400", "inf"), ("1.0e400", "inf"), ("-" + "9" * 400, "-inf"), ("9" * 5000, "inf")]
)
def test_so_is_one_in_csv(tmp_path: Path, text: str, shown: str) -> None:
    (tmp_path / "events.csv").write_text(f"timestamp,key,v\n2026-01-01T00:00:00Z,k,{text}\n")
    assert from_file(tmp_path / "events.csv", None) == ([], [f"field 'v' is {shown}; expected a finite number"])


def test_decimals_and_arrays_of_numpy_are_searched_as_well() -> None:
    values = [[Decimal("NaN")], np.array([1.0, NAN]), [2**70, INF], [np.float32(NAN)]]
    assert from_matches(events_of(values), None)[0] == []
    assert from_matches(events_of(values), "keep")[0] == [
        "[null]",
        "[1.0,null]",
        "[1.1805916207174113e+21,null]",
        "[null]",
    ]


def test_a_declared_field_of_json_is_searched_and_a_vector_with_a_hole_becomes_null() -> None:
    declared = "streams: [{name: S, fields: {v: json, w: list<float32>}}]\n"
    own = {"timestamp": [T0_US, T0_US + 1], "key": ["k", "k"]}
    frame = Frame.from_columns("S", "run", own | {"v": pa.array([[1.0], [NAN]]), "w": pa.array([[NAN], [1.0]])})
    found = match(load_rules(declared + RULES), [frame])
    assert [each.reason for each in found.refused] == [
        "field 'w' is nan; expected a finite number", "field 'v' is nan; expected a finite number",
    ]  # fmt: skip
    both = RULES.replace("v: a.v", "v: a.v, w: a.w")
    found = match(
        load_rules(declared + both.replace("rules:", "validators: [{stream: S, non_finite: 'null'}]\nrules:")), [frame]
    )
    assert [each.emit for each in found] == [{"v": "[1.0]", "w": None}, {"v": "[null]", "w": "[1.0]"}]


FAR = pa.array([FAR_US, T0_US], pa.int64()).cast(pa.timestamp("us"))
NEAR = '"2026-01-01T00:00:00"'
BOTH = f"[{FAR_US},{NEAR}]"


@pytest.mark.parametrize(
    ("column", "strings"),
    [
        (pa.ListArray.from_arrays([0, 1, 2], FAR), [f"[{FAR_US}]", f"[{NEAR}]"]),
        (pa.LargeListArray.from_arrays([0, 2, 2], FAR), [BOTH, "[]"]),
        (pa.StructArray.from_arrays([FAR], names=["at"]), [f'{{"at":{FAR_US}}}', f'{{"at":{NEAR}}}']),
        (pa.ListArray.from_arrays([0, 2, 2], FAR.dictionary_encode()), [BOTH, "[]"]),
        (pa.MapArray.from_arrays([0, 1, 2], pa.array(["a", "b"]), FAR), [f'[["a",{FAR_US}]]', f'[["b",{NEAR}]]']),
        (pa.ListArray.from_arrays([0, 1, 2], pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32())),
         ["[1.855425871008e+20]", '["1970-01-01"]']),
        (pa.ListArray.from_arrays([0, 1, 2], pa.array([2**50, 5]).cast(pa.duration("s"))),
         ["[1.125899906842624e+21]", "[5000000]"]),
    ],
    ids=["list", "large list", "struct", "list of a dictionary", "map", "dates", "durations"],
)  # fmt: skip
def test_a_time_inside_that_python_does_not_hold_is_its_number(
    column: pa.Array, strings: list[str], tmp_path: Path
) -> None:
    own = {"timestamp": np.array([T0_US, T0_US + 1]), "key": pa.array(["k", "k"])}
    frame = Frame.from_columns("S", "run", own | {"v": column})
    assert from_matches([frame], None) == (strings, [])
    assert from_messages([encode_frame(frame)], None) == (strings, [])
    assert len(frame.rows()) == 2
    if pa.types.is_duration(column.type.field(0).type):
        return
    pq.write_table(pa.table({**own, "v": column}), tmp_path / "events.parquet")
    assert from_file(tmp_path / "events.parquet", None) == (strings, [])


def test_such_a_time_of_numpy_is_its_number_inside_lists_too() -> None:
    far, near = np.datetime64(FAR_US, "us"), np.datetime64(T0_US, "us")
    values = [[far, near], {"at": far}, np.array([near, far]), [np.datetime64("NaT")]]
    strings = [BOTH, f'{{"at":{FAR_US}}}', f"[{NEAR},{FAR_US}]", "[null]"]
    assert from_matches(events_of(values), None) == (strings, [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.datetime64(2**40, "D"), float(2**40 * 86_400_000_000)),
        (np.datetime64(2**40, "s"), 2**40 * 1_000_000),
        (np.timedelta64(2**60, "h"), float(2**60 * 3_600_000_000)),
        (np.datetime64("2026-01"), T0_US),
        (np.datetime64(-1, "ns"), -1),
        (np.timedelta64(3, "25ms"), 75_000),
        (np.timedelta64(5), 5),
    ],
)
def test_a_time_of_numpy_does_not_wrap_around(value: Any, expected: float) -> None:
    ((found,), refused) = from_matches(events_of([value]), None)
    assert (repr(found), refused) == (repr(expected), [])
    assert orjson.loads(from_matches(events_of([[np.datetime64(2**40, "D")]]), None)[0][0]) == [
        2.0**40 * 86_400_000_000
    ]
