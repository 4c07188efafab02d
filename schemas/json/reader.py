"""JSON records to frames and back, a whole chunk at a time.

Three shapes are read: the mono event, the dna envelope, and any other flat JSON object that has a time
(docs/events.md); each value of an unlisted stream keeps its own type. A record that cannot be read is returned
with its reason, so that the caller accounts for it. CloudEvents 1.0 attributes are in the headers (Kafka binary mode).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.catalog import CATALOG, Catalog, EventType
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import RESERVED, Frame
from astrocyte.schemas.ids import format_ids, hash_ids
from astrocyte.schemas.json.columns import json_objects, json_values
from astrocyte.schemas.json.fast_reader import JSON_MONO_KEYS, uniform_columns
from astrocyte.schemas.mixed import LEAST, MOST, column_of, typed_column
from astrocyte.schemas.times import iso_from_us, iso_strings, us_from_iso

__all__ = [
    "JSON_CONTENT_TYPE",
    "JsonRecord",
    "KafkaRecord",
    "RawRecord",
    "Refused",
    "cloud_headers",
    "frame_to_records",
    "records_to_frame",
]

JSON_CONTENT_TYPE: Final = "application/json"
_TIME_NAMES: Final = ("timestamp", "time", "ts", "event_time")
_DNA_KEYS: Final = frozenset({"id", "type", "source", "target", "timestamp", "payload", "meta"})
_FLAT_KEYS: Final = frozenset({"event_id", "type", "metadata"})
_VERSION: Final = ("ce_specversion", b"1.0")
_CONTENT: Final = ("content-type", JSON_CONTENT_TYPE.encode())
_US: Final = pa.timestamp("us", "UTC")
_DIGITS: Final = 20
"""An integer of 64 bits has at most this many characters."""


class JsonRecord(NamedTuple):
    """One Kafka message: key, value and headers."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class KafkaRecord(Protocol):
    """One consumed Kafka message, of any client library."""

    @property
    def offset(self) -> int:
        """Offset in its partition."""

    @property
    def timestamp(self) -> int:
        """Timestamp of the Kafka message in milliseconds, used where the event has none."""

    @property
    def key(self) -> bytes | None:
        """Partitioning key."""

    @property
    def value(self) -> bytes | None:
        """A frame or JSON; None for a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """(name, value) of each header."""


class RawRecord(NamedTuple):
    """A `KafkaRecord` for messages that were read from a log or built by a program."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True, order=True)
class Refused:
    """A record that is not an event: its index in the chunk and the reason."""

    index: int
    reason: str


@dataclass(slots=True)
class _Parsed:
    """One readable record, flattened: reserved values, and the fields."""

    index: int
    event_id: str | None
    time: Any
    type: str | None
    key: str | None
    fields: dict[str, Any]


def cloud_headers(
    event_id: str, event_type: str, source: str, time_us: int, **extension: str
) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes as Kafka headers, with extension attributes (lower-case names) after them."""
    headers = [
        _VERSION,
        ("ce_id", event_id.encode()),
        ("ce_type", event_type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", iso_from_us(time_us).encode()),
        _CONTENT,
    ]
    headers += [(f"ce_{name}", value.encode()) for name, value in extension.items()]
    return headers


def frame_to_records(frame: Frame, catalog: Catalog = CATALOG) -> list[JsonRecord]:
    """One JSON record an event, in the shape that the catalog gives the stream (the mono event by default)."""
    event_type = catalog.find(frame.stream)
    columns: dict[str, pa.StringArray | str] = {
        name: json_values(frame.column(name), parsed=event_type is not None and event_type.fields.get(name) == "json")
        for name in frame.fields
    }
    times = frame.timestamps()
    keys, types = strings_of(frame.column("key")), strings_of(frame.column("type"))
    ids, strings = frame.id_strings(), iso_strings(times)
    kind = json_values(frame.column("type"))
    members: dict[str, pa.StringArray | str]
    if event_type is not None and event_type.envelope == "dna":
        stamps = zip((times // 1000).tolist(), ids, strict=True)
        ids = [f"evt_dna_{time_ms}_{text.replace('-', '')}" for time_ms, text in stamps]
        members = {
            "id": json_values(pa.array(ids, pa.utf8())),
            "type": kind,
            "source": '"dna_service"',
            "target": "null",
            "timestamp": json_values(pa.array(times / 1e6)),
            "payload": json_objects(columns, frame.num_rows),
            "meta": '{"correlation_id":null,"version":"1.0"}',
        }
    else:
        value = columns.pop("value", "null")
        key_name = event_type.key if event_type else "key"
        if key_name not in columns:
            columns[key_name] = json_values(frame.column("key"))
        members = {
            "event_id": json_values(pa.array(ids, pa.utf8())),
            "timestamp": json_values(pa.array(strings, pa.utf8())),
            "source_stream": orjson.dumps(f"stream:{frame.stream}").decode(),
            "type": kind,
            "value": value,
            "metadata": json_objects(columns, frame.num_rows),
        }
    bodies = pc.cast(json_objects(members, frame.num_rows), pa.binary()).to_pylist()
    # Rows share header objects: the fewer containers there are, the less the garbage collector has to traverse.
    source = ("ce_source", f"/astrocyte/{frame.run}/{frame.stream}".encode())
    kinds = {name: ("ce_type", f"astrocyte.{frame.stream}.{name}".encode()) for name in set(types)}
    return [
        JsonRecord(
            None if key is None else key.encode(),
            body,
            [_VERSION, ("ce_id", event_id.encode()), kinds[name], source, ("ce_time", text.encode()), _CONTENT],
        )
        for key, body, event_id, name, text in zip(keys, bodies, ids, types, strings, strict=True)
    ]


def strings_of(column: pa.DictionaryArray) -> list[Any]:
    """Values of a dictionary-encoded column; equal values are one object."""
    strings = [*column.dictionary.to_pylist(), None]
    return [strings[code] for code in column.indices.fill_null(len(strings) - 1).to_pylist()]


def records_to_frame(
    topic: str,
    partition: int,
    stream: str,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
) -> tuple[Frame | None, list[int], list[Refused]]:
    """A frame of the readable records, the index of each of its rows in ``records``, and the refused records.

    An event without an id gets the hash of (topic, partition, offset), so that reading it again gives the same id. The
    frame's run and origin are empty: records of other programs have one watermark per partition.
    """
    event_type = catalog.find(stream)
    uniform = uniform_columns(records, event_type)
    if uniform is not None and event_type is not None:
        return Frame.from_columns(stream, "", uniform, version=event_type.version), list(range(len(records))), []
    parsed: list[_Parsed] = []
    refused: list[Refused] = []
    for index, record in enumerate(records):
        try:
            parsed.append(_parse(index, record, event_type))
        except (InvalidEvent, orjson.JSONDecodeError, UnicodeDecodeError) as error:
            refused.append(Refused(index, _reason(error)))
    parsed = _with_times(parsed, records, refused)
    columns = _columns(parsed, event_type, refused)
    if not parsed:
        return None, [], sorted(refused)
    default_type = event_type.types[0] if event_type and len(event_type.types) == 1 else stream
    places = [str(records[item.index].offset) for item in parsed]
    ids = hash_ids((topic, str(partition)), places)
    if any(item.event_id is not None for item in parsed):
        own = zip(parsed, format_ids(ids), strict=True)
        event_id = pa.array([text if item.event_id is None else item.event_id for item, text in own], pa.utf8())
    else:
        event_id = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(ids), [None, pa.py_buffer(ids.astype(">u8").tobytes())]
        )
    frame = Frame.from_columns(
        stream,
        "",
        {
            "timestamp": np.array([item.time for item in parsed], np.int64),
            "key": pa.array([item.key for item in parsed], pa.utf8()),
            "type": pa.array([default_type if item.type is None else item.type for item in parsed], pa.utf8()),
            **columns,
            "event_id": event_id,
        },
        version=event_type.version if event_type else 1,
    )
    return frame, [item.index for item in parsed], sorted(refused)


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidEvent):
        return str(error)
    return f"not JSON in UTF-8: {error}"


def _parse(index: int, record: KafkaRecord, event_type: EventType | None) -> _Parsed:
    if record.value is None:
        raise InvalidEvent("expected an event, got a message without a value (a tombstone)")
    body = _loads(record.value)
    if not isinstance(body, dict):
        raise InvalidEvent(f"expected a JSON object, got a JSON {type(body).__name__}")
    if "source_stream" in body:
        envelope = JSON_MONO_KEYS - {"value"}
    elif "payload" in body and "meta" in body:
        envelope = _DNA_KEYS
    else:
        envelope = _FLAT_KEYS
    time_name = next((name for name in _TIME_NAMES if body.get(name) is not None), None)
    fields = {name: value for name, value in body.items() if name not in envelope and name not in _TIME_NAMES[:1]}
    if time_name is not None:
        fields.pop(time_name, None)
    for part in ("metadata", "payload"):
        nested = body.get(part) if part in envelope else None
        if isinstance(nested, dict):
            fields.update(nested)
        elif nested is not None:
            raise InvalidEvent(f"{part!r} is {nested!r}; expected a JSON object")
    event_id = body.get("event_id", body.get("id") if envelope is _DNA_KEYS else None)
    kind = body.get("type")
    if kind is not None and not isinstance(kind, str):
        raise InvalidEvent(f"'type' is {kind!r}; expected a string")
    time = None if time_name is None else body[time_name]
    key_name = event_type.key if event_type else "key"
    if record.key is not None:
        key: str | None = record.key.decode()
    else:
        given = fields.get(key_name)
        key = None if given is None else str(given)
    if event_type is None or key_name not in event_type.fields:
        fields.pop(key_name, None)
    if fields.get("value", 0) is None and event_type is not None and "value" not in event_type.fields:
        del fields["value"]
    return _Parsed(index, None if event_id is None else str(event_id), time, kind, key, fields)


def _loads(value: bytes) -> Any:
    """JSON, in which NaN and Infinity stand for these numbers, as many writers have it; validators decide on them."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        if b"NaN" not in value and b"Infinity" not in value:
            raise
        try:
            body = json.loads(value, parse_int=_integer)
            orjson.dumps(body)  # refuses lone surrogates, which the parser above lets through
        except (ValueError, TypeError, RecursionError):
            pass
        else:
            return body
        raise


def _integer(digits: str) -> int | float:
    number = int(digits) if len(digits) <= _DIGITS else float(digits)
    return number if LEAST <= number <= MOST else float(digits)


def _with_times(parsed: list[_Parsed], records: Sequence[KafkaRecord], refused: list[Refused]) -> list[_Parsed]:
    """Convert times to microseconds, strings in one pass; records whose time cannot be read move to ``refused``."""
    worded = [item for item in parsed if isinstance(item.time, str)]
    read: set[int] = set()
    if worded:
        try:
            values = pc.cast(pa.array([item.time for item in worded]), _US).cast(pa.int64()).to_pylist()
        except pa.ArrowInvalid:
            pass  # at least one needs the slower parser below, which also identifies an invalid one
        else:
            for item, value in zip(worded, values, strict=True):
                item.time = value
                read.add(item.index)
    kept = []
    for item in parsed:
        try:
            if item.index not in read:
                item.time = _time_us(item.time, records[item.index])
        except InvalidEvent as error:
            refused.append(Refused(item.index, str(error)))
        else:
            kept.append(item)
    return kept


def _time_us(time: Any, record: KafkaRecord) -> int:
    if time is None:
        return record.timestamp * 1000
    if isinstance(time, str):
        try:
            return us_from_iso(time)
        except ValueError:
            raise InvalidEvent(f"timestamp {time!r}; expected ISO 8601, such as 2025-09-28T10:30:00Z") from None
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise InvalidEvent(f"timestamp {time!r}; expected ISO 8601 text or a number")
    # Seconds, milliseconds and microseconds since 1970 do not overlap between the years 1973 and 5138.
    magnitude = abs(time)
    scale = 1_000_000 if magnitude < 1e11 else 1000 if magnitude < 1e14 else 1
    value = round(time * scale)
    if magnitude >= 1e17:
        raise InvalidEvent(f"timestamp {time!r} is after the year 5138; expected seconds, ms or us since 1970")
    return value


def _columns(parsed: list[_Parsed], event_type: EventType | None, refused: list[Refused]) -> dict[str, pa.Array]:
    """Columns of the fields; records whose fields do not fit the catalog's types move to ``refused``."""
    if event_type is None:
        names: Iterable[str] = dict.fromkeys(name for item in parsed for name in item.fields)
        # In a frame, columns with reserved names have another meaning, so the user's field is renamed.
        return {
            f"{name}_" if name in RESERVED else name: column_of([item.fields.get(name) for item in parsed])
            for name in names
        }
    while True:
        columns: dict[str, pa.Array] = {}
        try:
            for name, kind in _wanted(event_type):
                columns[name] = typed_column([item.fields.get(name) for item in parsed], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
            bad = [item for item in parsed if not _fits(item, event_type, refused)]
            if not bad:
                raise
            dropped = {id(item) for item in bad}
            parsed[:] = [item for item in parsed if id(item) not in dropped]
            continue
        return columns


def _wanted(event_type: EventType) -> list[tuple[str, pa.DataType]]:
    schema = event_type.arrow_schema()
    return [(field.name, field.type) for field in schema][3:]


def _fits(item: _Parsed, event_type: EventType, refused: list[Refused]) -> bool:
    for name, kind in _wanted(event_type):
        value = item.fields.get(name)
        try:
            typed_column([value], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
            wanted = event_type.fields[name]
            refused.append(Refused(item.index, f"field {name!r} is {value!r}; expected {wanted}"))
            return False
    return True
