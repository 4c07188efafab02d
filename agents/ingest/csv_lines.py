"""Lines of comma-separated values: the decoder ``csv``, and the values of CSV files.

CSV has no types. A value of a field with a declared type is read as one of that type; any other is a number or a truth
value if it is written as JSON writes it, or is a number that is not finite as programs write these, null if it is
empty, and text otherwise.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from astrocyte.schemas.catalog import FieldType
from astrocyte.schemas.contract import Contract
from astrocyte.schemas.errors import InvalidEvent, InvalidSettings
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.json.text import fraction, integer, loads
from astrocyte.schemas.values.single import number_of

__all__ = ["DELIMITERS", "CsvRow", "configure", "csv_rows", "row_reader"]

DELIMITERS: Final = (",", ";", "\t", "|")
"""The usual ones, the most frequent first."""
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_DIGITS: Final = re.compile(r"[ \t\r\n]*[+-]?[0-9]+[ \t\r\n]*", re.ASCII)
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-][0-9]+)", re.ASCII)
_NOT_FINITE: Final = re.compile(r"nan|NaN|NAN|[-+]?(?:[Ii]nf|INF|[Ii]nfinity)", re.ASCII)
"""As programs write them (``Nan`` is a name): in JSON they are numbers too, on which validators decide."""
_AS_TEXT: Final = frozenset({"key", "type", "event_id", "stream", "source_stream"})
_OPTIONS: Final = frozenset({"columns", "delimiter"})


def configure(contract: Contract, options: Mapping[str, Any]) -> Callable[[KafkaRecord], Any]:
    """Decoder of messages of one or more lines without a header. Raises InvalidSettings.

    Options: ``columns``, the names in order (default: the declared fields), and ``delimiter`` (default: a comma).
    """
    where = f"stream {contract.stream!r}: decoder 'csv'"
    odd = sorted(options.keys() - _OPTIONS)
    if odd:
        raise InvalidSettings(f"{where} has the option {odd[0]!r}; expected columns or delimiter")
    columns = options.get("columns")
    if columns is None and contract.declaration is not None:
        columns = list(contract.declaration.fields)
    if not isinstance(columns, list) or not columns or not all(isinstance(name, str) for name in columns):
        raise InvalidSettings(
            f"{where} needs the names of the columns: decoder: {{name: csv, columns: [timestamp, room, value]}}"
        )
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise InvalidSettings(f"{where}: several columns are called {twice!r}; give each a name of its own")
    delimiter = options.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise InvalidSettings(f"{where}: delimiter is {delimiter!r}; expected one character")
    read = row_reader(contract)

    def decode(record: KafkaRecord) -> list[dict[str, Any]]:
        if record.value is None:
            raise InvalidEvent("expected lines of CSV, got a message without a value (a tombstone)")
        try:
            text = record.value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidEvent(
                f"expected CSV in UTF-8, got the byte 0x{record.value[error.start]:02x} at {error.start}"
            ) from None
        lines = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        try:
            rows = [(number, line) for number, line in enumerate(lines, 1) if line]
        except csv.Error as error:
            raise InvalidEvent(f"line {max(1, lines.line_num)}: {_reason_of(error)}") from None
        if not rows:
            raise InvalidEvent(f"expected lines of CSV, got a message of {len(record.value)} bytes without any")
        return [read(columns, line, number) for number, line in rows]

    return decode


def _reason_of(error: csv.Error) -> str:
    """What is wrong with a line, in words that say what to look for."""
    return "a quotation mark is not closed" if "end of data" in str(error) else f"not CSV: {error}"


class CsvRow(NamedTuple):
    """One row of a CSV file: the number of its first line, its text, and its values or the reason why it has none."""

    number: int
    text: str
    values: list[str]
    reason: str | None = None


def csv_rows(lines: Iterable[str], delimiter: str) -> Iterator[CsvRow]:
    """The rows of lines with their line ends, without blank ones.

    A line with a wrong quote is a row without values. Those that the quote made part of it are read for themselves.
    """
    numbered = iter(enumerate(lines, 1))
    again: deque[tuple[int, str]] = deque()
    taken: list[tuple[int, str]] = []

    def feed() -> Iterator[str]:
        while True:
            found = again.popleft() if again else next(numbered, None)
            if found is None:
                return
            taken.append(found)
            yield found[1]

    while True:
        taken.clear()
        try:
            values = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield CsvRow(taken[0][0], taken[0][1].rstrip("\r\n"), [], _reason_of(error))
            continue
        if values is None:
            return
        text = "".join(line for _, line in taken).rstrip("\r\n")
        if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
            yield CsvRow(taken[0][0], text, [], "not text in UTF-8")
        elif values:
            yield CsvRow(taken[0][0], text, values)


def row_reader(contract: Contract) -> Callable[[Sequence[str], Sequence[str], int], dict[str, Any]]:
    """Function of column names, values and the number of their line, which gives the event as JSON would hold it.

    It raises InvalidEvent for another number of values than of columns.
    """
    types = dict(contract.event_type.fields) if contract.event_type is not None else {}
    as_text = set(_AS_TEXT)
    if contract.declaration is not None:
        declaration = contract.declaration
        types |= {
            field.path or name: field.type for name, field in declaration.fields.items() if field.type is not None
        }
        as_text |= {declaration.id or "event_id"} - types.keys()

    def read(columns: Sequence[str], values: Sequence[str], number: int) -> dict[str, Any]:
        if len(values) != len(columns):
            raise InvalidEvent(f"line {number} has {len(values)} values; expected {len(columns)}: {', '.join(columns)}")
        return {
            name: (value or None) if name in as_text else _value(value, types.get(name))
            for name, value in zip(columns, values, strict=True)
        }

    return read


def _value(text: str, kind: FieldType | None) -> Any:
    """The value that text stands for; text that is not of the type stays text, which its type then refuses."""
    if text == "":
        return None
    if kind == "string":
        return text
    if kind in ("bool", None) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in ("int64", "int32"):
        if not _DIGITS.fullmatch(text):
            # As in JSON: 5.0 is the integer 5, and the type refuses a fraction.
            return fraction(text) if _DECIMAL.fullmatch(text) else _value(text, "float64")
        whole = number_of(text, whole=True)
        return text if whole is None else whole  # beyond 64 bits
    if kind in ("float64", "float32"):
        number = number_of(text, whole=False)
        if number is not None:
            return number
    if kind is None and _INTEGER.fullmatch(text):
        return integer(text)
    if kind is None and _DECIMAL.fullmatch(text):
        return fraction(text)
    if kind in ("float64", "float32", None) and _NOT_FINITE.fullmatch(text):
        return float(text)
    if kind in ("json", "list<float32>"):
        try:
            return loads(text.encode())
        except ValueError:
            pass
    return text
