"""Files: recorded logs with their index, files of events, line protocol."""

from __future__ import annotations

import atexit
import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.influx.read_lines import point_fields, point_key, point_line, points_in
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.event_files import EventFiles, form_of
from astrocyte.pipeline.recording.format import InvalidLog, LogHeader, parse_line, record_line
from astrocyte.pipeline.recording.index import Block, Totals, index_frame, read_index
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidSettings
from tests.fuzz.target import Check, Target
from tests.support import mutants

__all__ = ["TARGETS"]


def _path(name: str) -> Path:
    """Of a file of this process, written anew for each input."""
    folder = tempfile.mkdtemp(prefix="astrocyte-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / name


def _record(offset: int) -> ConsumedRecord:
    return ConsumedRecord("mono.A", 0, offset, mutants.TIME_MS + offset, b"k", b'{"x": 4}', (("a", b"\xff"),))


def _open_line() -> Check:
    def check(data: bytes) -> None:
        found = parse_line(data)
        if isinstance(found, ConsumedRecord):
            assert 0 <= found.partition < 10_000
            assert found.offset >= 0
            assert parse_line(record_line(found)) == found

    return check


def _line_seeds() -> Iterator[bytes]:
    yield LogHeader({"mono.A": 2}).line()
    yield record_line(_record(7))
    yield record_line(_record(7), b64=False)
    yield b'{"topic":"t","partition":0,"offset":1,"ts":1,"broker":0,"headers":["a","b"],"key":"k","payload":null}'


def _open_log() -> Check:
    path = _path("log")

    def check(data: bytes) -> None:
        path.write_bytes(data)
        read_index(path)
        for record in read_log(path, start_ms=mutants.TIME_MS + 1, on_torn=lambda _error: None):
            assert 0 <= record.partition < 10_000
        for record in read_log(path, on_torn=lambda _error: None):
            assert record.offset >= 0

    return check


def _log_seeds() -> Iterator[bytes]:
    lines = LogHeader({"mono.A": 2}).line() + b"".join(record_line(_record(offset)) for offset in range(4))
    compressor = zstandard.ZstdCompressor()
    yield lines
    yield gzip.compress(lines, mtime=0)
    block = compressor.compress(lines)
    yield block
    totals = Totals()
    for offset in range(4):
        totals.add(_record(offset))
    blocks = [Block(0, len(block), 4, mutants.TIME_MS, mutants.TIME_MS + 3)]
    yield block + index_frame(blocks, {"mono.A": totals}, compressor)


def _open_index() -> Check:
    """An index whose JSON is changed, not the bytes that are compressed."""
    path = _path("log")
    block = zstandard.ZstdCompressor().compress(record_line(_record(0)))

    class Given:
        def __init__(self, text: bytes) -> None:
            self.text = text

        def compress(self, _body: bytes) -> bytes:
            return zstandard.ZstdCompressor().compress(self.text)

    def check(data: bytes) -> None:
        blocks = [Block(0, len(block), 1, 0, 1)]
        path.write_bytes(block + index_frame(blocks, {}, Given(data)))
        index = read_index(path)
        if index is not None:
            assert index.blocks or not index.records
            list(read_log(path, start_ms=1, on_torn=lambda _error: None))

    return check


def _index_seeds() -> Iterator[bytes]:
    yield b'{"blocks":[[0,100,4,1700000000000,1700000000003]],"topics":{"mono.A":{"messages":{"0":4}}}}'
    yield b'{"blocks":[],"topics":{}}'


def _open_events(name: str) -> Check:
    path = _path(name)
    files = EventFiles([path], Contracts(), ["A"])

    def check(data: bytes) -> None:
        path.write_bytes(data)
        if form_of(path) == "log":
            return
        files.doubts()
        offsets: dict[str, int] = {}
        for record in files.records():
            assert record.offset == offsets.get(record.topic, 0)
            offsets[record.topic] = record.offset + 1

    return check


def _parquet_seeds() -> Iterator[bytes]:
    table = pa.table(
        {
            "timestamp": pa.array([mutants.TIME_MS * 1000, None], pa.timestamp("us")),
            "x": [1.5, None],
            "s": ["text", "other"],
            "list": [[1, 2], None],
            "metadata": [{"a": 1, "b": b"x"}, None],
        }
    )
    for codec in ("none", "zstd", "snappy"):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression=codec)
        yield sink.getvalue()


def _csv_seeds() -> Iterator[bytes]:
    yield b'timestamp,key,x,s\n2023-11-14T22:13:20Z,k,4,"a ""text""\nover two lines"\n,,,\n'
    yield b"\xef\xbb\xbfa;b;a\r\n1;2;3\r\n"
    yield gzip.compress(b"timestamp,x\n2023-11-14T22:13:20Z,1\n", mtime=0)


def _json_seeds() -> Iterator[bytes]:
    yield b'{"timestamp": "2023-11-14T22:13:20Z", "x": 1}\n\nnot json\n{"stream": "A", "x": [1, {"a": null}]}\n'
    yield b'[{"x": 1},\n {"x": 2}]\n'


def _open_points() -> Check:
    path = _path("points.lp")

    def check(data: bytes) -> None:
        path.write_bytes(data)
        for _, line in points_in(path, lambda comment: None):
            point_key(line)
            point_line(line)
            point_fields(line)

    return check


def _point_seeds() -> Iterator[bytes]:
    yield b'# mark\nspikes,neuron=1,region=a\\ b rate=1.5,count=3i,on=true,text="a \\"quoted\\" text" 1700000000\n'
    yield b'm text="over\ntwo lines, a=b",x=1 1\nm x=2 2\n'


def _events(name: str) -> Callable[[], Check]:
    return partial(_open_events, name)


_LOG = (InvalidLog,)
_EVENTS = (InvalidLog, InvalidSettings)

TARGETS = [
    Target("log-line", _open_line, _line_seeds, _LOG),
    Target("log-file", _open_log, _log_seeds, _LOG),
    Target("log-index", _open_index, _index_seeds, _LOG),
    Target("csv-file", _events("events.csv"), _csv_seeds, _EVENTS),
    Target("json-file", _events("events.json"), _json_seeds, _EVENTS),
    Target("parquet-file", _events("events.parquet"), _parquet_seeds, _EVENTS, in_place=True),
    Target("line-protocol", _open_points, _point_seeds, (SinkError,)),
]
