"""NaN and infinite numbers are the same by every door: validators decide on them, and refuse them by default."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Frame, RuleSet, load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.pipeline.recording.event_files import EventFiles
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord

T0_US: Final = 1_767_225_600_000_000
NUMBERS: Final = (math.nan, math.inf, -math.inf)
SPELT: Final = {
    math.inf: ("inf", "Inf", "INF", "infinity", "Infinity", "+inf"),
    -math.inf: ("-inf", "-Inf", "-INF", "-Infinity"),
}
NAN: Final = ("nan", "NaN", "NAN")


def rules_of(policy: str, declared: str) -> RuleSet:
    fields = f"streams: [{{name: S, fields: {{v: {declared}}}}}]\n" if declared else ""
    return load_rules(
        f'{fields}validators: [{{stream: S, non_finite: "{policy}"}}]\n'
        "rules: [{name: r, by: key, seq: [{as: a, stream: S}], emit: {v: a.v}}]"
    )


def of_messages(rules: RuleSet, values: list[bytes]) -> tuple[list[str], int]:
    """What the values are that a worker's rules read, and how many events were refused."""
    records = [RawRecord(at, T0_US // 1000, b"k", value) for at, value in enumerate(values)]
    frames, letters = decode_chunk("mono.S", 0, records, decoders=Decoders(Contracts(rules.streams)))
    refused, found = len(letters), []
    for each in frames:
        passed = validate_rows(Validators(rules.validators, catalog=CATALOG), each.frame, typed=True)
        refused += len(passed.refused)
        found += map(str, passed.frame.values("v"))
    return found, refused


def of_file(rules: RuleSet, path: Path) -> tuple[list[str], int]:
    return of_messages(rules, [each.value for each in EventFiles([path], Contracts(rules.streams), ["S"]).records()])


def of_python(rules: RuleSet, events: list[Any]) -> tuple[list[str], int]:
    found = match(rules, events)
    return [str(each.emit["v"]) for each in found], len(found.refused)


@pytest.mark.parametrize("declared", ["", "float64", "float32"])
@pytest.mark.parametrize("policy", ["reject", "null", "keep"])
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_number_that_is_not_finite_is_one_by_every_door(
    number: float, policy: str, declared: str, tmp_path: Path
) -> None:
    rules = rules_of(policy, declared)
    line = json.dumps({"timestamp": T0_US, "key": "k", "v": number}).encode()
    frame = Frame.from_columns("S", "", {"timestamp": [T0_US], "key": ["k"], "v": [number]})
    array = Frame.from_columns("S", "", {"timestamp": [T0_US], "key": ["k"], "v": np.array([number])})
    (tmp_path / "events.jsonl").write_bytes(line + b"\n")
    pq.write_table(pa.table({"timestamp": [T0_US], "key": ["k"], "v": [number]}), tmp_path / "events.parquet")
    found = {
        "JSON": of_messages(rules, [line]),
        "JSON lines": of_file(rules, tmp_path / "events.jsonl"),
        "Parquet": of_file(rules, tmp_path / "events.parquet"),
        "frame in a topic": of_messages(rules, [encode_frame(frame)]),
        "mapping": of_python(rules, [{"stream": "S", "timestamp": T0_US, "key": "k", "v": number}]),
        "column": of_python(rules, [frame]),
        "array": of_python(rules, [array]),
    }
    for text in NAN if math.isnan(number) else SPELT[number]:
        (tmp_path / "events.csv").write_text(f"timestamp,key,v\n{T0_US},k,{text}\n")
        found[f"CSV {text}"] = of_file(rules, tmp_path / "events.csv")
    wanted = {"reject": ([], 1), "null": (["None"], 0), "keep": ([str(number)], 0)}[policy]
    if policy == "keep" and math.isnan(number):  # in expressions it is null
        wanted = (["nan"], 0)
        found = {door: (["nan" if each == "None" else each for each in values], bad)
                 for door, (values, bad) in found.items()}  # fmt: skip
    assert found == dict.fromkeys(found, wanted)


@pytest.mark.parametrize("text", ["Nan", "n/a", "NA", "+nan", "infinit"])
def test_other_text_of_csv_is_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(f"timestamp,key,v\n{T0_US},k,{text}\n")
    assert of_file(rules_of("reject", ""), tmp_path / "events.csv") == ([text], 0)


def test_a_declared_text_stays_text_and_a_declared_integer_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(f"timestamp,key,v\n{T0_US},k,nan\n")
    assert of_file(rules_of("reject", "string"), tmp_path / "events.csv") == (["nan"], 0)
    assert of_file(rules_of("reject", "int64"), tmp_path / "events.csv") == ([], 1)


@pytest.mark.parametrize("kind", ["int64", "float64"])
@pytest.mark.parametrize(
    "text", ["1_000", "1,5", "0x10", "\uff11", "n/a", "5", " 5 ", "+5", "5.0", "5.5", "1e3", "1e400", "nan"]
)
def test_a_declared_number_is_read_from_a_cell_as_from_text_in_json(text: str, kind: str, tmp_path: Path) -> None:
    cell = f'"{text}"' if "," in text else text
    (tmp_path / "events.csv").write_text(f"timestamp,key,v\n{T0_US},k,{cell}\n")
    line = json.dumps({"timestamp": T0_US, "key": "k", "v": "NaN" if text == "nan" else text}).encode()
    as_text = rules_of("reject", f"{{type: {kind}, text: true}}")
    assert of_file(rules_of("reject", kind), tmp_path / "events.csv") == of_messages(as_text, [line])


def test_a_float_in_a_cell_of_a_declared_integer_is_the_float_of_json(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(f"timestamp,key,v\n{T0_US},k,3.87861359582249e+16\n")
    assert of_file(rules_of("reject", "int64"), tmp_path / "events.csv") == (["38786135958224896"], 0)
