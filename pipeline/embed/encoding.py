"""A program's event as the JSON record that goes to Kafka: checked and encoded at once, completed when it is sent.

Encoding at once keeps later changes of the mapping out of the event, and reports a bad event where it is made. Ids and
headers are added for many events together, off the caller's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from astrocyte.agents.ingest.dicts import carried, check_names, time_of
from astrocyte.schemas import contract
from astrocyte.schemas.catalog import CATALOG, Catalog, FieldType, arrow_type
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.ids import event_ids, format_ids
from astrocyte.schemas.json.cloudevents import OWN_SOURCE
from astrocyte.schemas.json.kafka_keys import key_text
from astrocyte.schemas.json.reader import JSON_CONTENT_TYPE, ce_type
from astrocyte.schemas.json.types import shown
from astrocyte.schemas.times import CEILING_US, TIME_NAMES, iso_from_us, iso_strings
from astrocyte.schemas.topics import MONO_PREFIX, MOST_CHARACTERS, SIMULATIONS, is_derived, is_legal, mono_topic
from astrocyte.schemas.values import mixed, single
from astrocyte.schemas.values.nested import first_non_finite

__all__ = ["MOST_BYTES", "EncodedEvent", "Message", "StreamEncoder", "messages_of"]

MOST_BYTES: Final = 900 << 10
"""Largest record in bytes: Kafka's default limit of a message is 1 MiB with its envelope."""

_NULL: Final = b"null"
_VERSION: Final = ("ce_specversion", b"1.0")
_CONTENT: Final = ("content-type", JSON_CONTENT_TYPE.encode())
_MONO: Final = b'{"event_id":%b,"timestamp":"%b","source_stream":%b,"type":%b,"value":%b,"metadata":%b}'
_DNA: Final = (
    b'{"id":%b,"type":%b,"source":"dna_service","target":null,"timestamp":%b,"payload":%b,'
    b'"meta":{"correlation_id":null,"version":"1.0"}}'
)
_RANGES: Final[Mapping[str, tuple[int, int]]] = {"int32": (-(2**31), 2**31), "int64": (-(2**63), 2**63)}
_NUMBERS: Final = (int, float)
_SURE: Final = frozenset({bool, type(None)})
"""Types whose values are written as they are; text may hold half a character, and an integer be too large."""
_FAULTS: Final = (TypeError, ValueError, OverflowError, RecursionError)
"""What reading and encoding a value raises, such as text with half a character, or a list that holds itself."""


class EncodedEvent(NamedTuple):
    """One accepted event. ``body`` is the JSON object of its fields, ``value`` the JSON of a mono event's value."""

    encoder: StreamEncoder
    seq: int
    time_us: int
    key: str | None
    type: str
    value: bytes
    body: bytes
    event_id: str | None

    @property
    def size(self) -> int:
        """Approximate bytes in memory and on the wire."""
        return len(self.body) + len(self.value) + 300


class Message(NamedTuple):
    """One Kafka message, and the number of its event."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    seq: int


class StreamEncoder:
    """Encodes the events of one stream, by what the catalog says of it. Raises InvalidEvent."""

    def __init__(self, stream: str, catalog: Catalog = CATALOG) -> None:
        if not isinstance(stream, str):
            raise InvalidEvent(f"stream {stream!r} of type {type(stream).__name__}; expected its name as text")
        self.stream = stream
        self.topic = mono_topic(stream)
        if not stream or not is_legal(self.topic):
            raise InvalidEvent(
                f"stream {stream!r}; expected letters, digits, '.', '_' and '-', at most "
                f"{MOST_CHARACTERS - len(MONO_PREFIX)} of them"
            )
        if stream.startswith(MONO_PREFIX):
            raise InvalidEvent(
                f"stream {stream!r} is the name of a topic; give the stream alone, {stream.removeprefix(MONO_PREFIX)!r}"
            )
        if is_derived(stream) or stream == SIMULATIONS:
            raise InvalidEvent(
                f"stream {stream!r} has the name of a topic that the pipeline itself writes, by which consumers name "
                f"that topic; nobody would find its events in {self.topic!r}. Choose another name"
            )
        self.event_type = found = catalog.find(stream)
        self.dna = found is not None and found.envelope == "dna"
        known = contract.Contract(stream, None, found)
        self.key_field = known.key_field
        self.default_type = known.default_type
        self._types: Mapping[str, FieldType] | None = None if found is None else found.fields
        self._source = orjson.dumps(f"stream:{stream}")

    def encode(self, event: Mapping[str, Any], key: Any, seq: int) -> EncodedEvent:
        """One event from a mapping, which is read as docs/events.md says of events in Python.

        The default time is now, ``event_id`` is the event's id, and ``key`` wins over the mapping's own. Raises
        InvalidEvent for a value that no event has or that is not finite, and, on a stream of the catalog, for an
        unknown field or one of another type: no consumer could read these.
        """
        try:
            return self._encoded(event, key, seq)
        except _FAULTS as error:
            raise InvalidEvent(f"an event of stream {self.stream!r} cannot be encoded: {error}") from error

    def _encoded(self, event: Mapping[str, Any], key: Any, seq: int) -> EncodedEvent:
        fields, inner = self._fields(event)
        moment = _take_time(fields)
        kind = fields.pop("type", None)
        own = fields.pop("key", None)
        own_id = fields.pop("event_id", None)
        fields = {**inner, **fields} if inner else fields
        check_names(fields)
        key = self._key(key, own, fields)
        if self._types is not None:
            self._check_types(fields, key)
        for name, each in fields.items():
            if type(each) not in _SURE:
                fields[name] = _json_value(name, each)
        value = b"" if self.dna or "value" not in fields else orjson.dumps(fields.pop("value"))
        body = orjson.dumps(fields)
        if len(body) + len(value) > MOST_BYTES:
            raise InvalidEvent(
                f"an event of stream {self.stream!r} has {len(body) + len(value):,} bytes of JSON; expected at most "
                f"{MOST_BYTES:,}: split it, or store the data elsewhere and send a reference"
            )
        if own_id is not None and not (isinstance(own_id, str) and own_id):
            raise InvalidEvent(f"event_id {own_id!r}; expected text that no other event of the stream has")
        name = self.default_type if kind is None else single.json_text(kind)
        for text in (name, own_id):
            if text is not None and not text.isascii():
                text.encode()  # here and not in delivery, which would try the same event for ever
        return EncodedEvent(self, seq, moment, key, name, value or _NULL, body, own_id)

    def _key(self, stated: Any, own: Any, fields: Mapping[str, Any]) -> str | None:
        """The event's key: that of the call, else the mapping's, else the field that is the key of the stream."""
        given = next((each for each in (stated, own, fields.get(self.key_field)) if each is not None), None)
        try:
            key = single.key_text(given)
        except _FAULTS as error:
            raise InvalidEvent(
                f"key {shown(given)} of an event of stream {self.stream!r} cannot be read: {error}"
            ) from error
        if key is not None and not key.isprintable() and key_text(key.encode()) != key:
            raise InvalidEvent(f"key {key!r} has control characters, with which it is read as binary; expected text")
        return key

    def _fields(self, event: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """The members of a mapping, and those of its ``metadata``, which are fields whatever their names are."""
        if not isinstance(event, Mapping):
            raise InvalidEvent(f"expected the fields of an event as a mapping, got {type(event).__name__}")
        fields = dict(event)
        for name in ("stream", "source_stream"):
            if name in fields and fields[name] in (self.stream, f"stream:{self.stream}"):
                del fields[name]
        if isinstance(nested := fields.get("metadata"), Mapping):
            del fields["metadata"]
            return fields, nested
        return fields, {}

    def _check_types(self, fields: dict[str, Any], key: str | None) -> None:
        types = self._types
        assert types is not None
        for name, value in fields.items():
            kind = types.get(name)
            if kind is None:
                if name in (self.key_field, "simulation_id"):
                    continue
                raise InvalidEvent(
                    f"stream {self.stream!r} has no field {name!r}; the catalog lists {', '.join(types)}"
                )
            if value is not None and not _is_of(value, kind):
                raise InvalidEvent(
                    f"field {name!r} of stream {self.stream!r} is {shown(value)}; expected {kind}, as the catalog says"
                )
        if key is not None and types.get(self.key_field) == "string":
            fields.setdefault(self.key_field, key)

    def ids(self, events: Sequence[EncodedEvent], run: str) -> list[str]:
        """Ids of events of this stream: their own, else a function of the run and the event's number."""
        made = format_ids(event_ids(run, self.stream, np.array([event.seq for event in events], np.int64)))
        if self.dna:
            pairs = zip(events, made, strict=True)
            made = [f"evt_dna_{event.time_us // 1000}_{new_id.replace('-', '')}" for event, new_id in pairs]
        return [
            new_id if event.event_id is None else event.event_id for event, new_id in zip(events, made, strict=True)
        ]

    def messages(self, events: Sequence[EncodedEvent], run: str) -> list[Message]:
        """The Kafka messages of events of this stream."""
        moments = iso_strings(np.array([event.time_us for event in events], np.int64))
        source = ("ce_source", f"{OWN_SOURCE}{run}/{self.stream}".encode())
        kinds = {name: self._kind(name) for name in {event.type for event in events}}
        keys = {event.key: None if event.key is None else event.key.encode() for event in events}
        messages = []
        for event, event_id, moment in zip(events, self.ids(events, run), moments, strict=True):
            kind, kind_json = kinds[event.type]
            stamp, id_json = moment.encode(), orjson.dumps(event_id)
            if self.dna:
                seconds = orjson.dumps(event.time_us / 1e6)
                value = _DNA % (id_json, kind_json, seconds, event.body)
            else:
                value = _MONO % (id_json, stamp, self._source, kind_json, event.value, event.body)
            headers = [_VERSION, ("ce_id", event_id.encode()), kind, source, ("ce_time", stamp), _CONTENT]
            messages.append(Message(self.topic, keys[event.key], value, headers, event.seq))
        return messages

    def _kind(self, name: str) -> tuple[tuple[str, bytes], bytes]:
        """The header and the JSON of a type of event."""
        return ("ce_type", ce_type(self.stream, name).encode()), orjson.dumps(name)


def messages_of(events: Sequence[EncodedEvent], run: str) -> list[Message]:
    """The messages of events of several streams, those of each stream together and in their order."""
    by_stream: dict[str, list[EncodedEvent]] = {}
    for event in events:
        by_stream.setdefault(event.encoder.stream, []).append(event)
    return [message for group in by_stream.values() for message in group[0].encoder.messages(group, run)]


def _take_time(fields: dict[str, Any]) -> int:
    """The event's time in microseconds: the first of the members that hold one, else now."""
    for name in TIME_NAMES:
        if (value := fields.get(name)) is not None:
            del fields[name]
            fields.pop("timestamp", None)
            moment = time_of(value)
            if not 0 <= moment < CEILING_US:
                raise InvalidEvent(
                    f"{name} {value!r} is {iso_from_us(moment)}; expected a time from 1970 to 2100, whole numbers in "
                    "microseconds"
                )
            return moment
    fields.pop("timestamp", None)
    return time.time_ns() // 1000


def _json_value(name: str, value: Any) -> Any:
    """What JSON writes of a value, so that its readers have the value that `carried` makes of the mapping.

    JSON has no NaN and no infinity, for which its writer would put null. Raises InvalidEvent.
    """
    while isinstance(value, Enum):
        value = value.value
    found = carried(name, value)
    if isinstance(found, float) and not math.isfinite(found):
        raise InvalidEvent(f"field {name!r} is {found}; JSON has finite numbers only: send None, or leave it out")
    if isinstance(value, int | Decimal) and (digits := single.number_text(value)) is not None:
        return orjson.Fragment(digits)  # who reads it as a key or an id needs all digits
    if found is value or not single.is_nested(value):
        return found
    if "null" in str(found) and (bad := first_non_finite(name, value)) is not None:
        raise InvalidEvent(f"field {bad[0]!r} is {bad[1]}; JSON has finite numbers only: send None, or leave it out")
    return orjson.Fragment(str(found))


def _is_of(value: Any, kind: FieldType) -> bool:
    found = type(value)
    if kind in _RANGES and found is int:
        least, end = _RANGES[kind]
        return bool(least <= value < end)
    if kind in ("float32", "float64") and found in _NUMBERS:
        return True
    if (kind == "string" and found is str) or (kind == "bool" and found is bool) or kind == "json":
        return True
    return mixed.fits(value, arrow_type(kind))
