"""Logs that are damaged or made to harm: bounded memory, and an error that names the place."""

import gzip
import json
import resource
import struct

import pytest
import zstandard

from astrocyte.pipeline.analysis.inputs import survey
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording import reader
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, record_line
from astrocyte.pipeline.recording.index import read_index
from astrocyte.pipeline.recording.reader import open_log, read_log
from astrocyte.pipeline.recording.writer import LogWriter

RECORD = ConsumedRecord("mono.A", 0, 5, 1_700_000_000_000, b"k", b'{"x": 1}')


def line(**changed: object) -> bytes:
    return json.dumps(
        {"topic": "t", "partition": 0, "offset": 0, "ts": 0, "key": None, "payload": "x"} | changed
    ).encode()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"partition": 10**18}, "'partition': expected 0 to 9,999, got 1,000,000,000,000,000,000"),
        ({"partition": -1}, "'partition': expected 0 to 9,999, got -1"),
        ({"partition": 10**40}, "'partition': expected an integer of 64 bits"),
        ({"offset": -1}, "'offset': expected 0 or more, got -1"),
        ({"offset": 2**63}, "'offset': expected an integer of 64 bits"),
        ({"ts": 2**63}, "'ts': expected an integer of 64 bits"),
        ({"ts": 1.5}, "'ts': expected an integer of 64 bits"),
        ({"topic": ["x"] * 10_000}, "'topic': expected a string"),
        ({"payload_b64": "é"}, "invalid base64"),
        ({"payload_b64": 5}, "expected|lone surrogate"),
        ({"headers": [1, "x"]}, "invalid base64|headers"),
    ],
)  # fmt: skip
def test_an_absurd_value_is_an_error_with_its_place(tmp_path, changed, said):
    path = tmp_path / "log.jsonl"
    path.write_bytes(line() + b"\n" + line(**changed) + b"\n" + line() + b"\n")
    with pytest.raises(InvalidLog, match=rf"log\.jsonl, after 1 records: .*({said})") as caught:
        list(read_log(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("count", [10**18, -5, 1e300, "9" * 5000, None, True])
def test_an_absurd_number_of_partitions_in_a_header_is_an_error(tmp_path, count):
    path = tmp_path / "log.jsonl"
    header = {"type": "log-header", "format": 1, "topics": {"t": {"partitions": count}}}
    path.write_bytes(json.dumps(header).encode() + b"\n" + line() + b"\n")
    with pytest.raises(InvalidLog, match=r"gives topic 't' .* partitions; expected 0 to 10,000"):
        list(read_log(path))


def test_offsets_that_go_back_are_read(tmp_path):
    from typer.testing import CliRunner

    from astrocyte.pipeline.cli.app import app

    rules, path = tmp_path / "rules.yaml", tmp_path / "log.jsonl"
    rules.write_text("rules: [{name: r, seq: [{as: a, stream: A}]}]")
    path.write_bytes(b"".join(record_line(RECORD._replace(offset=offset)) for offset in (5, 3, 9, 1)))
    done = CliRunner().invoke(app, ["match", str(rules), str(path)])
    assert (done.exit_code, done.exception) == (0, None)


@pytest.mark.parametrize("form", ["zstd", "gzip", "plain"])
def test_a_line_without_an_end_is_refused_long_before_it_is_read(tmp_path, monkeypatch, form):
    monkeypatch.setattr(reader, "_LONGEST", 4 << 20)
    path, endless = tmp_path / "log", b"[" * (128 << 20 if form != "plain" else 16 << 20)
    text = record_line(RECORD) + endless
    path.write_bytes({"zstd": zstandard.compress, "gzip": lambda data: gzip.compress(data, 1)}.get(form, bytes)(text))
    assert form == "plain" or path.stat().st_size < 2 << 20
    del endless, text
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidLog, match=r"log, line 2: expected at most 4,194,304 bytes, got more"):
        list(read_log(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def with_index(body: object, *, claim: int | None = None) -> bytes:
    log = zstandard.compress(LogHeader({"mono.A": 1}).line() + record_line(RECORD))
    data = bytearray(zstandard.compress(json.dumps(body).encode()))
    if claim is not None:
        plain = json.dumps(body).encode()
        data = bytearray(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", claim))
        data += struct.pack("<I", len(plain) << 3 | 1)[:3] + plain
    data += struct.pack("<QI8s", len(log), len(data), b"ASTROIDX")
    return log + b"\x5a\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


TOTALS = {"frames": 0, "bytes": 1, "largest": 1, "first_ms": 0, "last_ms": 0}


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        ({"blocks": [], "topics": {}}, 8 << 30),
        ({"blocks": [[-5, 1, 1, 0, 0]], "topics": {}}, None),
        ({"blocks": [["x"] * 5], "topics": {}}, None),
        ({"blocks": [[0, 1, 1, 10**30, 0]], "topics": {}}, None),
        ({"blocks": 5, "topics": []}, None),
        ({"blocks": [[0, 1, 1, 0, 0]], "topics": {"mono.A": TOTALS | {"messages": {"1" + "0" * 18: 1}}}}, None),
        ({"blocks": [[0, 1, 1, 0, 0]], "topics": {"mono.A": TOTALS | {"messages": {}}}}, None),
    ],
)
def test_an_index_that_cannot_be_right_is_not_used(tmp_path, body, claim):
    path = tmp_path / "log.zst"
    path.write_bytes(with_index(body, claim=claim))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_index(path) is None
    assert survey([path]).records == 1
    assert [item.offset for item in open_log(path) if isinstance(item, ConsumedRecord)] == [5]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_index_of_a_log_is_used(tmp_path):
    path = tmp_path / "log.zst"
    with LogWriter(path, LogHeader({"mono.A": 1})) as writer:
        writer.write(RECORD)
    assert read_index(path).records == 1


@pytest.mark.parametrize("value", [b"[]", b"5", b'{"partition": 1e999}', b'{"repartition": 1, "positions": []}'])
def test_an_odd_record_of_idleness_is_left_out(tmp_path, value):
    path = tmp_path / "log.jsonl"
    path.write_bytes(record_line(RECORD._replace(topic="control.clock", value=value)) + record_line(RECORD))
    assert survey([path]).records == 2
