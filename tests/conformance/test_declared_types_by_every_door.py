"""The same values by every door give the same matches, values and refusals under one declaration."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astrocyte import Frame, load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.validate import Validators
from astrocyte.agents.ingest.validate_rows import validate_rows
from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.pipeline.recording.event_files import EventFiles
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord, frame_to_records
from astrocyte.schemas.json.text import dumps
from astrocyte.schemas.values.single import json_text

T0_US: Final = 1_767_225_600_000_000
KINDS: Final = (
    "{type: float64}", "{type: float32}", "{type: int64}", "{type: int32}", "{type: bool}", "{type: string}",
    "{type: json}", "{type: list<float32>}", "{type: float64, text: true}", "{type: int64, text: true}",
)  # fmt: skip
SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.sampled_from([2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 1.5, 2.0, 1e39, 1e300, -0.0]),
    st.sampled_from(["", "a", "5", "5.5", " 7 ", "1e3", "[1]", "[]", "true", "null", "n/a", "NaN", "é"]),
)
VALUES: Final = st.one_of(
    SCALARS,
    st.lists(st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1e39]), SCALARS), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2),
)


class Doors:
    """What events with the values of one field become, by each way in."""

    def __init__(self, kind: str, policy: str, folder: Path, *, decoder: str = "") -> None:
        self._rules = load_rules(
            f"""
streams: [{{name: S{decoder}, fields: {{v: {kind}}}, on_type_error: "{policy}"}}]
rules: [{{name: r, by: key, seq: [{{as: a, stream: S}}], emit: {{v: a.v}}}}]
"""
        )
        self._contracts = Contracts(self._rules.streams)
        self._folder = folder

    def matched(self, events: list[Any]) -> tuple[list[Any], Counter[str]]:
        found = match(self._rules, events)
        values = [each.emit["v"] for each in sorted(found, key=lambda each: each.time_us)]
        return [_seen(value) for value in values], Counter(_kind_of(each.reason) for each in found.refused)

    def messages(self, values: list[bytes]) -> tuple[list[Any], Counter[str]]:
        """Of a worker: messages are decoded and validated, and the frames are matched."""
        records = [RawRecord(at, T0_US // 1000, b"k", value) for at, value in enumerate(values)]
        frames, letters = decode_chunk("mono.S", 0, records, decoders=Decoders(self._contracts))
        reasons = Counter(_kind_of(letter.reason) for letter in letters)
        passed = []
        for each in frames:
            valid = validate_rows(Validators((), catalog=CATALOG), each.frame, typed=True)
            reasons += Counter(_kind_of(reason) for _, reason in valid.refused)
            passed.append(valid.frame)
        found = [_seen(value) for frame in passed for value in frame.values("v")]
        return found, reasons

    def file(self, name: str) -> tuple[list[Any], Counter[str]]:
        paths = [self._folder / name]
        return self.messages([each.value for each in EventFiles(paths, self._contracts, ["S"]).records()])

    def of(self, values: list[Any]) -> dict[str, tuple[list[Any], Counter[str]]]:
        """The outcome by door."""
        times = [T0_US + row for row in range(len(values))]
        mappings = [
            {"stream": "S", "timestamp": at, "key": "k", "v": value} for at, value in zip(times, values, strict=True)
        ]
        lines = [json.dumps(event).encode() for event in mappings]
        objects = np.empty(len(values), object)
        objects[:] = values
        own: dict[str, Any] = {"timestamp": times, "key": ["k"] * len(values)}
        frame = Frame.from_columns("S", "", own | {"v": values})
        of_objects = Frame.from_columns("S", "", own | {"v": objects})
        (self._folder / "events.jsonl").write_bytes(b"\n".join(lines))
        encoder = StreamEncoder("S")
        emitted = [encoder.encode(event, "k", at) for at, event in enumerate(mappings)]
        return {
            "JSON": self.messages(lines),
            "JSON one by one": _together([self.messages([line]) for line in lines]),
            "JSON lines": self.file("events.jsonl"),
            "mappings": self.matched(mappings),
            "columns": self.matched([frame]),
            "columns of objects": self.matched([of_objects]),
            "rows of columns": _together([self.matched([frame.slice(at, at + 1)]) for at in range(len(values))]),
            "frame in a topic": self.messages([encode_frame(frame)]),
            "frame of one row in a topic": _together(
                [self.messages([encode_frame(frame.slice(at, at + 1))]) for at in range(len(values))]
            ),
            "frame as JSON": self.messages([each.value for each in frame_to_records(frame)]),
            "publisher": self.messages([each.value for each in messages_of(emitted, "run")]),
            "decoder": self.messages([dumps(event) for event in mappings]),
        }


def _seen(value: Any) -> Any:
    """A value with its type, as rules see it: lists are their JSON text."""
    value = json_text(value) if isinstance(value, list) else value
    return (type(value).__name__, repr(value))


def _kind_of(reason: str) -> str:
    """A reason without the list or the object that it shows: in a column numbers inside are of 64 bits already."""
    return re.sub(r" is [\[{].*; expected", " is nested; expected", reason)


def _together(parts: list[tuple[list[Any], Counter[str]]]) -> tuple[list[Any], Counter[str]]:
    return [value for values, _ in parts for value in values], sum((reasons for _, reasons in parts), Counter[str]())


def _wide(column: pa.Array) -> pa.Array:
    """The column in the types that Polars has for text and lists."""
    if pa.types.is_string(column.type):
        return column.cast(pa.string_view())
    return column.cast(pa.large_list(column.type.value_type)) if pa.types.is_list(column.type) else column


def alike(found: dict[str, tuple[list[Any], Counter[str]]]) -> None:
    for door, outcome in found.items():
        assert outcome == found["JSON"], door


POLICIES: Final = st.sampled_from(["dead_letter", "null"])
UNHURRIED: Final = settings(
    derandomize=True, deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("kind", KINDS)
@UNHURRIED
@given(policy=POLICIES, values=st.lists(VALUES, min_size=1, max_size=10))
def test_a_declaration_holds_alike_by_every_door(kind: str, policy: str, tmp_path: Path, values: list[Any]) -> None:
    alike(Doors(kind, policy, tmp_path).of(values))


TYPED: Final = st.one_of(
    *(
        st.lists(st.one_of(st.none(), each), min_size=1, max_size=6)
        for each in (
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-5, 5),
            st.sampled_from([0.0, 0.1, 1.5, 2.0, -3.0, 1e39, 1e300]),
            st.booleans(),
            st.sampled_from(["", "a", "5", "5.5", " 7 ", "1e3", "[1]", "n/a"]),
            st.lists(st.sampled_from([0.1, 1.5, 2.0, 1e39]), max_size=2),
            st.lists(st.integers(-3, 3), max_size=2),
        )
    )
)
"""Columns whose values have one type."""


@pytest.mark.parametrize("kind", KINDS)
@UNHURRIED
@given(policy=POLICIES, values=TYPED)
def test_a_declaration_holds_alike_for_typed_columns(kind: str, policy: str, tmp_path: Path, values: list[Any]) -> None:
    doors = Doors(kind, policy, tmp_path)
    own: dict[str, Any] = {"timestamp": [T0_US + row for row in range(len(values))], "key": ["k"] * len(values)}
    column = pa.array(values)
    columns: dict[str, Any] = {"Arrow": column, "Arrow, as Polars writes it": _wide(column)}
    if not pa.types.is_nested(column.type):
        columns["pandas"] = pd.Series(values, dtype=pd.ArrowDtype(column.type))
    found = {
        "JSON": doors.messages([json.dumps({"timestamp": T0_US, "key": "k", "v": value}).encode() for value in values])
    }
    for name, given_column in columns.items():
        frame = Frame.from_columns("S", "", own | {"v": given_column})
        found[name] = doors.matched([frame])
        found[f"{name} in a topic"] = doors.messages([encode_frame(frame)])
    pq.write_table(pa.table(own | {"v": column}), tmp_path / "events.parquet")
    found["Parquet"] = doors.file("events.parquet")
    alike(found)


@pytest.mark.parametrize("kind", ["{type: int64}", "{type: int32}", "{type: int64, text: true}"])
@pytest.mark.parametrize(
    ("digits", "whole"),
    [
        ("9007199254740993.0", 2**53 + 1),
        ("18014398509481985.00", 2**54 + 1),
        ("9007199254740993.5", None),
        ("2.0000000000000001", None),
        ("5.0", 5),
        ("2.5", None),
    ],
)
def test_integers_written_with_a_fraction_keep_their_digits(kind: str, digits: str, whole: int | None, tmp_path: Path):
    doors = Doors(kind, "dead_letter", tmp_path)
    decoded = Doors(kind, "dead_letter", tmp_path, decoder=", decoder: {name: csv, columns: [timestamp, key, v]}")
    event = {"stream": "S", "timestamp": T0_US, "key": "k", "v": Decimal(digits)}
    frame = Frame.from_columns("S", "", {"timestamp": [T0_US], "key": ["k"], "v": [Decimal(digits)]})
    (tmp_path / "events.csv").write_text(f"stream,timestamp,key,v\nS,{T0_US},k,{digits}\n")
    found = {
        "JSON": doors.messages([f'{{"timestamp": {T0_US}, "key": "k", "v": {digits}, "w": 0.1}}'.encode()]),
        "CSV": decoded.messages([f"{T0_US},k,{digits}".encode()]),
        "CSV file": doors.file("events.csv"),
        "mappings": doors.matched([event]),
        "columns": doors.matched([frame]),
    }
    fits = whole is not None and (abs(whole) < 2**31 or "int32" not in kind)
    for door, (values, refused) in found.items():
        assert (values, refused.total()) == (([_seen(whole)], 0) if fits else ([], 1)), door


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_their_text_in_mappings_and_columns(kind: str, tmp_path: Path):
    doors = Doors(kind, "dead_letter", tmp_path)
    for value in (b"5.5", b"7", b"\x00", bytearray(b"1e3")):
        event = {"stream": "S", "timestamp": T0_US, "key": "k", "v": value}
        frame = Frame.from_columns("S", "", {"timestamp": [T0_US], "key": ["k"], "v": [value]})
        by_column, by_mapping = doors.matched([frame]), doors.matched([event])
        assert (by_column[0], by_column[1].total()) == (by_mapping[0], by_mapping[1].total()), value
