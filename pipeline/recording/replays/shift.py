"""Moving recorded events in time, to another stream, and over another number of partitions.

The original time is kept in the headers as CloudEvents extension attributes: ``ce_originaltime`` (for a frame, that of
its first row) and ``ce_timeshift``, the total shift in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.pipeline.kafka.record import ConsumedRecord, Headers, is_frame
from astrocyte.schemas.contract import Contract, Contracts, envelope_of, is_uuid, time_member
from astrocyte.schemas.declarations import DEBEZIUM
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent, InvalidSettings
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import derived_id
from astrocyte.schemas.json.reader import LAP_HEADER
from astrocyte.schemas.json.text import dumps, loads
from astrocyte.schemas.partitioning import partition_of, split_by_partition
from astrocyte.schemas.times import (
    CEILING_US,
    PER_UNIT,
    TimeUnit,
    are_event_times,
    is_in_calendar,
    iso_from_us,
    time_us,
    unit_of,
)
from astrocyte.schemas.topics import TRUTH

__all__ = ["Shift", "event_bounds_us", "first_event_us", "rename_stream", "repartition", "shift_record", "whole_us"]

_MOST_US: Final = 2**62
"""Greatest shift: a sum of two such numbers is still a time."""
_INSIDE: Final = ("after", "before", "data", "payload", "metadata")
"""Members of envelopes whose own members are fields of the event."""
_SECONDS_FIELDS: Final = ("created_at", "updated_at")
_UNDECLARED: Final = Contracts()


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift of event times and Kafka's times; from the second ``lap`` on, events get new ids."""

    event_us: int = 0
    kafka_ms: int = 0
    lap: int = 1

    def __post_init__(self) -> None:
        if abs(self.event_us) > _MOST_US or abs(self.kafka_ms) > _MOST_US:
            raise InvalidSettings(f"shift of {self.event_us} us; expected less than 146,000 years")


def shift_record(record: ConsumedRecord, shift: Shift, contract: Contract | None = None) -> ConsumedRecord:
    """The message with its event times shifted: a frame's rows and watermark, a JSON record's time.

    The time is the member that the ``contract`` of its stream declares, and the one that is read without a declaration.
    A later lap gets its own ids, else its events would count as duplicates of the first: those that the message itself
    marks as such are rewritten, and for declared ones it gets the header `LAP_HEADER`. A message that is no JSON object
    keeps its bytes.
    """
    contract = contract or _UNDECLARED.of_topic(record.topic)
    stamped = record
    if record.timestamp_ms >= 0:
        stamped = record._replace(timestamp_ms=record.timestamp_ms + shift.kafka_ms)
    if record.value is None:
        return stamped
    if is_frame(record):
        try:
            frame = decode_frame(record.value, exact=None)
        except AstrocyteError:
            return stamped
        original = int(frame.timestamps()[0]) if frame.num_rows else None
        value = encode_frame(_shift_frame(frame, shift))
        return stamped._replace(value=value, headers=_headers(record.headers, shift, original))
    try:
        body = loads(record.value)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return stamped._replace(headers=_of_lap(record.headers, shift))
    original = _shift_body(body, shift, contract)
    return stamped._replace(value=dumps(body), headers=_headers(record.headers, shift, original))


def first_event_us(record: ConsumedRecord, contract: Contract | None = None) -> int | None:
    """Least event time in the message, as `event_bounds_us` has it."""
    bounds = event_bounds_us(record, contract)
    return None if bounds is None else bounds[0]


def event_bounds_us(record: ConsumedRecord, contract: Contract | None = None) -> tuple[int, int] | None:
    """Least and greatest event time in the message between 1970 and 2100, or None without an event of such a time.

    The time is that of `shift_record`, in microseconds.
    """
    if record.value is not None and is_frame(record):
        try:
            times = decode_frame(record.value).timestamps()
        except AstrocyteError:
            return None
        times = times[are_event_times(times)]
        return (int(times.min()), int(times.max())) if len(times) else None
    found = next((_time_us(holder[name], unit) for holder, name, unit in _times_of(record, contract)), None)
    return (found, found) if found is not None and 0 <= found < CEILING_US else None


def whole_us(record: ConsumedRecord, contract: Contract | None = None) -> int:
    """Microseconds by multiples of which the message can move so that its whole numbers stay whole.

    1,000,000 where an event time is a whole number of seconds, 1000 of milliseconds, otherwise 1.
    """
    if record.value is not None and is_frame(record):
        return 1
    coarsest = 1
    for holder, name, unit in _times_of(record, contract):
        value = holder[name]
        number = _number(value) if isinstance(value, str) else value
        if type(number) is int and _time_us(value, unit) is not None:
            coarsest = max(coarsest, PER_UNIT[unit or unit_of(number) or "us"][0])
    return coarsest


def _times_of(
    record: ConsumedRecord, contract: Contract | None
) -> Iterator[tuple[dict[str, Any], str, TimeUnit | None]]:
    try:
        body = None if record.value is None else loads(record.value)
    except orjson.JSONDecodeError:
        return
    if isinstance(body, dict):
        yield from _times(body, contract or _UNDECLARED.of_topic(record.topic))


def repartition(record: ConsumedRecord, recorded: int, count: int) -> list[ConsumedRecord]:
    """The message divided over ``count`` partitions by its keys, as Kafka's default partitioner does.

    A frame is split into one for each partition. Each of the ``recorded`` partitions remains a separate origin with
    its own watermarks: rows of another partition that are replayed later would be late for a shared one.
    """
    if is_frame(record):
        assert record.value is not None
        try:
            frame = decode_frame(record.value, exact=None)
            parts = split_by_partition(_as_origin(frame, record.partition, recorded), count)
        except AstrocyteError:
            pass
        else:
            return [record._replace(partition=number, value=encode_frame(part)) for number, part in parts]
    number = record.partition % count if record.key is None else partition_of(record.key, count)
    return [record._replace(partition=number)]


def rename_stream(record: ConsumedRecord, stream: str) -> ConsumedRecord:
    """The message as one of ``stream``: rules select by the stream, and a frame contains its name. Ids are kept."""
    if record.value is None:
        return record
    if is_frame(record):
        try:
            frame = decode_frame(record.value, exact=None)
        except AstrocyteError:
            return record
        batch = frame.batch
        if frame.num_rows and frame.run and batch.schema.get_field_index("event_id") < 0:
            frame = frame.with_ids(frame.ids())
        return record._replace(value=encode_frame(replace(frame, stream=stream)))
    try:
        body = loads(record.value)
    except orjson.JSONDecodeError:
        return record
    if not isinstance(body, dict) or "source_stream" not in body:
        return record
    return record._replace(value=dumps(body | {"source_stream": f"stream:{stream}"}))


def _as_origin(frame: Frame, partition: int, recorded: int) -> Frame:
    peers = frame.peers
    if peers:
        streams = dict.fromkeys((frame.stream, *(peer for peer in peers if "@" not in peer)))
        peers = tuple(f"{stream}@{frame.origin}/{number}" for stream in streams for number in range(recorded))
    return replace(frame, origin=f"{frame.origin}/{partition}", peers=peers)


def _shift_frame(frame: Frame, shift: Shift) -> Frame:
    batch = frame.batch
    before = frame.timestamps()
    moved = before + np.int64(shift.event_us)
    # A time at the end of 64 bits, which no reader accepts, stays where it is.
    times = pa.array(np.where((moved < before) == (shift.event_us < 0), moved, before))
    batch = batch.set_column(batch.schema.get_field_index("timestamp"), "timestamp", times)
    if frame.stream == TRUTH and "until" in frame.fields:
        moved = pc.add(frame.column("until"), pa.scalar(shift.event_us, pa.int64()))
        batch = batch.set_column(batch.schema.get_field_index("until"), "until", moved)
    for name in _SECONDS_FIELDS if frame.stream.startswith("dna.") else ():
        if name in frame.fields:
            moved = pc.add(frame.column(name), pa.scalar(shift.event_us / 1e6, pa.float64()))
            batch = batch.set_column(batch.schema.get_field_index(name), name, moved)
    run = frame.run
    if shift.lap > 1:
        run = f"{frame.run}.lap{shift.lap}" if frame.run else ""
        index = batch.schema.get_field_index("event_id")
        if index >= 0:
            ids = [_lap_id(text, shift.lap) for text in frame.id_strings()]
            batch = batch.set_column(index, "event_id", pa.array(ids, pa.utf8()))
    watermark = None if frame.watermark_us is None else frame.watermark_us + shift.event_us
    return replace(frame, batch=batch, run=run, watermark_us=watermark)


def _times(body: dict[str, Any], contract: Contract) -> Iterator[tuple[dict[str, Any], str, TimeUnit | None]]:
    """The event times in a JSON record, each as the object that holds it, its name there, and the stated unit.

    First those that are declared, then the one that is read without a declaration.
    """
    inner = body.get("payload")
    envelope = envelope_of(body, contract)
    is_change = envelope == DEBEZIUM
    outer = inner if is_change and isinstance(inner, dict) else body
    declared = None if contract.declaration is None else contract.declaration.time
    seen: set[tuple[int, str]] = set()
    if declared is not None:
        for holder, name in _places(outer, declared.field):
            seen.add((id(holder), name))
            yield holder, name, declared.unit
    if is_change:
        for each in (outer.get("source"), outer):
            if isinstance(each, dict) and each.get("ts_ms") and (id(each), "ts_ms") not in seen:
                yield each, "ts_ms", "ms"
        return
    data = body.get("data")
    read = data if envelope == "cloudevents" and time_member(body) is None and isinstance(data, dict) else body
    if (member := time_member(read)) is not None and (id(read), member) not in seen:
        yield read, member, None


def _places(outer: dict[str, Any], path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a path of a declaration leads: to a member, or to the field of its name inside an envelope."""
    if outer.get(path) is not None:
        yield outer, path
        return
    holder: Any = outer
    *names, last = path.split(".")
    for name in names:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if names and isinstance(holder, dict) and holder.get(last) is not None:
        yield holder, last
        return
    for name in _INSIDE:
        holder = outer.get(name)
        if isinstance(holder, dict) and holder.get(path) is not None:
            yield holder, path


def _shift_body(body: dict[str, Any], shift: Shift, contract: Contract) -> int | None:
    """Shift the times of a JSON record in place; returns the original event time in microseconds."""
    original = None
    for holder, name, unit in list(_times(body, contract)):
        original = _time_us(holder[name], unit) if original is None else original
        holder[name] = _moved(holder[name], shift.event_us, unit)
    details = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    if details and body.get("source_stream") == f"stream:{TRUTH}" and isinstance(details.get("until"), int):
        details["until"] += shift.event_us
    payload = body.get("payload")
    if isinstance(payload, dict) and "meta" in body:
        for field in _SECONDS_FIELDS:
            if isinstance(payload.get(field), int | float):
                payload[field] = _moved(payload[field], shift.event_us, "s")
    if isinstance(body.get("lineage"), dict):
        for entry in body["lineage"].values():
            _shift_entry(entry, shift)
    if shift.lap > 1:
        for field in _id_members(body, contract):
            if isinstance(body.get(field), str):
                body[field] = _lap_id(body[field], shift.lap)
        if isinstance(body.get("source_events"), list):
            body["source_events"] = [_lap_id(str(text), shift.lap) for text in body["source_events"]]
    return original


def _id_members(body: dict[str, Any], contract: Contract) -> Iterator[str]:
    """Members that are ids by the form of the record; of others, a code of events or a machine may be called so."""
    yield from ("alert_id", "multi_event_id")
    event_id = body.get("event_id")
    if "stream" in body or "source_stream" in body or (isinstance(event_id, str) and is_uuid(event_id)):
        yield "event_id"
    if envelope_of(body, contract) in ("dna", "cloudevents"):
        yield "id"


def _shift_entry(entry: Any, shift: Shift) -> None:
    if not isinstance(entry, dict):
        return
    if entry.get("timestamp") is not None:
        entry["timestamp"] = _moved(entry["timestamp"], shift.event_us)
    if shift.lap > 1 and isinstance(entry.get("event_id"), str):
        entry["event_id"] = _lap_id(entry["event_id"], shift.lap)
    for further in entry.get("also") or ():
        _shift_entry(further, shift)


def _lap_id(text: str, lap: int) -> str:
    return derived_id(text, "lap", str(lap))


def _time_us(value: Any, unit: TimeUnit | None = None) -> int | None:
    try:
        return time_us(value, unit)
    except InvalidEvent:
        return None


def _moved(value: Any, shift_us: int, unit: TimeUnit | None = None) -> Any:
    """The shifted time in its original form and unit; what is no time, or would be none of the calendar, as it is."""
    original = _time_us(value, unit)
    if original is None or not is_in_calendar(original + shift_us):
        return value
    if isinstance(value, str):
        number = _number(value)
        return iso_from_us(original + shift_us) if number is None else str(_moved(number, shift_us, unit))
    scale, divisor = PER_UNIT[unit or unit_of(value) or "us"]
    if divisor > 1:
        return value + shift_us * divisor
    moved = original + shift_us
    return moved // scale if isinstance(value, int) and moved % scale == 0 else moved / scale


def _number(text: str) -> int | float | None:
    """Number in quotes; None for ISO 8601 text, of which a date of eight digits is one."""
    try:
        return None if len(text) == 8 else int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return None


def _of_lap(headers: Headers, shift: Shift) -> Headers:
    """The headers with the number of a later lap; one of a lap that was recorded and is replayed has both numbers."""
    if shift.lap == 1:
        return headers
    before = next((value for name, value in headers if name == LAP_HEADER and value), None)
    lap = str(shift.lap).encode() if before is None else before + b"." + str(shift.lap).encode()
    return (*(each for each in headers if each[0] != LAP_HEADER), (LAP_HEADER, lap))


def _headers(headers: Headers, shift: Shift, original_us: int | None) -> Headers:
    kept = dict(headers)
    moved: list[tuple[str, bytes | None]] = []
    for name, value in headers:
        if name == "ce_time" and value is not None:
            moved.append((name, str(_moved(value.decode("utf-8", "replace"), shift.event_us)).encode()))
        elif name == "ce_id" and shift.lap > 1 and value is not None:
            moved.append((name, _lap_id(value.decode("utf-8", "replace"), shift.lap).encode()))
        elif name != "ce_timeshift":
            moved.append((name, value))
    if "ce_originaltime" not in kept and original_us is not None:
        moved.append(("ce_originaltime", iso_from_us(original_us).encode()))
    before = kept.get("ce_timeshift") or b"0"
    moved.append(
        ("ce_timeshift", str(int(before) + shift.event_us).encode() if before.lstrip(b"-").isdigit() else before)
    )
    return _of_lap(tuple(moved), shift)
