"""A value of an Arrow column is the same field of an event in a Parquet file, a frame and a mapping."""

from __future__ import annotations

import datetime as dt
from base64 import b64decode
from decimal import Decimal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astrocyte import Frame, load_rules, match
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.schemas.frames import encode_frame
from astrocyte.schemas.json.reader import RawRecord

T0_US = 1_767_225_600_000_000
RULES = "rules: [{name: r, seq: [{as: a, stream: S}], emit: {v: a.v}}]"
DAY = dt.date(2026, 1, 1)
COLUMNS = {
    "timestamp in ns": (pa.array([T0_US * 1000 + 999, None], pa.timestamp("ns")), [T0_US, None]),
    "timestamp in s": (pa.array([1_767_225_600, None], pa.timestamp("s")), [T0_US, None]),
    "timestamp with a zone": (pa.array([T0_US, 0], pa.timestamp("us", "Europe/Berlin")), [T0_US, 0]),
    "date": (pa.array([DAY, dt.date(1960, 1, 1)]), [T0_US, -315_619_200_000_000]),
    "date64": (pa.array([86_400_000, None], pa.date64()), [86_400_000_000, None]),
    "time": (pa.array([5, None], pa.time32("ms")), [5000, None]),
    "time in ns": (pa.array([5999, None], pa.time64("ns")), [5, None]),
    "duration": (pa.array([15, -15], pa.duration("s")), [15_000_000, -15_000_000]),
    "dates in a dictionary": (pa.array([DAY, None]).dictionary_encode(), [T0_US, None]),
    "binary": (pa.array([b"ab", b"\xff"]), ["ab", "0xff"]),
    "binary of one size": (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
    "large binary": (pa.array([b"ab", None], pa.large_binary()), ["ab", None]),
    "decimal": (pa.array([Decimal("1.10"), None]), [1.1, None]),
    "whole decimal": (pa.array([Decimal(12), Decimal(2**53 + 1)], pa.decimal128(38, 0)), [12, 2**53 + 1]),
    "float16": (pa.array(np.array([1.5, 2], np.float16)), [1.5, 2.0]),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
    "large string": (pa.array(["a", None], pa.large_string()), ["a", None]),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
             ["30303030-3030-3030-3030-303030303030", None]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())), [True, False]),
    "bytes in lists": (pa.array([[b"ab"], []], pa.list_(pa.binary())), ['["ab"]', "[]"]),
    "times in structs": (pa.array([{"at": dt.datetime(2026, 1, 1)}, None]), ['{"at":"2026-01-01T00:00:00"}', None]),
    "times in ns in lists": (pa.array([[T0_US * 1000 + 1999, None], []], pa.list_(pa.timestamp("ns"))),
                             ['["2026-01-01T00:00:00.000001",null]', "[]"]),
}  # fmt: skip


def in_file(tmp_path, columns, rules=RULES):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), path)
    _, outputs = run_rules(load_rules(rules), [path], lateness_us=0)
    return [orjson.loads(record.value) for output in outputs for record in output.multi_events]


@pytest.mark.parametrize(("column", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_by_every_entrance(tmp_path, column, expected):
    times = pa.array([T0_US, T0_US + 1], pa.timestamp("us", "UTC"))
    columns = {"timestamp": times, "key": pa.array(["k", "k"]), "v": column}
    assert [body.get("metadata", {}).get("v") for body in in_file(tmp_path, columns)] == expected
    frame = Frame.from_columns("S", "run", columns)
    (sourced,), _ = decode_chunk("mono.S", 0, [RawRecord(0, 0, None, encode_frame(frame))])
    mappings = [{"stream": "S", **row} for row in pa.table(columns).to_pylist()]
    for events in ([frame], [sourced.frame], mappings):
        found = [each.emit["v"] for each in match(load_rules(RULES), events)]
        shown = [orjson.dumps(each).decode() if isinstance(each, list | dict) else each for each in found]
        assert shown == expected


OLD_US = 86_400_000_000
"""A day after 1970: as a number it would be read in seconds."""


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
@pytest.mark.parametrize(
    ("name", "declared"),
    [("timestamp", ""), ("ts", ""), ("at", "streams: [{name: S, time: {field: at, unit: ms}}]\n")],
)
def test_the_time_of_an_event_is_read_from_a_column_of_times_whatever_its_unit(tmp_path, unit, name, declared):
    per_unit = {"s": 1_000_000, "us": 1, "ns": 1 / 1000}[unit]
    column = pa.array([int(OLD_US / per_unit)], pa.timestamp(unit, "UTC"))
    rules = f"{declared}rules: [{{name: r, by: null, seq: [{{as: a, stream: S}}], emit: {{at: a.timestamp, v: a.v}}}}]"
    (body,) = in_file(tmp_path, {name: column, "v": column, "metadata": pa.array([{"w": 1}])}, rules)
    assert body["metadata"] == {"at": OLD_US, "v": OLD_US}


def test_members_of_a_struct_called_metadata_are_fields_as_those_beside_it(tmp_path):
    inner = pa.array([{"v": dt.datetime(2026, 1, 1), "w": b"ab"}, None])
    times = pa.array([T0_US, T0_US + 1], pa.timestamp("us", "UTC"))
    rules = RULES.replace("v: a.v", "v: a.v, w: a.w")
    columns = {"timestamp": times, "key": pa.array(["k", "k"]), "metadata": inner}
    found = [body.get("metadata", {}) for body in in_file(tmp_path, columns, rules)]
    assert [(each.get("v"), each.get("w")) for each in found] == [(T0_US, "ab"), (None, None)]


FAR_US = 10**18
"""In the year 33658, as databases write an infinite time, and beyond what `datetime` holds."""


def test_a_time_after_the_year_9999_is_a_value_as_any_other_and_refuses_only_the_event_whose_time_it_is(tmp_path):
    far = pa.array([FAR_US, None], pa.timestamp("us"))
    times = pa.array([T0_US, T0_US + 1], pa.timestamp("us"))
    keys = pa.array(["k", "k"])
    found = in_file(tmp_path, {"timestamp": times, "key": keys, "v": far})
    assert [body.get("metadata", {}).get("v") for body in found] == [FAR_US, None]
    own = pa.array([FAR_US, T0_US], pa.timestamp("us"))
    found = in_file(tmp_path, {"timestamp": own, "key": keys, "v": pa.array([1, 2])})
    assert [body["metadata"]["v"] for body in found] == [2]


def test_a_date_beyond_the_range_of_times_is_an_error_that_names_the_column(tmp_path):
    columns = {
        "timestamp": pa.array([T0_US], pa.timestamp("us")),
        "v": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
    }
    with pytest.raises(InvalidLog, match=r"events\.parquet, column 'v': "):
        in_file(tmp_path, columns)


WIDE = b64decode(
    "UEFSMRUEFRAVIkwVAhUAAAAotS/9IAhBAAAAuVVpAAAAABUAFRAVIiwVAhUQFQYVBgAAKLUv/SAIQQAAAgAAAAIBAAMVBBk1AAYQGRgEdGltZR"
    "UMFgIWXBaAASZEJggAFQQVChUcTBUCFQAAACi1L/0gBSkAAAEAAABrFQAVEBUiLBUCFRAVBhUGAAAotS/9IAhBAAACAAAAAgEAAxUMGTUABhAZ"
    "GANrZXkVDBYCFlYWeib2ASbAAQAVABUsFT4sFQIVABUGFQYAACi1L/0gFrEAAAIAAAACAQAAAAAAAAAAQAAAAAAAAAAVDhklAAYZGAF2FQwWAh"
    "ZOFmAm8gIAGRwWRBVEFgAAABkcFvYBFUQWAAAAGRwW8gIVYBYAAAAVAhlMSARyb290FQYAFQQlAhgEdGltZQAVDCUCGANrZXklAEwcAAAAFQ4V"
    "IBUCGAF2ABYCGRwZPCbEARwVBBk1AAYQGRgEdGltZRUMFgIWXBaAASZEJggAFv4DFRQAJvACHBUMGTUABhAZGANrZXkVDBYCFlYWeib2ASbAAQ"
    "AWkgQVFgAm0gMcFQ4ZJQAGGRgBdhUMFgIWThZgJvICABaoBBUWABaAAhYCJggW2gIUAAAZHBgMQVJST1c6c2NoZW1hGKgCLy8vLy85VUFBQUFF"
    "QUFBQTh2Ly8veFFBQUFBRUFBRUFBQUFLQUFzQUNBQUtBQVFBK1AvLy93d0FBQUFJQUFnQUFBQUVBQU1BQUFCZ0FBQUFOQUFBQUFRQUFBQ1kvLy"
    "8vSUFBQUFCQUFBQUFJQUFBQUFRSUFBQUFBQUFDUS8vLy9nQUFBQUFFQUFBQUJBQUFBZGdBQUFNVC8vLzhjQUFBQUVBQUFBQWdBQUFBQkZBQUFB"
    "QUFBQVB6Ly8vOEVBQVFBQXdBQUFHdGxlUURzLy8vL09BQUFBQ0FBQUFBWUFBQUFBUUlBQUJBQUVnQUVBQkFBRVFBSUFBQUFEQUFBQUFBQTlQLy"
    "8vMEFBQUFBQkFBQUFDQUFKQUFRQUNBQUVBQUFBZEdsdFpRQT0AGE5Qb2xhcnMgKHB5dGhvbikgdmVyc2lvbiAyLjEuMCAoYnVpbGQgN2Y5MDJi"
    "ZDNmZmQyN2ZmODJkMTQyNzhhMDlhMjk1ZmYyZjdhZWQ5MikZPBwAABwAABwAAABJAgAAUEFSMQ=="
)
"""A file of Polars 2.1.0 with a column ``v`` of type Int128."""


def test_a_column_of_integers_beyond_64_bits_is_named_with_what_to_write(tmp_path):
    (tmp_path / "events.parquet").write_bytes(WIDE)
    with pytest.raises(InvalidLog, match=r"column 'v' holds integers of more than 64 bits .*pl.col\('v'\).cast"):
        run_rules(load_rules(RULES), [tmp_path / "events.parquet"], lateness_us=0)


def test_a_damaged_file_with_such_a_column_is_an_invalid_log(tmp_path):
    for end in (len(WIDE) - 9, len(WIDE) // 2, 8):
        (tmp_path / "events.parquet").write_bytes(WIDE[:end] + WIDE[-8:])
        with pytest.raises(InvalidLog):
            run_rules(load_rules(RULES), [tmp_path / "events.parquet"], lateness_us=0)
