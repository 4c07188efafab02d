"""JSON records to frames and back, a whole chunk at a time.

What a record means is decided by `schemas.contract`; here its events become columns. Each value of an unlisted stream
keeps its own type, unless the stream declares one. A record that cannot be read is returned with its reason, so that
the caller accounts for it. Records are written with CloudEvents 1.0 attributes in the headers (Kafka binary mode).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.arrow.columns import field_name
from astrocyte.schemas.catalog import CATALOG, Catalog, FieldType, arrow_type
from astrocyte.schemas.contract import FRAME_ROW, Contract, envelope_of, needs_digits, read_event, read_frame_row
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import Ids, derived_id, format_ids, place_ids
from astrocyte.schemas.json.cloudevents import OWN_SOURCE, cloud_event, text_data
from astrocyte.schemas.json.columns import json_objects, json_values
from astrocyte.schemas.json.fast_reader import SIMULATION, uniform_columns
from astrocyte.schemas.json.flat_reader import flat_columns
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.json.parsed import Parsed, Refused, with_times
from astrocyte.schemas.json.text import has_long_fraction, loads, loads_exact
from astrocyte.schemas.json.types import Nulled, misfit_reason, misfits
from astrocyte.schemas.times import iso_from_us, iso_strings
from astrocyte.schemas.values import single
from astrocyte.schemas.values.mixed import TYPE_ERRORS, column_of, typed_column
from astrocyte.schemas.values.nested import NON_FINITE, non_finite_reasons, reasons_column

__all__ = [
    "CUT_HEADER",
    "JSON_CONTENT_TYPE",
    "LAP_HEADER",
    "LETTER_HEADER",
    "OFFSET_HEADER",
    "ROW_ALONE",
    "ROW_HEADER",
    "JsonRecord",
    "KafkaRecord",
    "RawRecord",
    "Refused",
    "ce_type",
    "cloud_headers",
    "first_offset",
    "frame_to_records",
    "is_retried",
    "read_body",
    "records_to_frame",
    "retried_rows",
]

JSON_CONTENT_TYPE: Final = "application/json"
LETTER_HEADER: Final = "astrocyte_letter"
"""First header of a message that was a dead letter and was sent again: the letter's id, or several with commas."""
OFFSET_HEADER: Final = "astrocyte_offset"
"""Second header of such a message: the offset at which it was first written, of the same topic and partition."""
ROW_HEADER: Final = "astrocyte_row"
"""Header of such a message where the letter was of one event among several: the numbers of the events that are meant,
divided by commas, since the others were used before; or `ROW_ALONE`, which the letter itself has."""
ROW_ALONE: Final = b"alone"
"""The message is one event, as a JSON record of Astrocyte or a frame of one row, and not what its producer sent."""
CUT_HEADER: Final = "astrocyte_cut"
"""First header of a dead letter that holds only the begin of its message: bytes of the value, and their hash."""
LAP_HEADER: Final = "astrocyte_lap"
"""Header of a message that a replay sent again: the number of the lap. Declared ids are other ones in each lap, while
the members of the event, by which streams may be joined, are as recorded."""
_VERSION: Final = ("ce_specversion", b"1.0")
_CONTENT: Final = ("content-type", JSON_CONTENT_TYPE.encode())
_US: Final = pa.timestamp("us", "UTC")


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
    columns = {field_name(name): column for name, column in columns.items()}
    times = frame.timestamps()
    keys, types = strings_of(frame.column("key")), strings_of(frame.column("type"))
    ids, strings = frame.id_strings(), iso_strings(times)
    kind = json_values(frame.column("type"))
    members: dict[str, pa.StringArray | str]
    if event_type is not None and event_type.envelope == "dna":
        if not frame.has_own_ids:  # an id that a producer set is kept as it is
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
    source = ("ce_source", f"{OWN_SOURCE}{frame.run}/{frame.stream}".encode())
    kinds = {name: ("ce_type", ce_type(frame.stream, name).encode()) for name in set(types)}
    return [
        JsonRecord(
            None if key is None else key.encode(),
            body,
            [_VERSION, ("ce_id", event_id.encode()), kinds[name], source, ("ce_time", text.encode()), _CONTENT],
        )
        for key, body, event_id, name, text in zip(keys, bodies, ids, types, strings, strict=True)
    ]


def ce_type(stream: str, kind: str) -> str:
    """Type of a CloudEvent: that of the event within its stream, which is not named twice."""
    return f"astrocyte.{stream}" if kind == stream else f"astrocyte.{stream}.{kind}"


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
    *,
    contract: Contract | None = None,
    envelope: str | None = None,
    nulled: list[Nulled] | None = None,
) -> tuple[Frame | None, list[int], list[Refused]]:
    """A frame of the readable records, the index of each of its rows in ``records``, and the refused records.

    ``contract`` says what is declared of the stream (default: what the catalog lists), ``envelope`` the form of the
    records (default: each is recognised by its members). ``nulled`` receives the values that became null because they
    were of another type than declared, by row.

    An event without an id gets one made of (topic, partition, offset), so that reading it again gives the same id, and
    the events of a partition sort as they were written. The frame's run and origin are empty: records of other programs
    have one watermark per partition.
    """
    contract = Contract(stream, None, catalog.find(stream)) if contract is None else contract
    event_type = contract.event_type
    plain = contract.declaration is None and envelope is None
    uniform = uniform_columns(records, event_type) if plain else None
    if uniform is not None and event_type is not None:
        return Frame.from_columns(stream, "", uniform, version=event_type.version), list(range(len(records))), []
    flat = flat_columns(records, contract.exact) if plain and event_type is None else None
    if flat is not None:
        flat["event_id"] = _binary(_offset_ids(topic, partition, records))
        return Frame.from_columns(stream, "", flat), list(range(len(records))), []
    parsed: list[Parsed] = []
    refused: list[Refused] = []
    for index, record in enumerate(records):
        try:
            parsed.append(_parse(index, record, contract, envelope))
        except (InvalidEvent, orjson.JSONDecodeError, UnicodeDecodeError) as error:
            refused.append(Refused(index, _reason(error)))
    parsed = with_times(parsed, [record.timestamp for record in records], refused)
    columns = _columns(parsed, contract, refused)
    if not parsed:
        return None, [], sorted(refused)
    if nulled is not None:
        nulled += (Nulled(row, *each) for row, item in enumerate(parsed) for each in (item.nulled or {}).items())
    default_type = contract.default_type
    ids = _offset_ids(topic, partition, [records[item.index] for item in parsed])
    event_id = _binary(ids)
    if any(item.event_id is not None for item in parsed):
        own = zip(parsed, format_ids(ids), strict=True)
        event_id = pa.array([text if item.event_id is None else item.event_id for item, text in own], pa.utf8())
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


def _offset_ids(topic: str, partition: int, records: Sequence[KafkaRecord]) -> Ids:
    """Ids of events without an id of their own."""
    return place_ids(topic, partition, np.array([first_offset(record) for record in records], np.int64))


def _binary(ids: Ids) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(ids), [None, pa.py_buffer(ids.astype(">u8").tobytes())]
    )


def first_offset(record: KafkaRecord) -> int:
    """Offset at which a message was first written, from which its events have their ids.

    It is that of the message itself, unless the message was a dead letter and was sent again.
    """
    if is_retried(record):
        for name, value in record.headers:
            if name == OFFSET_HEADER and value.isdigit():
                return int(value)
    return record.offset


def is_retried(record: KafkaRecord) -> bool:
    """Whether the message was a dead letter and was sent again."""
    return bool(record.headers) and record.headers[0][0] == LETTER_HEADER


def retried_rows(record: KafkaRecord) -> bytes | None:
    """What the `ROW_HEADER` of a message says that was a dead letter and was sent again; None without one."""
    return next((value for name, value in record.headers if name == ROW_HEADER), None) if is_retried(record) else None


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidEvent):
        return str(error)
    return f"not JSON in UTF-8: {error}"


def read_body(
    record: KafkaRecord, contract: Contract, envelope: str | None = None, *, exact: bool = False
) -> tuple[Mapping[str, Any], str | None]:
    """The object that a JSON record holds, and the envelope in which it holds an event where the headers decide it.

    ``exact``: with the digits that no float has, which what tells events apart needs. Raises InvalidEvent,
    JSONDecodeError and UnicodeDecodeError for a record that holds no object.
    """
    cloud = envelope in (None, "cloudevents")
    if record.value is None:
        found = cloud_event(record.headers, None, declared=envelope is not None) if cloud and record.headers else None
        if found is None:
            raise InvalidEvent("expected an event, got a message without a value (a tombstone)")
        return found, "cloudevents"
    try:
        body = loads_exact(record.value) if exact else loads(record.value)
    except orjson.JSONDecodeError:
        text = text_data(record.headers, record.value) if cloud and record.headers else None
        if text is None:
            raise
        body = text
    if (
        cloud
        and record.headers
        and (envelope is not None or not isinstance(body, dict) or envelope_of(body, contract) == "json")
    ):
        found = cloud_event(record.headers, body, declared=envelope is not None)
        if found is not None:
            body, envelope = found, "cloudevents"
    if isinstance(body, list):
        raise InvalidEvent(
            f"expected a JSON object, got a JSON array of {len(body):,}; give each event a message or line of its own, "
            "or declare a decoder of your own that divides it"
        )
    if not isinstance(body, dict):
        raise InvalidEvent(f"expected a JSON object, got a JSON {type(body).__name__}")
    return body, envelope


def _parse(index: int, record: KafkaRecord, contract: Contract, stated: str | None) -> Parsed:
    body, envelope = read_body(record, contract, stated)
    if envelope == FRAME_ROW:
        event = read_frame_row(body, contract, key=None if record.key is None else record.key.decode())
    else:
        event = read_event(body, contract, key=_key(record, contract), envelope=envelope)
        if has_long_fraction(record.value or b"") and needs_digits(event, contract):
            time, (body, envelope) = event.time, read_body(record, contract, stated, exact=True)
            event = read_event(body, contract, key=_key(record, contract), envelope=envelope)
            event.time = time
        if event.event_id is not None and record.headers and contract.has_declared_id:
            event.event_id = _id_of_lap(event.event_id, record)
    return Parsed(index, event.event_id, event.time, event.type, event.key, event.fields, event.unit)


def _id_of_lap(event_id: str, record: KafkaRecord) -> str:
    lap = next((value for name, value in record.headers if name == LAP_HEADER and value), None)
    return event_id if lap is None else derived_id(event_id, "lap", bytes(lap).decode("utf-8", "replace"))


def _key(record: KafkaRecord, contract: Contract) -> str | None:
    return None if record.key is None else key_text(record.key, contract.reading)


def _columns(parsed: list[Parsed], contract: Contract, refused: list[Refused]) -> dict[str, pa.Array]:
    """Columns of the fields; records whose fields do not fit the listed or declared types move to ``refused``."""
    types = _types(contract)
    names = dict.fromkeys(types)
    if contract.event_type is None:
        names |= dict.fromkeys(name for item in parsed for name in item.fields)
    columns: dict[str, pa.Array] = {}
    while True:
        reasons: dict[int, str] = {}
        try:
            for name in names:
                values = [item.fields.get(name) for item in parsed]
                columns[name] = typed_column(values, arrow_type(types[name])) if name in types else column_of(values)
                if types.get(name) != "list<float32>":
                    reasons = non_finite_reasons(field_name(name), values) | reasons
        except TYPE_ERRORS:
            if not _mend_types(parsed, contract, types, refused):
                raise
            continue
        if reasons:
            columns[NON_FINITE] = reasons_column(reasons, len(parsed))
        return columns | _simulations(parsed, contract)


def _simulations(parsed: list[Parsed], contract: Contract) -> dict[str, pa.Array]:
    """The simulation of each event of a listed stream, where events name one: the stream's key, or a field.

    Frames carry it as their run; it is what the tables of the stores are divided by.
    """
    event_type = contract.event_type
    if event_type is None or SIMULATION in event_type.fields:
        return {}
    by_key = contract.key_field == SIMULATION
    values = [item.key if by_key else single.key_text(item.fields.get(SIMULATION)) for item in parsed]
    if all(value is None for value in values):
        return {}
    return {SIMULATION: typed_column(values, arrow_type("string"))}


def _types(contract: Contract) -> dict[str, FieldType]:
    """Types of the fields by column: those of the catalog, and those of the declaration, which win."""
    types = dict(contract.event_type.fields) if contract.event_type is not None else {}
    if contract.declaration is not None:
        types |= contract.declaration.column_types
    return types


def _mend_types(
    parsed: list[Parsed], contract: Contract, types: Mapping[str, FieldType], refused: list[Refused]
) -> bool:
    """Refuse records whose values are of another type, or make these null as declared; False if all values fit."""
    mended = False
    kept = []
    nullable = contract.null_on_type_error
    for item in parsed:
        bad = misfits(item.fields, types)
        mended = mended or bool(bad)
        if not nullable.issuperset(bad):
            refused.append(Refused(item.index, misfit_reason(item.fields, bad, types)))
            continue
        if bad:
            item.nulled = {field_name(name): misfit_reason(item.fields, [name], types) for name in bad}
            item.fields = item.fields | dict.fromkeys(bad)
        kept.append(item)
    parsed[:] = kept
    return mended
