"""Showing the events of topics: one line per event, frames unpacked, selected by an expression."""

from __future__ import annotations

import fnmatch
import itertools
import re
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.agents.expressions.columns import predicate
from astrocyte.agents.expressions.nodes import Field, Node, walk
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.expressions.scalar import compile_scalar
from astrocyte.agents.expressions.values import Columns
from astrocyte.agents.ingest.decode import placed
from astrocyte.pipeline.console import number_text, printable
from astrocyte.pipeline.kafka.offsets import EARLIEST, Start
from astrocyte.pipeline.kafka.record import ConsumedRecord, Headers, is_frame
from astrocyte.pipeline.kafka.topic_names import did_you_mean_topic, listed_topics
from astrocyte.pipeline.recording.format import record_line
from astrocyte.pipeline.recording.frames import raw_record
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import time_member
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent, InvalidSettings
from astrocyte.schemas.frames import conform, decode_frame
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.registry import did_you_mean
from astrocyte.schemas.times import is_in_calendar, iso_from_us, time_us, us_from_ms
from astrocyte.schemas.topics import stream_of

__all__ = [
    "Event",
    "Formatter",
    "Selector",
    "columns_line",
    "compile_format",
    "envelope_line",
    "json_line",
    "result_line",
    "tap",
    "tap_records",
]

Formatter = Callable[["Event"], bytes]

_WIDTH: Final = 60
_ENVELOPE: Final = ("event_id", "source_stream", "id", "source", "target", "meta")
_ESCAPE: Final = re.compile(r"%(.)|\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.))|([^%\\]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Event:
    """One event and its message; ``row`` is its row in a frame, None for a message with one event."""

    record: ConsumedRecord
    row: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    problem: str | None = None
    """Reason why a message that begins like a frame cannot be decoded, else None."""


class Selector:
    """Splits messages into events, and keeps those for which the expression ``where`` is true.

    As in a rule, ``where`` reads the event's fields, key, type and timestamp (microseconds); for messages of other
    topics (multi events, alerts), their JSON fields. With ``raw`` frames are not unpacked. Raises InvalidRule for an
    invalid expression, InvalidSettings for ``where`` with ``raw``.
    """

    def __init__(self, where: str | None = None, *, raw: bool = False, catalog: Catalog = CATALOG) -> None:
        if where is not None and raw:
            raise InvalidSettings("--where selects events and --raw shows whole messages; leave one of them out")
        self.raw = raw
        self.catalog = catalog
        self._node: Node | None = None if where is None else parse(where)
        self._test = None if self._node is None else compile_scalar(self._node)
        self.unreadable = 0
        """Number of messages without a readable event."""
        nodes = () if self._node is None else walk(self._node)
        self._absent = {node.name for node in nodes if isinstance(node, Field)}
        self._known: set[str] = set()

    def absent(self) -> list[str]:
        """A line for each field that ``where`` names and no event had; none where there was no event."""
        if not self._known:
            return []
        return [f"no event has the field {name!r}{did_you_mean(name, self._known)}" for name in sorted(self._absent)]

    def _note(self, names: Iterable[str]) -> None:
        self._known.update(names)
        self._absent -= self._known

    def __call__(self, records: Iterable[ConsumedRecord]) -> Iterator[Event]:
        """Events of the messages, in order."""
        for record in records:
            if not self.raw and is_frame(record):
                yield from self._unpack(record)
            elif self._test is None or self._test(self._fields(record), {}):
                yield Event(record, None, record.key, record.value, record.headers)

    def _unpack(self, record: ConsumedRecord) -> Iterator[Event]:
        assert record.value is not None
        try:
            frame = placed(decode_frame(record.value), record.topic, record.partition, raw_record(record))
            event_type = self.catalog.find(frame.stream)
            frame = conform(frame, event_type) if event_type is not None else frame
        except AstrocyteError as error:
            self.unreadable += 1
            if self._node is None:
                yield Event(record, None, record.key, record.value, record.headers, str(error))
            return
        rows = np.arange(frame.num_rows)
        if self._node is not None:
            if self._absent and frame.num_rows:
                self._note(["timestamp", "key", "type", "simulation_id", *frame.fields])
            columns = Columns(lambda name: frame.column(name) if frame.has(name) else None, frame.num_rows)
            rows = np.flatnonzero(predicate(self._node, columns))
            if not len(rows):
                return
            if len(rows) < frame.num_rows:
                frame = frame.take(rows)
        for row, (key, value, headers) in zip(rows.tolist(), frame_to_records(frame, self.catalog), strict=True):
            yield Event(record, row, key, value, tuple(headers))

    def _fields(self, record: ConsumedRecord) -> dict[str, Any]:
        try:
            body = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            self.unreadable += 1
            return {}
        fields = dict(body)
        for nested in ("metadata", "payload"):
            if isinstance(body.get(nested), dict):
                fields.update(body[nested])
        name = time_member(body)
        try:
            fields["timestamp"] = us_from_ms(record.timestamp_ms) if name is None else time_us(fields.pop(name))
        except InvalidEvent:
            self.unreadable += 1
            fields["timestamp"] = None
        if record.key is not None:
            fields["key"] = record.key.decode("utf-8", "replace")
            event_type = self.catalog.find(stream_of(record.topic) or "")
            if event_type is not None:
                fields.setdefault(event_type.key, fields["key"])
        if self._absent:
            self._note(fields)
        return fields


async def tap(
    broker: str,
    topics: Sequence[str],
    write: Callable[[Event], None],
    *,
    selector: Selector,
    start: Start = EARLIEST,
    until_ms: int | None = None,
    count: int | None = None,
    follow: bool = False,
    partitions: Iterable[int] | None = None,
    flush: Callable[[], None] | None = None,
) -> int:
    """Pass up to ``count`` events to ``write`` and return their number. Raises BrokerUnavailable, UnknownTopic."""
    from astrocyte.pipeline.kafka.client import consumer_client, scan, select_topics, topic_partitions

    known = await topic_partitions(broker)
    chosen = {topic: known[topic] for topic in select_topics(topics, known)}
    async with consumer_client(broker) as client:
        batches = scan(client, chosen, start=start, until_ms=until_ms, follow=follow, partitions=partitions)
        return await _drain(batches, write, selector, count, flush)


def tap_records(
    records: Iterable[ConsumedRecord],
    topics: Sequence[str],
    write: Callable[[Event], None],
    selector: Selector,
    *,
    until_ms: int | None = None,
    count: int | None = None,
    partitions: Iterable[int] | None = None,
) -> int:
    """`tap` over the messages of a log; topics are names or patterns, an empty sequence means all.

    Raises UnknownTopic.
    """
    wanted = None if partitions is None else frozenset(partitions)
    chosen = (
        record
        for record in _matching(records, topics)
        if (wanted is None or record.partition in wanted) and (until_ms is None or record.timestamp_ms < until_ms)
    )
    seen = 0
    for event in itertools.islice(selector(chosen), count):
        write(event)
        seen += 1
    return seen


def _matching(records: Iterable[ConsumedRecord], topics: Sequence[str]) -> Iterator[ConsumedRecord]:
    """The messages of the topics. Raises UnknownTopic, at the end, for a name or pattern that no message matches."""
    from astrocyte.pipeline.kafka.client import UnknownTopic

    there: dict[str, bool] = {}
    for record in records:
        if record.topic not in there:
            there[record.topic] = not topics or any(fnmatch.fnmatchcase(record.topic, each) for each in topics)
        if there[record.topic]:
            yield record
    for pattern in topics:
        if not fnmatch.filter(there, pattern):
            has = f"the log has {listed_topics(there)}" if there else "the log is empty"
            raise UnknownTopic(f"no topic {pattern!r}; {has}{did_you_mean_topic(pattern, there)}")


async def _drain(
    batches: AsyncIterator[list[ConsumedRecord]],
    write: Callable[[Event], None],
    selector: Selector,
    count: int | None,
    flush: Callable[[], None] | None,
) -> int:
    seen = 0
    if count == 0:
        return 0
    async for records in batches:
        for event in selector(records):
            write(event)
            seen += 1
            if seen == count:
                return seen
        if flush is not None:
            flush()
    return seen


def json_line(event: Event) -> bytes:
    """The event as one line of JSON; a message that is not JSON as an object with topic, offset and bytes."""
    value = event.value
    if value is not None and event.problem is None:
        try:
            body = orjson.loads(value)
        except orjson.JSONDecodeError:
            pass
        else:
            return (orjson.dumps(body) if b"\n" in value else value) + b"\n"
    record = event.record
    shown: dict[str, Any] = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    shown["key"] = None if event.key is None else event.key.decode("utf-8", "replace")
    shown["payload_b64"] = None if value is None else b64encode(value).decode()
    shown["problem"] = event.problem or ("empty message (tombstone)" if value is None else "not JSON")
    return orjson.dumps(shown) + b"\n"


def envelope_line(event: Event) -> bytes:
    """The event in kcat's ``-J`` envelope; for a row of a frame with the event's own key, JSON and ``row``.

    A payload that is not text is in ``payload_b64``, since kcat has no form for it.
    """
    shown = event.record._replace(key=event.key, value=event.value, headers=event.headers)
    extra: dict[str, Any] = {} if event.row is None else {"row": event.row}
    return record_line(shown, b64=event.row is None and not _is_text(event.value, event.key), **extra)


def _is_text(*values: bytes | None) -> bool:
    try:
        for value in values:
            (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def columns_line(event: Event) -> bytes:
    """The event in readable form: time, topic[partition]@offset, key, and its fields as name=value."""
    record = event.record
    place = f"{record.topic}[{record.partition}]@{record.offset}" + ("" if event.row is None else f"+{event.row}")
    key = "-" if event.key is None else event.key.decode("utf-8", "replace")
    try:
        body = orjson.loads(event.value or b"")
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or event.problem:
        size = "an empty message" if event.value is None else f"{len(event.value)} bytes"
        shown = event.problem or (f"{size}" if body is None else orjson.dumps(body).decode())
        return f"{_kafka_time(record):<27} {place:<28} {printable(key):<12} <{printable(shown)}>\n".encode()
    result = _result(body)
    name = time_member(body) or "timestamp"
    time = _shown_time(body.pop(name, None))
    if result is not None:
        return f"{time or _kafka_time(record):<27} {place:<28} {printable(key):<12} {result}\n".encode()
    nested = {**(_dict(body.pop("metadata", None))), **(_dict(body.pop("payload", None)))}
    for name in _ENVELOPE:
        body.pop(name, None)
    if body.get("value", 0) is None:
        del body["value"]
    kind = body.pop("type", "")
    nested = {name: value for name, value in nested.items() if str(value) != key}
    fields = " ".join(f"{name}={_short(value)}" for name, value in (body | nested).items())
    line = f"{time or _kafka_time(record):<27} {place:<28} {printable(key):<12} {printable(str(kind)):<4} {fields}"
    return line.rstrip().encode("utf-8", "replace") + b"\n"


def result_line(key: bytes | None, value: bytes) -> bytes:
    """A multi event or an alert in readable form: time, key, and what was found."""
    body = orjson.loads(value)
    name = "-" if key is None else key.decode("utf-8", "replace")
    time = _shown_time(body.get("timestamp")) or "-"
    return f"{time:<27} {printable(name):<12} {_result(body) or ''}".rstrip().encode("utf-8", "replace") + b"\n"


def _result(body: Mapping[str, Any]) -> str | None:
    """What an alert or a multi event says; None for any other record."""
    if isinstance(body.get("alert_id"), str) and "rule" in body:
        return printable(f"{body.get('severity')} {body['rule']}: {body.get('message')}")
    if "correlation_rule" not in body:
        return None
    values = {"integrated_value": body.get("integrated_value"), **_dict(body.get("metadata"))}
    if body.get("confidence") != 1:
        values["confidence"] = body.get("confidence")
    shown = [f"{printable(name)}={_short(value)}" for name, value in values.items() if value is not None]
    return " ".join([printable(str(body["correlation_rule"])), *shown, f"event_id={body.get('event_id')}"])


def _kafka_time(record: ConsumedRecord) -> str:
    if record.timestamp_ms < 0:
        return "-"
    time_us = record.timestamp_ms * 1000
    return iso_from_us(time_us) if is_in_calendar(time_us) else f"{record.timestamp_ms} ms"


def _shown_time(value: Any) -> str | None:
    """An event's time as a rule reads it; what is no time, or none of the calendar, as it came."""
    if value is None:
        return None
    try:
        read_us = time_us(value)
    except InvalidEvent:
        return _short(value)
    return iso_from_us(read_us) if is_in_calendar(read_us) else _short(value)


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return printable(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")


def compile_format(text: str) -> Formatter:
    """Formatter for kcat's ``-f`` syntax: %s %S %R %k %K %T %h %t %p %o %%, and backslash escapes.

    Raises InvalidSettings for another token.
    """
    parts: list[bytes | Callable[[Event], bytes]] = []
    for found in _ESCAPE.finditer(text):
        name, hexadecimal, octal, escape, literal = found.groups()
        if name == "%":
            parts.append(b"%")
        elif name:
            if name not in _TOKENS:
                raise InvalidSettings(
                    f"-f has no token %{name}; known: {' '.join('%' + known for known in _TOKENS)} %%"
                )
            parts.append(_TOKENS[name])
        elif hexadecimal or octal:
            parts.append(bytes([int(hexadecimal or octal, 16 if hexadecimal else 8) & 0xFF]))
        elif escape:
            parts.append({"n": b"\n", "r": b"\r", "t": b"\t"}.get(escape, escape.encode()))
        else:
            parts.append(literal.encode())
    return lambda event: b"".join(part if isinstance(part, bytes) else part(event) for part in parts)


def _header_text(event: Event) -> bytes:
    return b",".join(name.encode() + b"=" + (b"NULL" if value is None else value) for name, value in event.headers)


def _length(value: bytes | None) -> int:
    return -1 if value is None else len(value)


_TOKENS: Final[dict[str, Callable[[Event], bytes]]] = {
    "s": lambda event: event.value or b"",
    "S": lambda event: str(_length(event.value)).encode(),
    "R": lambda event: struct.pack(">i", _length(event.value)),
    "k": lambda event: event.key or b"",
    "K": lambda event: str(_length(event.key)).encode(),
    "T": lambda event: str(event.record.timestamp_ms).encode(),
    "h": _header_text,
    "t": lambda event: event.record.topic.encode(),
    "p": lambda event: str(event.record.partition).encode(),
    "o": lambda event: str(event.record.offset).encode(),
}
