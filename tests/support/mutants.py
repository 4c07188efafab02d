"""Damaged messages: seeded mutants of valid ones, read in a process of their own, which the worst of them would end.

python -m tests.support.mutants KIND|all FIRST COUNT
"""

from __future__ import annotations

import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from astrocyte.agents.domain import Domain, DomainGroup
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord
from tests.support.mutations import mutated

TIME_MS = 1_700_000_000_000
RULES = """
rules:
  - {name: r, by: key, within: 10s, emit: {x: a.x, s: b.s},
     seq: [{as: a, stream: A, where: "x > 3"}, {as: b, stream: A, where: "s == 'text3'"}]}
"""


def _frame(rows: int) -> Frame:
    return Frame.from_columns(
        "A",
        "run",
        {
            "timestamp": np.arange(rows) * 1000 + TIME_MS * 1000,
            "key": [f"k{row % 5}" for row in range(rows)],
            "x": np.arange(rows) * 1.5,
            "s": [None if row % 3 else f"text{row}" for row in range(rows)],
            "list": pa.array([[1, 2], [3]] * (rows // 2)),
            "mixed": [1 if row % 2 else "a" for row in range(rows)],
            "struct": pa.array([{"a": 1, "b": "x"}] * rows),
        },
        origin="o",
        watermark_us=5,
        peers=("a", "b"),
    )


def frames() -> tuple[str, list[RawRecord]]:
    """Frames as this project writes them, with compressed buffers, views, runs and large dictionaries."""
    values = [encode_frame(_frame(50))]
    batch = _frame(200).batch.replace_schema_metadata(pa.ipc.open_stream(values[0]).schema.metadata)
    odd = {
        "view": pa.array(["a text of more than twelve", "b"] * 100, pa.string_view()),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([150, 200], pa.int32()), pa.array(["x", "y"])),
        "numbers": pa.array([1, 2] * 100).dictionary_encode(),
        "lists": pa.array([[1], [2, 3]] * 100, pa.list_view(pa.int32())),
        "bytes": pa.array([b"ab", None] * 100),
    }
    for name, column in odd.items():
        batch = batch.append_column(name, column)
    for codec in ("zstd", "lz4", None):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_batch(batch)
        values.append(bytes(sink.getvalue()))
    # Of these columns small frames are read together with others.
    usual = _frame(50).batch.select(["timestamp", "key", "type", "x", "s"])
    values.append(encode_frame(Frame("A", "run", usual, origin="o", watermark_us=5, peers=("a", "b"))))
    return "", [RawRecord(0, TIME_MS, None, value) for value in values]


def _json(*bodies: object, headers: tuple[tuple[str, bytes], ...] = ()) -> list[RawRecord]:
    return [RawRecord(0, TIME_MS, b"k", orjson.dumps(body), headers) for body in bodies]


def json_records() -> tuple[str, list[RawRecord]]:
    """Flat records and mono events, undeclared."""
    mono = {
        "event_id": "e",
        "timestamp": "2023-11-14T22:13:20Z",
        "source_stream": "stream:A",
        "type": "A",
        "value": 2.0,
    }
    return "", _json(
        {"timestamp": "2023-11-14T22:13:20Z", "x": 1, "s": "text3", "list": [1, {"a": None}], "key": "k"},
        {"ts": TIME_MS, "x": 1.5, "deep": {"a": {"b": [True, "t"]}}},
        mono | {"metadata": {"x": 4, "s": "text3"}},
    )


def cloudevents() -> tuple[str, list[RawRecord]]:
    """CloudEvents in structured and in binary mode."""
    attributes = {"specversion": "1.0", "id": "9", "source": "/s", "type": "t", "time": "2023-11-14T22:13:20Z"}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
    return "decoder: cloudevents", [
        *_json(attributes | {"data": {"x": 4, "s": "text3"}, "partitionkey": "k"}),
        *_json({"x": 4, "s": "text3"}, headers=headers),
    ]


def debezium() -> tuple[str, list[RawRecord]]:
    """Changes of a table, with and without a schema."""
    change = {"op": "u", "before": None, "after": {"id": 1, "x": 4, "s": "text3"}, "source": {"ts_ms": TIME_MS}}
    return "decoder: debezium", _json(change, {"schema": {"type": "struct"}, "payload": change})


def csv() -> tuple[str, list[RawRecord]]:
    """Lines of CSV, of which a message holds several."""
    lines = b'2023-11-14T22:13:20Z,k,4,text3\n2023-11-14T22:13:21Z,k,4.5,"a ""text"", quoted"\n'
    return (
        "decoder: {name: csv, columns: [timestamp, key, x, s]}, fields: {x: float64, s: string}",
        [RawRecord(0, TIME_MS, b"k", lines)],
    )


def avro() -> tuple[str, list[RawRecord]]:
    """Records of a schema with all kinds of values."""
    from io import BytesIO

    from fastavro import parse_schema, schemaless_writer

    kinds = {
        "x": "double", "s": "string", "n": ["null", "long"], "b": "bytes", "list": {"type": "array", "items": "int"},
        "map": {"type": "map", "values": "string"},
    }  # fmt: skip
    schema = {"type": "record", "name": "r", "fields": [{"name": name, "type": kind} for name, kind in kinds.items()]}
    folder = Path(tempfile.mkdtemp())
    (folder / "1.avsc").write_text(json.dumps(schema))
    sink = BytesIO()
    event = {"x": 4.0, "s": "text3", "n": 5, "b": b"ab", "list": [1, 2, 3], "map": {"a": "b"}}
    schemaless_writer(sink, parse_schema(schema), event)
    return (
        f"decoder: {{name: avro, schemas: {folder}}}",
        [RawRecord(0, TIME_MS, b"k", b"\0\0\0\0\1" + sink.getvalue())],
    )


def headers() -> tuple[str, list[RawRecord]]:
    """Messages with the headers that have a meaning here: those of retried letters and of CloudEvents."""
    given = (
        ("astrocyte_letter", b"a-letter"), ("astrocyte_offset", b"17"), ("astrocyte_row", b"0"),
        ("content-type", b"application/json"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"),
    )  # fmt: skip
    return "", _json({"timestamp": "2023-11-14T22:13:20Z", "x": 4, "s": "text3"}, headers=given)


KINDS: dict[str, Callable[[], tuple[str, list[RawRecord]]]] = {
    "frames": frames, "json": json_records, "cloudevents": cloudevents, "debezium": debezium, "csv": csv, "avro": avro,
    "headers": headers,
}  # fmt: skip


def _mutant(record: RawRecord, offset: int, kind: str, rng: random.Random) -> RawRecord:
    if kind == "headers":
        changed = [
            (name if rng.random() < 0.9 else mutated(name.encode(), rng).decode("latin-1"), mutated(value, rng))
            for name, value in record.headers
            if rng.random() < 0.9
        ]
        return record._replace(offset=offset, headers=changed)
    key = mutated(record.key, rng) if record.key and rng.random() < 0.1 else record.key
    time_ms = rng.choice([-1, 0, 2**63 - 1, -(2**63)]) if rng.random() < 0.05 else record.timestamp
    value = mutated(record.value or b"", rng, in_place=kind == "frames" and rng.random() < 0.9)
    return record._replace(offset=offset, value=value, key=key, timestamp=time_ms)


def read_messages(kind: str, first: int, count: int) -> dict[str, float]:
    """What became of the mutants from ``first`` on, each a message of its own, and the seconds of the longest."""
    declaration, valid = KINDS[kind]()
    streams = f"streams: [{{name: A, {declaration}}}]\n" if declaration else ""
    ruleset = load_rules(RULES + streams)
    decoders = Decoders(Contracts(ruleset.streams))

    def new() -> Domain:
        engine = Engine(ruleset, validated=True)
        return Domain(0, [DomainGroup("key", engine, {"A": "mono.A"})], topics=["mono.A"], decoders=decoders)

    domain, longest_s = new(), 0.0
    letters = 0
    for number in range(first, first + count):
        rng = random.Random(f"{kind} {number}")
        record = _mutant(rng.choice(valid), number - first, kind, rng)
        began_s = time.process_time()
        before = domain.counters.received + domain.waiting
        output = domain.feed("mono.A", [record])
        output.extend(domain.trust())
        taken = domain.counters.received + domain.waiting - before
        is_frame = kind == "frames" and not output.dead_letters
        assert taken or is_frame or kind in ("csv", "debezium"), f"{kind} {number}: nothing was counted"
        for letter in output.dead_letters:
            assert letter.reason, f"{kind} {number}"
            assert letter.offset == record.offset, f"{kind} {number}"
        letters += len(output.dead_letters)
        if number % 25 == 0:
            again = new()
            again.restore(unpack_state(pack_state({"domain": domain.snapshot()}))["domain"])
            domain = again
        longest_s = max(longest_s, time.process_time() - began_s)
    domain.flush()
    counted = domain.counters
    known = counted.processed + counted.late + counted.dead + counted.duplicate + counted.sampled + counted.skipped
    assert counted.received == known, counted
    return {"letters": letters, "received": counted.received, "longest_s": longest_s}


def read_logs(first: int, count: int) -> dict[str, float]:
    """The same for recorded logs: plain, gzip and zstd."""
    import gzip

    import zstandard

    from astrocyte.pipeline.kafka.record import ConsumedRecord
    from astrocyte.pipeline.recording.format import LogHeader, record_line

    lines = LogHeader({"mono.A": 2}).line() + b"".join(
        record_line(ConsumedRecord("mono.A", 0, n, TIME_MS, b"k", b'{"x": 4}', (("a", b"\xff"),))) for n in range(8)
    )
    forms = [lines, gzip.compress(lines), zstandard.ZstdCompressor().compress(lines)]
    path = Path(tempfile.mkdtemp()) / "log"
    refused, read, longest_s = 0, 0, 0.0
    for number in range(first, first + count):
        rng = random.Random(f"log {number}")
        path.write_bytes(mutated(rng.choice(forms), rng))
        began_s = time.process_time()
        try:
            for record in read_log(path, on_torn=lambda _error: None):
                read += 1
                assert 0 <= record.partition < 10_000
        except InvalidLog:
            refused += 1
        longest_s = max(longest_s, time.process_time() - began_s)
    return {"letters": refused, "received": read, "longest_s": longest_s}


def read_rules(first: int, count: int) -> dict[str, float]:
    """The same for rule files, of which messages of the topic ``rules`` are made."""
    from astrocyte.pipeline.topology.rule_files import shipped_rules
    from astrocyte.schemas.errors import AstrocyteError

    valid = [path.read_bytes() for path in shipped_rules().values()]
    refused, read, longest_s = 0, 0, 0.0
    for number in range(first, first + count):
        rng = random.Random(f"rules {number}")
        text = mutated(rng.choice(valid), rng, in_place=rng.random() < 0.5).decode("utf-8", "surrogateescape")
        began_s = time.process_time()
        try:
            load_rules(text)
            read += 1
        except AstrocyteError:
            refused += 1
        longest_s = max(longest_s, time.process_time() - began_s)
    return {"letters": refused, "received": read, "longest_s": longest_s}


OTHERS: dict[str, Callable[[int, int], dict[str, float]]] = {"log": read_logs, "rules": read_rules}


def run(kind: str, first: int, count: int, *, limit_s: float, most_bytes: int = 4 << 30) -> dict[str, dict[str, float]]:
    """What became of mutants of a kind, or of ``all``, in a child process with bounded memory, by kind.

    Raises AssertionError with the command if the child ended early.
    """
    command = [sys.executable, "-m", "tests.support.mutants", kind, str(first), str(count)]

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))

    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=limit_s, preexec_fn=bounded,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    what, start, number_of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {}
    for each in [*KINDS, *OTHERS] if what == "all" else [what]:
        other = OTHERS.get(each)
        found[each] = read_messages(each, start, number_of) if other is None else other(start, number_of)
    print(json.dumps(found))
