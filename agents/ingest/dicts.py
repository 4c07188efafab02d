"""Events as plain mappings, for programs without frames: conversion to frames, or of one event at a time.

An event has ``stream`` (or ``source_stream``, as in a mono event), ``timestamp`` (integer microseconds, ISO 8601 text
or a datetime), ``key``, ``type`` and its fields, and optionally ``event_id``. Entries of ``metadata`` count as fields.
What a mapping means is decided by `schemas.contract`, as for a JSON record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.ingest.declared import UnreadableEvent, conforming
from astrocyte.schemas.arrow.columns import TEXT, field_name
from astrocyte.schemas.catalog import FieldType, arrow_type
from astrocyte.schemas.contract import ENVELOPES, Contracts, envelope_of, read_event
from astrocyte.schemas.declarations import StreamDeclaration
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US
from astrocyte.schemas.times import time_us as read_time
from astrocyte.schemas.values import mixed, single
from astrocyte.schemas.values.nested import NON_FINITE, non_finite_reasons

__all__ = [
    "carried",
    "check_names",
    "column_of",
    "frame_of",
    "frames_of",
    "is_plain",
    "normalised",
    "read_events",
    "time_of",
]

_UNDECLARED: Final = Contracts()
_FAULTS: Final = (InvalidEvent, TypeError, ValueError, OverflowError, RecursionError)
"""What reading an event's values raises; Arrow's errors are of these types too."""
_READY: Final = frozenset({float, bool, type(None)})


def time_of(value: Any) -> int:
    """Microseconds since 1970 of an event's ``timestamp``: whole numbers are microseconds. Raises InvalidEvent."""
    if type(value) is int and NEVER_US < value < -NEVER_US:
        return value
    if isinstance(value, float | np.floating):  # `time.time()` has seconds: read as microseconds it would be 1970
        raise InvalidEvent(
            f"timestamp {value!r} of type {type(value).__name__}; expected integer microseconds since 1970 (UTC), "
            "ISO 8601 text or a datetime"
        )
    return read_time(value, "us")


def normalised(
    event: Mapping[str, Any], streams: Sequence[str], contracts: Contracts | None = None
) -> tuple[str, dict[str, Any]]:
    """Stream and row (by column name, ``timestamp`` in microseconds) of one event; ``streams`` are the known streams.

    The event is what the same mapping is as a JSON record (`schemas.contract`), except that a whole number as time is
    in microseconds where nothing declares its unit. An event without a stream belongs to the only known one. Raises
    UnreadableEvent for an event of a stream that cannot be used, and InvalidEvent for one that names no stream.
    """
    stream = _stream_named(event, streams)
    try:
        return stream, _row_of(event, stream, contracts or _UNDECLARED)
    except UnreadableEvent:
        raise
    except _FAULTS as error:
        raise UnreadableEvent(str(error), stream, event) from error


def _row_of(event: Mapping[str, Any], stream: str, contracts: Contracts) -> dict[str, Any]:
    check_names(event)
    contract = contracts.of_stream(stream)
    envelope = contract.decoder if contract.decoder in ENVELOPES else envelope_of(event, contract)
    found = read_event(event, contract, envelope=envelope)
    if found.time is None:
        raise InvalidEvent(f"event {event!r} has no timestamp; add integer microseconds, ISO 8601 text or a datetime")
    declaration = contract.declaration
    plain = envelope in ("json", "mono") and (declaration is None or declaration.time is None)
    time_us = time_of(found.time) if plain else read_time(found.time, found.unit)
    row: dict[str, Any] = {**found.fields, "timestamp": time_us}
    row["type"] = contract.default_type if found.type is None else found.type
    if found.key is not None:
        row["key"] = found.key
    if found.event_id is not None:
        row["event_id"] = found.event_id
    types: Mapping[str, FieldType] = {}
    if declaration is not None:
        for name in contract.exact_columns.intersection(row):
            if type(row[name]) not in _READY and type(row[name]) is not int:  # integers are as in JSON
                row[name] = single.distinguishing(row[name])
        row.update(conforming(row, declaration, stream))
        types = declaration.column_types
    check_names(row)
    reasons: dict[int, str] = {}
    for name, value in row.items():
        if type(value) not in _READY:
            if name not in types:
                row[name] = carried(field_name(name), value)
            if types.get(name) != "list<float32>":
                reasons = reasons or non_finite_reasons(field_name(name), (value,))
    if reasons:
        row[NON_FINITE] = reasons[0]
    return row


def check_names(fields: Mapping[Any, Any]) -> None:
    """Raise InvalidEvent for a member whose name is no text."""
    for name in fields:
        if type(name) is not str and not isinstance(name, str):
            raise InvalidEvent(f"field name {name!r} of type {type(name).__name__}; expected text")
        if not name.isascii():
            _check_text(f"field name {name!r}", name)


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{what} holds half a character (a lone surrogate), which is no text: {error}") from error


def carried(name: str, value: Any) -> Any:
    """A value as events carry it (`schemas.values.single.plain`). Raises InvalidEvent, naming the field."""
    if type(value) in _READY:
        return value
    try:
        value = value if isinstance(value, str) else single.plain(value)
    except _FAULTS as error:
        raise InvalidEvent(f"field {name!r} cannot be read: {error}") from error
    if isinstance(value, str) and not value.isascii():
        _check_text(f"field {name!r}", value)
    return value


def is_plain(event: Mapping[str, Any], stream: str, contracts: Contracts) -> bool:
    """Whether an event of a stream is a row already: `normalised` would change nothing."""
    return (
        stream not in contracts.declared
        and type(event.get("timestamp")) is int
        and "key" in event
        and (event["key"] is None or type(event["key"]) is str)
        and type(event.get("type")) is str
        and "metadata" not in event
        and "source_stream" not in event
        and "seq" not in event
        and (event.get("event_id") is None or type(event["event_id"]) is str)
        and all(type(name) is str and name.isascii() for name in event)
        and all(single.distinguishing(event.get(name)) is event.get(name) for name in contracts.exact.get(stream, ()))
    )


def _stream_named(event: Mapping[str, Any], streams: Sequence[str]) -> str:
    """Stream of an event: the one that it names, else the only known one. Raises InvalidEvent."""
    stream = event.get("stream")
    if isinstance(stream, str):
        return stream
    source = event.get("source_stream")
    if isinstance(source, str):
        return source.removeprefix("stream:")
    if len(streams) != 1:
        raise InvalidEvent(f"event {event!r} names no stream; add stream: one of {', '.join(streams) or 'none'}")
    return streams[0]


def frames_of(
    events: Iterable[Mapping[str, Any] | Frame], streams: Sequence[str], *, contracts: Contracts | None = None
) -> list[Frame]:
    """Frames of the events, as `read_events` gives them to an engine that has seen none. Raises InvalidEvent."""
    return [frame for frame, _ in read_events(events, streams, numbers={}, contracts=contracts)]


def read_events(
    events: Iterable[Mapping[str, Any] | Frame],
    streams: Sequence[str],
    *,
    numbers: dict[str, int],
    contracts: Contracts | None = None,
    on_refused: Callable[[UnreadableEvent], None] | None = None,
) -> list[tuple[Frame, bool]]:
    """Frames of the events, and whether each was given as a frame; mappings are grouped by stream.

    Events without an id, and rows of frames without a run and ids, are numbered within their stream in the order of
    the events. ``numbers`` holds the next number of each stream, and is advanced. ``on_refused`` is called for an
    event of a stream that cannot be used. Raises InvalidEvent.
    """
    frames: list[tuple[Frame, bool]] = []
    rows: dict[str, list[dict[str, Any]]] = {}

    def close(stream: str) -> None:
        found = rows.pop(stream, [])
        given = [row for row in found if row.get("event_id") is not None]
        own = [row for row in found if row.get("event_id") is None]
        declaration = None if contracts is None else contracts.declared.get(stream)
        for part in (own, given):
            if part:
                first_seq = numbers.get(stream, 0)
                frames.append((frame_of(stream, part, first_seq=first_seq, declaration=declaration), False))
        if own:
            numbers[stream] = numbers.get(stream, 0) + len(own)

    for event in events:
        if isinstance(event, Frame):
            frame = event
            if not frame.is_identified:
                close(frame.stream)
                first_seq = numbers.get(frame.stream, 0)
                numbers[frame.stream] = first_seq + frame.num_rows
                frame = frame.numbered(first_seq)
            frames.append((frame, True))
            continue
        if not isinstance(event, Mapping):
            raise InvalidEvent(f"expected an event (a mapping) or a Frame, got {type(event).__name__} {event!r}")
        try:
            stream, fields = normalised(event, streams, contracts)
        except UnreadableEvent as unreadable:
            if on_refused is None:
                raise
            on_refused(unreadable)
            continue
        rows.setdefault(stream, []).append(fields)
    for stream in list(rows):
        close(stream)
    return frames


def frame_of(
    stream: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    run: str = "",
    first_seq: int = 0,
    declaration: StreamDeclaration | None = None,
) -> Frame:
    """Frame of flat rows of one stream. Raises InvalidEvent for text with a lone surrogate."""
    types = {} if declaration is None else declaration.column_types
    names = dict.fromkeys(name for row in rows for name in row) | dict.fromkeys(types)
    if "event_id" in names and all(row.get("event_id") is None for row in rows):
        del names["event_id"]
    columns: dict[str, Any] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if name in ("key", "type"):
            text = single.key_text if name == "key" else single.json_text
            absent = stream if name == "type" else None
            values = [absent if value is None else text(value) for value in values]
            columns[name] = mixed.key_column(column_of(stream, name, values))
        elif name in types:
            columns[name] = mixed.typed_column(values, arrow_type(types[name]))
        elif name == "timestamp":
            columns[name] = np.array(values, np.int64)
        elif name == "event_id":
            columns[name] = column_of(stream, name, [None if value is None else str(value) for value in values])
        else:
            columns[name] = column_of(stream, name, values)
    columns.setdefault("key", pa.array([None] * len(rows), pa.utf8()).dictionary_encode().cast(TEXT))
    return Frame.from_columns(stream, run, columns, first_seq=first_seq)


def column_of(stream: str, name: str, values: list[Any]) -> pa.Array:
    """Column of a field's values, each of its own type. Raises InvalidEvent for text with a lone surrogate."""
    try:
        return mixed.column_of(values)
    except (pa.ArrowException, UnicodeError, TypeError, ValueError) as error:
        raise InvalidEvent(f"field {name!r} of stream {stream!r} cannot be read: {error}") from error
