"""Moving recorded events in time, to another stream, and over another number of partitions.

The original time is kept in the headers as CloudEvents extension attributes: ``ce_originaltime`` (for a frame, that of
its first row) and ``ce_timeshift``, the total shift in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.pipeline.kafka.record import ConsumedRecord, Headers, is_frame
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent, InvalidSettings
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import derived_id
from astrocyte.schemas.json.text import dumps, loads
from astrocyte.schemas.partitioning import partition_of, split_by_partition
from astrocyte.schemas.times import (
    CEILING_US,
    TIME_NAMES,
    are_event_times,
    is_in_calendar,
    iso_from_us,
    time_us,
    unit_of,
)
from astrocyte.schemas.topics import TRUTH

__all__ = ["Shift", "first_event_us", "rename_stream", "repartition", "shift_record"]

_MOST_US: Final = 2**62
"""Greatest shift: a sum of two such numbers is still a time."""
_SECONDS_FIELDS: Final = ("created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift of event times and Kafka's times; from the second ``lap`` on, events get new ids."""

    event_us: int = 0
    kafka_ms: int = 0
    lap: int = 1

    def __post_init__(self) -> None:
        if abs(self.event_us) > _MOST_US or abs(self.kafka_ms) > _MOST_US:
            raise InvalidSettings(f"shift of {self.event_us} us; expected less than 146,000 years")


def shift_record(record: ConsumedRecord, shift: Shift) -> ConsumedRecord:
    """The message with its event times shifted: a frame's rows and watermark, a JSON record's time.

    A later lap gets its own ids, else its events would count as duplicates of the first. A message that holds no
    event keeps its bytes.
    """
    stamped = record
    if record.timestamp_ms >= 0:
        stamped = record._replace(timestamp_ms=record.timestamp_ms + shift.kafka_ms)
    if record.value is None:
        return stamped
    if is_frame(record):
        try:
            frame = decode_frame(record.value)
        except AstrocyteError:
            return stamped
        original = int(frame.timestamps()[0]) if frame.num_rows else None
        value = encode_frame(_shift_frame(frame, shift))
        return stamped._replace(value=value, headers=_headers(record.headers, shift, original))
    try:
        body = loads(record.value)
    except orjson.JSONDecodeError:
        return stamped
    if not isinstance(body, dict):
        return stamped
    original = _shift_body(body, shift)
    return stamped._replace(value=dumps(body), headers=_headers(record.headers, shift, original))


def first_event_us(record: ConsumedRecord) -> int | None:
    """Least event time in the message between 1970 and 2100, or None where it holds no event of such a time."""
    if record.value is None:
        return None
    try:
        if is_frame(record):
            times = decode_frame(record.value).timestamps()
            times = times[are_event_times(times)]
            return int(times.min()) if len(times) else None
        body = loads(record.value)
    except (AstrocyteError, orjson.JSONDecodeError):
        return None
    if not isinstance(body, dict):
        return None
    found = next((_time_us(body[name]) for name in TIME_NAMES if body.get(name) is not None), None)
    return found if found is not None and 0 <= found < CEILING_US else None


def repartition(record: ConsumedRecord, recorded: int, count: int) -> list[ConsumedRecord]:
    """The message divided over ``count`` partitions by its keys, as Kafka's default partitioner does.

    A frame is split into one for each partition. Each of the ``recorded`` partitions remains a separate origin with
    its own watermarks: rows of another partition that are replayed later would be late for a shared one.
    """
    if is_frame(record):
        assert record.value is not None
        try:
            frame = decode_frame(record.value)
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
            frame = decode_frame(record.value)
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


def _shift_body(body: dict[str, Any], shift: Shift) -> int | None:
    """Shift the times of a JSON record in place; returns the original event time in microseconds."""
    original = None
    name = next((name for name in TIME_NAMES if body.get(name) is not None), None)
    if name is not None:
        original = _time_us(body[name])
        body[name] = _moved(body[name], shift.event_us)
    details = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
    if details and body.get("source_stream") == f"stream:{TRUTH}" and isinstance(details.get("until"), int):
        details["until"] += shift.event_us
    payload = body.get("payload")
    if isinstance(payload, dict) and "meta" in body:
        for field in _SECONDS_FIELDS:
            if isinstance(payload.get(field), int | float):
                payload[field] += shift.event_us / 1e6
    if isinstance(body.get("lineage"), dict):
        for entry in body["lineage"].values():
            _shift_entry(entry, shift)
    if shift.lap > 1:
        for field in ("event_id", "id", "alert_id", "multi_event_id"):
            if isinstance(body.get(field), str):
                body[field] = _lap_id(body[field], shift.lap)
        if isinstance(body.get("source_events"), list):
            body["source_events"] = [_lap_id(str(text), shift.lap) for text in body["source_events"]]
    return original


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


def _time_us(value: Any) -> int | None:
    try:
        return time_us(value)
    except InvalidEvent:
        return None


def _moved(value: Any, shift_us: int) -> Any:
    """The shifted time in its original form and unit; what is no time, or would be none of the calendar, as it is."""
    original = _time_us(value)
    if original is None or not is_in_calendar(original + shift_us):
        return value
    if isinstance(value, str):
        number = _number(value)
        return iso_from_us(original + shift_us) if number is None else str(_moved(number, shift_us))
    unit = unit_of(value)
    if unit == "ns":
        return value + shift_us * 1000
    scale = {"s": 1_000_000, "ms": 1000}.get(unit or "us", 1)
    moved = original + shift_us
    return moved // scale if isinstance(value, int) and moved % scale == 0 else moved / scale


def _number(text: str) -> int | float | None:
    """Number in quotes; None for ISO 8601 text, of which a date of eight digits is one."""
    try:
        return None if len(text) == 8 else int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return None


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
    return tuple(moved)
