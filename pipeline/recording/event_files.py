"""Files of events that are no recorded logs: JSON lines, CSV and Parquet, one event a line or row.

The events are those that a topic would hold whose messages are the rows, in the order of the file, in one partition:
a row is a JSON record, its number is its offset. So they have the same ids as in such a topic.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson

from astrocyte.agents.ingest.csv_lines import row_reader
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.csv_header import doubts_of, repeated
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import read_lines
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings
from astrocyte.schemas.json.text import dumps, loads
from astrocyte.schemas.mixed import rows_of

__all__ = ["EventFiles", "form_of"]

Form = Literal["log", "json", "csv", "parquet"]

_PARQUET: Final = b"PAR1"
_GZIP: Final = b"\x1f\x8b"
_LOG_MEMBERS: Final = frozenset({"topic", "partition", "offset"})


def form_of(path: str | Path) -> Form:
    """Form of a file, by its first bytes and, for CSV, its name. A file that cannot be read counts as a log."""
    name = str(path)
    if name == "-":
        return "log"
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    try:
        with Path(path).open("rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                return "parquet"
        first = next((line for line in read_lines(path) if line.strip()), b"")
        body = loads(first)
    except (OSError, InvalidLog, orjson.JSONDecodeError):
        return "log"
    own = isinstance(body, dict) and (body.keys() >= _LOG_MEMBERS or body.get("type") == "log-header")
    return "log" if own or not isinstance(body, dict) else "json"


@dataclass(slots=True)
class EventFiles:
    """The events of files as messages. ``streams`` are those that the rules read; ``stream`` is that of every event.

    Without ``stream`` an event is of the stream that its member ``stream`` or ``source_stream`` names, else of the
    only one that the rules read.
    """

    paths: Sequence[str | Path]
    contracts: Contracts
    streams: Sequence[str]
    stream: str | None = None
    _offsets: dict[str, int] = field(default_factory=dict)

    def doubts(self) -> list[str]:
        """What is strange about the names of columns, a sentence each; the files are read all the same."""
        delimiter = self._delimiter()
        return [line for path in self.paths if form_of(path) == "csv" for line in doubts_of(path, delimiter)]

    def records(self) -> Iterator[ConsumedRecord]:
        """The messages, in order. Raises InvalidLog and InvalidSettings, naming the file."""
        self._offsets = {}
        for path in self.paths:
            form = form_of(path)
            rows = _json_lines(path) if form == "json" else self._csv(path) if form == "csv" else _parquet(path)
            for number, (value, body) in enumerate(rows, 1):
                topic = self.contracts.topic_of(self._stream_of(body, path, number))
                offset = self._offsets.get(topic, 0)
                self._offsets[topic] = offset + 1
                yield ConsumedRecord(topic, 0, offset, -1, None, value)

    def _stream_of(self, body: Any, path: str | Path, number: int) -> str:
        if self.stream is not None:
            return self.stream
        for name in ("stream", "source_stream") if isinstance(body, Mapping) else ():
            found = body.get(name)
            if isinstance(found, str) and (found.removeprefix("stream:") in self.streams or len(self.streams) != 1):
                return found.removeprefix("stream:")
        if len(self.streams) != 1:
            raise InvalidSettings(
                f"{path}, event {number} names no stream, and the rules read {', '.join(self.streams) or 'none'}; give "
                "--stream NAME, or a member 'stream' to each event"
            )
        return self.streams[0]

    def _csv(self, path: str | Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
        readers: dict[str, Any] = {}
        delimiter = self._delimiter()
        with _opened(path) as file:
            lines = csv.reader(
                io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True
            )
            try:
                columns = next(lines, None)
                if not columns:
                    return
                for values in lines:
                    if not values:
                        continue
                    if len(values) != len(columns):
                        raise InvalidEvent(f"{len(values)} values; expected {len(columns)}: {', '.join(columns)}")
                    stream = self._stream_of(dict(zip(columns, values, strict=True)), path, lines.line_num)
                    if stream not in readers:
                        readers[stream] = row_reader(self.contracts.of_stream(stream))
                    body = readers[stream](columns, values, lines.line_num)
                    yield dumps(body), body
            except (csv.Error, InvalidEvent, UnicodeDecodeError) as error:
                raise InvalidLog(f"{path}, line {lines.line_num}: {error}") from None

    def _delimiter(self) -> str:
        """The delimiter that a declared decoder csv has; a comma where there is none."""
        for declaration in self.contracts.declared.values():
            if declaration.decoder is not None and declaration.decoder.name == "csv":
                return str(declaration.decoder.options.get("delimiter", ","))
        return ","


def _opened(path: str | Path) -> IO[bytes]:
    try:
        file = Path(path).open("rb")  # noqa: SIM115  closed by the caller
    except OSError as error:
        raise InvalidLog(f"{path}: {error.strerror}") from None
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


def _json_lines(path: str | Path) -> Iterator[tuple[bytes, Any]]:
    """Lines as they are; one that is not JSON becomes a dead letter where it is decoded."""
    for line in read_lines(path):
        if not line.strip():
            continue
        try:
            body = loads(line)
        except orjson.JSONDecodeError:
            body = None
        yield line, body


def _parquet(path: str | Path) -> Iterator[tuple[bytes, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if twice := repeated(file.schema_arrow.names):
                raise InvalidLog(f"{path}: several columns are called {twice[0]!r}; give each a name of its own")
            for batch in file.iter_batches():
                for name in batch.schema.names:
                    column = batch.column(name)
                    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
                        # Python's datetime has no nanoseconds.
                        kind = pa.timestamp("us", column.type.tz)
                        batch = batch.set_column(
                            batch.schema.get_field_index(name), name, column.cast(kind, safe=False)
                        )
                for body in rows_of(batch):
                    yield dumps(body), body
    except (pa.ArrowException, OSError) as error:
        raise InvalidLog(f"{path}: {error}") from None
