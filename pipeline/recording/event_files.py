"""Files of events that are no recorded logs: JSON lines, CSV and Parquet, one event a line or row.

The events are those that a topic would hold whose messages are the rows, in the order of the file, in one partition:
a row is a JSON record, its number is its offset. So they have the same ids as in such a topic. A line or row that holds
no event is a message as well, which becomes a dead letter.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

from astrocyte.agents.ingest.csv_lines import csv_rows, row_reader
from astrocyte.agents.ingest.decoders import REFUSED_HEADER
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.csv_header import doubts_of, repeated
from astrocyte.pipeline.recording.format import InvalidLog
from astrocyte.pipeline.recording.reader import GZIP, json_object, read_lines
from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.contract import Contracts, time_member
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings
from astrocyte.schemas.json.text import dumps
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.values.foreign import exact_column, is_binary, plain_column
from astrocyte.schemas.values.mixed import to_list
from astrocyte.schemas.values.single import json_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EventFiles", "form_of"]

Form = Literal["log", "json", "csv", "parquet"]

_PARQUET: Final = b"PAR1"
_LOG_MEMBERS: Final = frozenset({"topic", "partition", "offset"})
_FIRST_LINES: Final = 1000
"""Number of lines by which the form of a file is recognised."""


class _Row(NamedTuple):
    """One line or row: its number, its JSON text or else what came, the object in it, and why there is none."""

    number: int
    value: bytes
    body: Mapping[str, Any] | None
    reason: str | None = None


def form_of(path: str | Path) -> Form:
    """Form of a file, by its first bytes and lines and, for CSV, its name.

    Of lines that are JSON objects, the first one says whether they are those of a log. A file without any counts as a
    log, and so does one that cannot be read.
    """
    name = str(path)
    if name == "-":
        return "log"
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    try:
        with Path(path).open("rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                return "parquet"
        for number, line in enumerate(islice(read_lines(path), _FIRST_LINES)):
            if number == 0 and line.strip() in (b"[", b"{"):
                return "log"  # one JSON text over several lines
            body = json_object(line)
            if body is not None:
                return "log" if body.keys() >= _LOG_MEMBERS or body.get("type") == "log-header" else "json"
    except (OSError, InvalidLog):
        pass
    return "log"


@dataclass(frozen=True, slots=True)
class EventFiles:
    """The events of files as messages. ``streams`` are those that the rules read; ``stream`` is that of every event.

    Without ``stream`` an event is of the stream that its member ``stream`` or ``source_stream`` names, else of the
    only one that the rules read.
    """

    paths: Sequence[str | Path]
    contracts: Contracts
    streams: Sequence[str]
    stream: str | None = None

    def doubts(self) -> list[str]:
        """What is strange about the names of columns, a sentence each; the files are read all the same."""
        delimiter = self._delimiter()
        return [line for path in self.paths if form_of(path) == "csv" for line in doubts_of(path, delimiter)]

    def records(self) -> Iterator[ConsumedRecord]:
        """The messages, in order. Raises InvalidLog and InvalidSettings, naming the file."""
        offsets: dict[str, int] = {}
        for path in self.paths:
            form = form_of(path)
            read = _json_lines if form == "json" else self._csv if form == "csv" else self._parquet
            rows = read(path)
            for stream, row in self._with_streams(path, rows):
                topic = self.contracts.topic_of(stream)
                offset = offsets.get(topic, 0)
                offsets[topic] = offset + 1
                headers = () if row.reason is None else ((REFUSED_HEADER, row.reason.encode()),)
                yield ConsumedRecord(topic, 0, offset, -1, None, row.value, headers)

    def _with_streams(self, path: str | Path, rows: Iterable[_Row]) -> Iterator[tuple[str, _Row]]:
        """Each row with its stream; one without an event has that of the event before it, at the start of the next."""
        stream = self.stream or (self.streams[0] if len(self.streams) == 1 else None)
        waiting: list[_Row] = []
        for row in rows:
            if row.body is not None:
                stream = self._stream_of(row.body, path, row.number)
            if stream is None:
                waiting.append(row)
                continue
            yield from ((stream, each) for each in waiting)
            waiting.clear()
            yield stream, row
        if waiting:
            first = waiting[0]
            raise InvalidLog(f"{path} holds no event; line {first.number}: {first.reason or 'not a JSON object'}")

    def _stream_of(self, body: Mapping[str, Any], path: str | Path, number: int) -> str:
        if self.stream is not None:
            return self.stream
        for name in ("stream", "source_stream"):
            found = body.get(name)
            if isinstance(found, str):
                return found if name == "stream" else found.removeprefix("stream:")
        if len(self.streams) != 1:
            raise InvalidSettings(
                f"{path}, line {number} names no stream, and the rules read {', '.join(self.streams) or 'none'}; give "
                "--stream NAME, or a member 'stream' to each event"
            )
        return self.streams[0]

    def _csv(self, path: str | Path) -> Iterator[_Row]:
        readers: dict[str, Any] = {}
        with _opened(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            rows = csv_rows(text, self._delimiter())
            try:
                header = next(rows, None)
                if header is None:
                    return
                if header.reason is not None:
                    raise InvalidLog(
                        f"{path}, line {header.number}: {header.reason}; expected the names of the columns"
                    )
                columns = header.values
                for row in rows:
                    try:
                        if row.reason is not None:
                            raise InvalidEvent(f"line {row.number}: {row.reason}")
                        if len(row.values) == len(columns):
                            named = dict(zip(columns, row.values, strict=True))
                            stream = self._stream_of(named, path, row.number)
                        else:
                            stream = ""  # whose reader refuses the row
                        if stream not in readers:
                            readers[stream] = row_reader(self.contracts.of_stream(stream))
                        body = readers[stream](columns, row.values, row.number)
                        yield _Row(row.number, dumps(body), body)
                    except (InvalidEvent, TypeError) as error:
                        yield _Row(row.number, row.text.encode("utf-8", "surrogateescape"), None, str(error))
            except (EOFError, OSError, zlib.error) as error:
                raise InvalidLog(f"{path} is damaged or ends inside a compressed block: {error}") from None

    def _parquet(self, path: str | Path) -> Iterator[_Row]:
        """Rows whose values are those of frames: times are microseconds.

        An event's own time is text where another unit is declared, or none, which would be guessed.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        from astrocyte.pipeline.recording.wide_integers import wide_integers

        number = 0
        kinds = (pa.types.is_timestamp, pa.types.is_date)
        try:
            with pq.ParquetFile(path) as file:
                if twice := repeated(file.schema_arrow.names):
                    raise InvalidLog(f"{path}: several columns are called {twice[0]!r}; give each a name of its own")
                times = {column.name for column in file.schema_arrow if any(test(column.type) for test in kinds)}
                for batch in file.iter_batches():
                    for stream, body in self._bodies(batch, path, number):
                        number += 1
                        try:
                            name = self._time_name(stream, body) if times else None
                            shown = body
                            if name is not None and name in times and body[name] is not None:
                                shown = body | {name: iso_from_us(body[name])}
                            yield _Row(number, dumps(shown), body)
                        except TypeError as error:
                            yield _Row(number, b"", None, f"row {number}: {error}")
        except pa.ArrowNotImplementedError as error:
            raise InvalidLog(f"{path}: {wide_integers(path) or error}") from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns are bytes in the file
            raise InvalidLog(f"{path}: {error}") from None

    def _bodies(self, batch: pa.RecordBatch, path: str | Path, before: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of a batch with their streams, each as its own stream needs it; ``before``: rows before the batch.

        The rows are made again only where the streams of a batch differ in what they keep exactly.
        """
        differing = _kept_or_rounded(batch.schema)

        @cache
        def exact_of(stream: str) -> frozenset[str]:
            return self._exact_columns(stream) & differing

        @cache
        def rows_of(exact: frozenset[str]) -> list[dict[str, Any]]:
            return _plain_rows(batch, path, exact)

        stream = self.stream or next(iter(self.streams), "")
        for row in range(batch.num_rows):
            stream = self._stream_of(rows_of(exact_of(stream))[row], path, before + row + 1)
            yield stream, rows_of(exact_of(stream))[row]

    def _exact_columns(self, stream: str) -> frozenset[str]:
        """Columns in which decimal numbers of a stream keep their digits and bytes are text."""
        contract = self.contracts.of_stream(stream)
        names = {"key", *map(field_name, contract.exact_columns)}
        declaration = contract.declaration
        if declaration is not None:
            paths = {name: spec.path or name for name, spec in declaration.fields.items()}
            names = {paths.get(name, name) for name in names}
            names |= {*declaration.identifying, declaration.key.path or declaration.key.field}
        return frozenset(names)

    def _time_name(self, stream: str, body: Mapping[str, Any]) -> str | None:
        """The member of an event of a stream that is its time, unless it is declared to be in microseconds."""
        declaration = self.contracts.of_stream(stream).declaration
        if declaration is not None and declaration.time is not None:
            return None if declaration.time.unit == "us" else declaration.time.field
        return time_member(body)

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
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    if packed:
        file.close()  # closing a GzipFile over it would leave it open
        return gzip.open(path)  # type: ignore[return-value]
    return file


def _json_lines(path: str | Path) -> Iterator[_Row]:
    """Lines as they are; one that is not JSON becomes a dead letter where it is decoded."""
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield _Row(number, line, json_object(line))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values inside lists and structs of a type are bytes, whose JSON is text."""
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return any(is_binary(each) or _holds_bytes(each) for each in inner)


def _kept_or_rounded(schema: Iterable[pa.Field]) -> frozenset[str]:
    """Columns of types of which values are kept exactly or not, as a stream needs them: not numbers, times and text."""
    import pyarrow as pa

    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_temporal)
    names: set[str] = set()
    for field in schema:
        if field.name == "metadata" and pa.types.is_struct(field.type):
            names |= _kept_or_rounded(field.type)
        elif not any(test(field.type) for test in tests):
            names.add(field.name)
    return frozenset(names)


def _plain_rows(batch: pa.RecordBatch, path: str | Path, exact: frozenset[str]) -> list[dict[str, Any]]:
    """Rows of a batch in the form that events have (`schemas.values.foreign.plain_column`), as those of a frame.

    Columns ``exact`` are as `schemas.values.foreign.exact_column` has them.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "metadata" and pa.types.is_struct(column.type):  # whose members are fields
            inner = pa.RecordBatch.from_arrays(column.flatten(), names=[field.name for field in column.type])
            nulls = column.is_null().to_pylist()
            columns[name] = [
                None if null else row for null, row in zip(nulls, _plain_rows(inner, path, exact), strict=True)
            ]
        else:
            try:
                values = to_list(exact_column(column) if name in exact else plain_column(column))
            except ValueError as error:  # such as a date beyond the range of microseconds
                raise InvalidLog(f"{path}, column {name!r}: {error}") from None
            if _holds_bytes(column.type):
                values = [
                    value if isinstance(value, str | None) else orjson.loads(json_text(value)) for value in values
                ]
            columns[name] = values
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
