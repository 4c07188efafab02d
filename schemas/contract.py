"""The contract of an event: how a mapping, wherever it was read, becomes an event (docs/events.md).

JSON records of topics and logs, lines of files and mappings given to Python all pass through `read_event`, so that the
same mapping is the same event everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.catalog import CATALOG, Catalog, EventType
from astrocyte.schemas.declarations import DEBEZIUM, KeyReading, StreamDeclaration
from astrocyte.schemas.errors import InvalidEvent, InvalidRule
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.cloudevents import (
    is_mono,
    is_structured,
    missing_attributes,
    put_attributes,
    with_data,
)
from astrocyte.schemas.json.connect import with_decimals
from astrocyte.schemas.times import TIME_NAMES, TimeUnit, is_doubted
from astrocyte.schemas.topics import mono_topic, stream_of
from astrocyte.schemas.values import single
from astrocyte.schemas.values.single import json_text

__all__ = [
    "ENVELOPES",
    "FRAME_ROW",
    "Contract",
    "Contracts",
    "Event",
    "envelope_of",
    "is_uuid",
    "needs_digits",
    "read_event",
    "read_frame_row",
    "scoped_id",
    "shared_topics",
    "time_member",
]

FRAME_ROW: Final = "frame_row"
"""Envelope of a row of a frame that was a dead letter and was sent again as a JSON record: see `read_frame_row`."""

_UUID: Final = re.compile(
    r"(?:.*_)?(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})", re.IGNORECASE | re.ASCII
)
_MOST_ID: Final = 100
"""Longest id that is kept as text; stores have a limit, so longer ones are hashed."""


@dataclass(slots=True)
class Event:
    """One event, flattened. ``fields`` are by column name; paths of a declaration are looked up in ``document``."""

    fields: dict[str, Any]
    document: Mapping[str, Any] = field(default_factory=dict)
    event_id: str | None = None
    time: Any = None
    """As it was written; None: the event has none."""
    unit: TimeUnit | None = None
    """Unit of a number in ``time``, where it is stated."""
    type: str | None = None
    key: str | None = None

    @property
    def doubted_time(self) -> int | float | None:
        """The number in ``time`` that was read as one and is hardly one; None for text and where a unit is stated."""
        if self.unit is not None or not isinstance(self.time, int | float):
            return None
        return self.time if is_doubted(self.time) else None


@dataclass(frozen=True, slots=True)
class Contract:
    """What is known of one stream: its declaration in a rule file, and its event type in the catalog."""

    stream: str
    declaration: StreamDeclaration | None = None
    event_type: EventType | None = None
    exact: tuple[str, ...] = ()
    """Columns that distinguish events: see `schemas.values.single.distinguishing`."""

    @property
    def exact_columns(self) -> frozenset[str]:
        """Columns of Arrow in which decimal numbers keep their digits and bytes are text.

        They are those that distinguish events, and those that are declared to hold integers or text.
        """
        declared = frozenset[str]() if self.declaration is None else self.declaration.exact_columns
        return declared.union(self.exact)

    @property
    def key_field(self) -> str:
        """The field that the key of the stream is."""
        if self.declaration is not None and self.declaration.key.field != "key":
            return self.declaration.key.field
        return self.event_type.key if self.event_type is not None else "key"

    @property
    def default_type(self) -> str:
        """Type of an event that names none: the only one that the catalog lists, else the name of the stream."""
        types = () if self.event_type is None else self.event_type.types
        return types[0] if len(types) == 1 else self.stream

    @property
    def decoder(self) -> str | None:
        """Declared decoder."""
        return None if self.declaration is None or self.declaration.decoder is None else self.declaration.decoder.name

    @property
    def has_declared_id(self) -> bool:
        """Whether a member is declared that identifies the events."""
        return self.declaration is not None and self.declaration.id is not None

    @property
    def reading(self) -> KeyReading | None:
        """Declared reading of Kafka keys."""
        if self.declaration is None:
            return None
        return self.declaration.key.reading or ("json" if self.decoder == DEBEZIUM else None)

    @property
    def null_on_type_error(self) -> frozenset[str]:
        """Columns whose values become null where they are not of the declared type."""
        if self.declaration is None or self.declaration.on_type_error != "null":
            return frozenset()
        return frozenset(self.declaration.column_types)

    def is_text(self, column: str) -> bool:
        """Whether a column is declared to hold text."""
        return self.declaration is not None and self.declaration.column_types.get(column) == "string"

    def skips(self, value: bytes | None) -> bool:
        """Whether a message holds no event by declaration: Debezium follows each deletion with a tombstone."""
        return value is None and self.decoder == DEBEZIUM


def shared_topics(topics: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Streams whose topic (``topics`` by stream) one before them has already, each with the reason for refusing it."""
    first: dict[str, str] = {}
    for stream, topic in topics.items():
        if first.setdefault(topic, stream) != stream:
            reason = (
                f"streams {first[topic]!r} and {stream!r} both read the topic {topic!r} (without a declaration it is "
                "mono.<name>); a topic carries one stream: declare it once, and let all rules read that name"
            )
            yield stream, reason


class Contracts:
    """The contracts of all streams: declared ones, those of the catalog, and what holds for any other."""

    def __init__(
        self,
        declarations: Iterable[StreamDeclaration] = (),
        catalog: Catalog = CATALOG,
        *,
        topics: Mapping[str, str] | None = None,
        correlated: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """``topics``: topic by stream, where an undeclared stream is in another than ``mono.<stream>``.

        ``correlated``: fields by which rules correlate, by stream.
        """
        self.catalog = catalog
        self.declared = {each.name: each for each in declarations}
        self.topics = dict(topics or {})
        for name, each in self.declared.items():
            self.topics[name] = each.topic or self.topics.get(name) or mono_topic(name)
        for _, reason in shared_topics(self.topics):
            raise InvalidRule(reason)
        self._streams = {topic: stream for stream, topic in self.topics.items()}
        self.exact = self._exact_columns(correlated or {})
        """`Contract.exact` by stream."""

    def _exact_columns(self, correlated: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
        """By stream, the fields that distinguish events and have no other type than text; ``key`` is text already."""
        found: dict[str, tuple[str, ...]] = {}
        for stream in {*correlated, *self.declared}:
            event_type, declaration = self.catalog.find(stream), self.declared.get(stream)
            fields, types = set(correlated.get(stream, ())), {} if event_type is None else dict(event_type.fields)
            if declaration is not None:
                fields |= declaration.identifying
                types |= declaration.types
            fields -= {"key", "type", "timestamp"}
            found[stream] = tuple(
                sorted(column_name(field) for field in fields if types.get(field) in (None, "string"))
            )
        return found

    def topic_of(self, stream: str) -> str:
        """Topic of a stream."""
        return self.topics.get(stream) or mono_topic(stream)

    def of_topic(self, topic: str) -> Contract:
        """Contract of the stream that a topic carries; the topic's own name where it names no stream.

        Declarations hold for the stream's own topic. What the pipeline itself writes (repartitioned copies, results of
        windows) has been read by them before.
        """
        if topic in self._streams:
            return self.of_stream(self._streams[topic])
        stream = stream_of(topic) or topic
        if stream in self.topics and topic == mono_topic(stream):
            stream = topic  # this stream is in another topic
        return Contract(stream, None, self.catalog.find(stream), self.exact.get(stream, ()))

    def of_stream(self, stream: str) -> Contract:
        """Contract of a stream."""
        return Contract(stream, self.declared.get(stream), self.catalog.find(stream), self.exact.get(stream, ()))


# -- ids ----------------------------------------------------------------------------------------------------


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID, with or without a prefix that ends in an underscore."""
    return _UUID.fullmatch(text) is not None


def scoped_id(scope: str, text: str) -> str:
    """Id of an event from text that is unique within ``scope`` only, a UUID too: requests and traces have some.

    Colons of the scope are percent-encoded, so that no two pairs have one id.
    """
    whole = f"{scope.replace('%', '%25').replace(':', '%3A')}:{text}"
    return whole if len(whole) <= _MOST_ID else str(hash_id(scope, text))


# -- envelopes -------------------------------------------------------------------------------------------------------


def envelope_of(body: Mapping[str, Any], contract: Contract) -> str:
    """Name of the envelope in which a body holds an event, by its members: see docs/events.md."""
    if is_mono(body):
        return "mono"
    if body.get("stream") == contract.stream:
        return "json"  # a flat record in Astrocyte's own form
    dna = contract.event_type is not None and contract.event_type.envelope == "dna"
    if "payload" in body:
        inner = body["payload"]
        if isinstance(inner, Mapping):
            if dna or body.keys() >= {"id", "type", "source", "target"}:
                return "dna"
            if "schema" in body and _is_change(inner):
                return DEBEZIUM
    elif _is_change(body):
        return DEBEZIUM
    return "cloudevents" if is_structured(body) else "json"


def _is_change(body: Mapping[str, Any]) -> bool:
    return (
        isinstance(body.get("op"), str)
        and ("after" in body or "before" in body)
        and isinstance(body.get("source"), Mapping)
    )


def _put(fields: dict[str, Any], members: Mapping[str, Any]) -> None:
    for name, value in members.items():
        fields[column_name(name)] = value


def time_member(body: Mapping[str, Any]) -> str | None:
    """The member that is the time of an event whose time is not declared."""
    return next((name for name in TIME_NAMES if body.get(name) is not None), None)


def _read_json(body: Mapping[str, Any], contract: Contract) -> Event:
    """A mono event or a flat record: members at the top are fields, and win over those of ``metadata``."""
    declared = None if contract.declaration is None else contract.declaration.time
    time_name = None if declared is not None else time_member(body)
    names_stream = {
        name
        for name in ("stream", "source_stream")
        if name in body and body[name] in (contract.stream, f"stream:{contract.stream}")
    }
    if is_mono(body):
        names_stream.add("source_stream")
    aside = {"metadata", time_name, *names_stream}
    if declared is None or declared.field == "timestamp":
        aside.add("timestamp")
    event = Event({}, body, time=None if time_name is None else body[time_name])
    fields, nested = event.fields, body.get("metadata")
    if isinstance(nested, Mapping):
        _put(fields, nested)
    elif nested is not None:
        fields["metadata"] = nested
    for name, value in body.items():
        if name in aside:
            continue
        if name == "event_id":
            if isinstance(value, str) and (names_stream or is_uuid(value)):
                event.event_id = value
            elif value is not None:
                fields["event_id_"] = value
        elif name == "type":
            event.type = None if value is None else json_text(value)
        elif name == "key":
            event.key = single.key_text(value)
        else:
            fields[column_name(name)] = value
    return event


def _read_dna(body: Mapping[str, Any], contract: Contract) -> Event:  # noqa: ARG001  the signature of all envelopes
    payload = body.get("payload")
    if not isinstance(payload, Mapping):
        raise InvalidEvent(f"'payload' is {payload!r}; expected a JSON object, as in the dna envelope")
    time_name = time_member(body)
    event = Event({}, body, time=None if time_name is None else body[time_name])
    _put(event.fields, payload)
    aside = {"id", "type", "source", "target", "payload", "meta", "timestamp", "event_id", time_name}
    _put(event.fields, {name: value for name, value in body.items() if name not in aside})
    event_id = body.get("event_id", body.get("id"))
    event.event_id = None if event_id is None else json_text(event_id)
    event.type = None if body.get("type") is None else json_text(body["type"])
    return event


def _read_cloudevent(body: Mapping[str, Any], contract: Contract) -> Event:
    missing = missing_attributes(body)
    if missing:
        raise InvalidEvent(
            f"expected a CloudEvent with specversion, id, source and type; it has no {', '.join(missing)}"
        )
    body = with_data(body)
    data = body.get("data")
    event = _read_json(data, contract) if isinstance(data, Mapping) else Event({} if data is None else {"data": data})
    event.document = body
    put_attributes(event.fields, body)
    if event.event_id is not None:
        event.fields["event_id_"] = event.event_id
    if event.type is not None:
        event.fields["type_"] = event.type
    event.event_id = scoped_id(str(body["source"]), single.key_text(body["id"]) or "")
    event.type = str(body["type"])
    if body.get("time") is not None:
        if event.time is not None:
            event.fields["timestamp_"] = event.time
        event.time = body["time"]
    if body.get("partitionkey") is not None:
        if event.key is not None:
            event.fields["key_"] = event.key
        event.key = single.key_text(body["partitionkey"])
    return event


def _read_debezium(body: Mapping[str, Any], contract: Contract) -> Event:  # noqa: ARG001
    if "payload" in body and isinstance(body["payload"], Mapping):
        body = with_decimals(body["payload"], body.get("schema"))
    if not isinstance(body.get("op"), str):
        raise InvalidEvent(
            f"expected a Debezium event with op, before and after, got members {', '.join(map(repr, body)) or 'none'}; "
            "for rows without this envelope declare decoder: json"
        )
    row = body.get("after") if body.get("after") is not None else body.get("before")
    if row is not None and not isinstance(row, Mapping):
        raise InvalidEvent(f"'after' is {row!r}; expected a JSON object, the row of a Debezium event")
    event = Event({}, body)
    _put(event.fields, row or {})
    event.fields.setdefault("op", body["op"])
    source = body.get("source")
    # Connectors write 0 for the rows of a snapshot whose time in the database they do not know.
    known = source.get("ts_ms") if isinstance(source, Mapping) else None
    event.time = body.get("ts_ms") if known is None or (type(known) is int and known == 0) else known
    event.time = known if event.time is None else event.time
    event.unit = "ms"
    kind = event.fields.pop("type_", None)
    event.type = None if kind is None else json_text(kind)
    return event


ENVELOPES: Final[Mapping[str, Callable[[Mapping[str, Any], Contract], Event]]] = {
    "json": _read_json,
    "mono": _read_json,
    "dna": _read_dna,
    "cloudevents": _read_cloudevent,
    DEBEZIUM: _read_debezium,
}
"""Readers of the envelopes, by name."""


# -- the event -------------------------------------------------------------------------------------------------------


def read_event(
    body: Mapping[str, Any], contract: Contract, *, key: str | None = None, envelope: str | None = None
) -> Event:
    """The event that a mapping holds. Raises InvalidEvent.

    ``key`` is the Kafka key, which wins over a key in the body unless that is declared. ``envelope`` names the
    envelope; by default it is recognised by the members of the mapping.
    """
    event = ENVELOPES[envelope or envelope_of(body, contract)](body, contract)
    if contract.declaration is not None:
        _apply(contract.declaration, event)
    _settle_key(event, contract, key)
    if contract.declaration is not None:
        contract.declaration.read_numbers(event.fields)
    for name in contract.exact:
        if name in event.fields:
            value = single.distinguishing(event.fields[name])
            event.fields[name] = str(value) if type(value) is int and contract.is_text(name) else value
    return event


def needs_digits(event: Event, contract: Contract) -> bool:
    """Whether a float, which as it was written may have more digits, tells the event from others or is an integer."""
    declared = contract.declaration
    names = contract.exact if declared is None else (*contract.exact, *declared.whole_columns)
    if any(type(event.fields.get(name)) is float for name in names):
        return True
    paths = ("key",) if declared is None else ("key", declared.id, declared.key.path)
    return any(path is not None and type(_lookup(event, path)) is float for path in paths)


def read_frame_row(body: Mapping[str, Any], contract: Contract, *, key: str | None) -> Event:
    """The event of a row of a frame that was written as a JSON record, with the key of the frame.

    As in frames, the paths, the time and the id of a declaration do not apply: a field stands under its own name.
    """
    event = read_event(body, Contract(contract.stream, None, contract.event_type), key=key)
    declaration = contract.declaration
    if declaration is not None:
        if declaration.is_partitioned and contract.key_field != "key":
            event.fields.setdefault(column_name(contract.key_field), event.key)
        declaration.read_numbers(event.fields)
    return event


def _lookup(event: Event, path: str) -> Any:
    """Value at a path: in the event as its envelope holds it, else among its fields; None where there is none."""
    if path in event.document:
        return event.document[path]
    found: Any = event.document
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return event.fields.get(column_name(path))
        found = found[name]
    return found


def _apply(declaration: StreamDeclaration, event: Event) -> None:
    if declaration.time is not None:
        path = declaration.time.field
        event.time, event.unit = _lookup(event, path), declaration.time.unit
        if event.time is None:
            raise InvalidEvent(f"the declared time {path!r} is missing or null")
    if declaration.id is not None:
        own_id = single.key_text(_lookup(event, declaration.id))
        if own_id is None:
            raise InvalidEvent(f"the declared id {declaration.id!r} is missing or null")
        event.event_id = scoped_id(declaration.name, own_id)
    for name, spec in declaration.fields.items():
        if spec.path is not None:
            event.fields[column_name(name)] = _lookup(event, spec.path)


def _settle_key(event: Event, contract: Contract, key: str | None) -> None:
    name = contract.key_field
    declaration = contract.declaration
    if declaration is not None and declaration.key.field != "key":
        value = declaration.read_number(column_name(name), _lookup(event, declaration.key.path or name))
        text = single.key_text(value)
        if text is None and declaration.is_partitioned:
            text = event.key if key is None else key  # otherwise the Kafka key is something else
        event.fields[column_name(name)] = _typed_key(text, declaration, name) if value is None else value
        event.key = text
        return
    inner = event.fields.get("key_") if name == "key" else event.fields.get(name)
    if key is not None:
        if event.key is not None and event.key != key:
            event.fields.setdefault("key_", event.key)
        event.key = key
    elif event.key is None and inner is not None:
        event.key = single.key_text(inner)
    if inner is not None and name == "key" and single.key_text(inner) == event.key:
        del event.fields["key_"]
    if contract.event_type is not None and name not in contract.event_type.fields:
        event.fields.pop(name, None)


def _typed_key(text: str | None, declaration: StreamDeclaration, name: str) -> Any:
    """The Kafka key as the value of the field that it is, of the declared type."""
    declared = declaration.column_types.get(column_name(name))
    if text is None or declared not in ("int64", "int32", "float64", "float32"):
        return text
    try:
        return int(text) if declared.startswith("int") else float(text)
    except ValueError:
        return text
