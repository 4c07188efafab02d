"""Events as plain mappings, for programs without frames: conversion to frames, or of one event at a time.

An event has ``stream`` (or ``source_stream``, as in a mono event), ``timestamp`` (integer microseconds, ISO 8601 text
or a datetime), ``key``, ``type`` and its fields, and optionally ``event_id``. Entries of ``metadata`` count as fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.schemas import mixed
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import TEXT, Frame
from astrocyte.schemas.times import us_from_datetime, us_from_iso

__all__ = ["column_of", "frames_of", "normalised", "time_of"]

_ASIDE: Final = frozenset({"stream", "source_stream", "metadata", "timestamp"})


def time_of(value: Any) -> int:
    """Microseconds since 1970 of an event's ``timestamp``. Raises InvalidEvent."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return us_from_iso(value)
        except ValueError as error:
            raise InvalidEvent(f"timestamp {value!r}; expected ISO 8601 text: {error}") from error
    if isinstance(value, datetime):
        return us_from_datetime(value)
    if isinstance(value, np.integer):
        return int(value)
    raise InvalidEvent(
        f"timestamp {value!r} of type {type(value).__name__}; expected integer microseconds since 1970 (UTC), ISO 8601 "
        "text or a datetime"
    )


def normalised(event: Mapping[str, Any], streams: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Stream and flat fields (``timestamp`` in microseconds) of one event; ``streams`` are the known streams.

    An event without a stream belongs to the only known one. Raises InvalidEvent.
    """
    stream = event.get("stream")
    if stream is None:
        source = event.get("source_stream")
        stream = source.removeprefix("stream:") if isinstance(source, str) else None
    if stream is None:
        if len(streams) != 1:
            raise InvalidEvent(f"event {event!r} names no stream; add stream: one of {', '.join(streams) or 'none'}")
        stream = streams[0]
    if "timestamp" not in event:
        raise InvalidEvent(f"event {event!r} has no timestamp; add integer microseconds, ISO 8601 text or a datetime")
    fields = {name: value for name, value in event.items() if name not in _ASIDE}
    metadata = event.get("metadata")
    if isinstance(metadata, Mapping):
        fields = {**metadata, **fields}
    elif metadata is not None:
        fields["metadata"] = metadata
    fields["timestamp"] = time_of(event["timestamp"])
    return str(stream), fields


def frames_of(
    events: Iterable[Mapping[str, Any] | Frame],
    streams: Sequence[str],
    *,
    run: str = "",
    first_seq: Mapping[str, int] | None = None,
) -> list[Frame]:
    """Frames of the events, in their order, grouped by stream; frames are passed through.

    Events without ``event_id`` are numbered within their stream, in that order, from ``first_seq`` of the stream on
    (default 0). Raises InvalidEvent.
    """
    frames: list[Frame] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if isinstance(event, Frame):
            frames.append(event)
            continue
        if not isinstance(event, Mapping):
            raise InvalidEvent(f"expected an event (a mapping) or a Frame, got {type(event).__name__} {event!r}")
        stream, fields = normalised(event, streams)
        rows.setdefault(stream, []).append(fields)
    for stream, found in rows.items():
        given = [row for row in found if row.get("event_id") is not None]
        own = [row for row in found if row.get("event_id") is None]
        first = (first_seq or {}).get(stream, 0)
        frames += [frame_of(stream, part, run=run, first_seq=first) for part in (own, given) if part]
    return frames


def frame_of(stream: str, rows: Sequence[Mapping[str, Any]], *, run: str = "", first_seq: int = 0) -> Frame:
    """Frame of flat rows of one stream. Raises InvalidEvent for text with a lone surrogate."""
    names = dict.fromkeys(name for row in rows for name in row)
    if "event_id" in names and all(row.get("event_id") is None for row in rows):
        del names["event_id"]
    columns: dict[str, Any] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if name in ("key", "type"):
            columns[name] = column_of(stream, name, [mixed.key_text(value) for value in values])
            columns[name] = mixed.key_column(columns[name])
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
