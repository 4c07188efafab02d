"""One record of a recorded log as one line of JSON: kcat's ``-J`` envelope, plus the original bytes.

kcat writes a value as text and has no form for bytes that are not UTF-8. A line therefore adds ``payload_b64`` and
``key_b64`` (and ``headers_b64`` where a header's value is not text), which take precedence over the text on reading.
The first line of a log is a header record with the number of partitions of each topic.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from astrocyte.pipeline.kafka.record import ConsumedRecord, Headers
from astrocyte.schemas.errors import AstrocyteError

__all__ = [
    "FORMAT",
    "MOST_PARTITIONS",
    "InvalidLog",
    "LogHeader",
    "TornLog",
    "parse_line",
    "record_line",
]

FORMAT: Final = 1
"""Version of the format; a reader rejects a newer one."""
_LIMIT: Final = 2**63
MOST_PARTITIONS: Final = 10_000
"""Of one topic: numbers beyond are those of a damaged file, and a reader keeps something for each partition."""
_MOST_DOMAINS: Final = 1024


class InvalidLog(AstrocyteError):
    """A file that is not a recorded log, or one that is damaged before its end."""


class TornLog(InvalidLog):
    """A log that ends inside a record, as after a crash or an interrupted copy; the records before it are complete."""


@dataclass(frozen=True, slots=True)
class LogHeader:
    """Header of a log: partition count of each topic, time of recording (ISO 8601) and source address."""

    partitions: Mapping[str, int] = field(default_factory=dict)
    created: str | None = None
    source: str | None = None
    config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Settings with which a replay creates missing topics, such as ``cleanup.policy``."""
    domains: int | None = None
    """Number of domains of the workers on the broker that was recorded; None where there were none."""

    def line(self) -> bytes:
        """The header as the first line of a log, with its newline."""
        body: dict[str, Any] = {"type": "log-header", "format": FORMAT}
        if self.created:
            body["created"] = self.created
        if self.source:
            body["source"] = self.source
        if self.domains:
            body["domains"] = self.domains
        body["topics"] = {
            topic: {"partitions": count} | ({"config": dict(self.config[topic])} if topic in self.config else {})
            for topic, count in sorted(self.partitions.items())
        }
        return orjson.dumps(body) + b"\n"


def record_line(record: ConsumedRecord, *, b64: bool = True, **extra: Any) -> bytes:
    """The record as one line with its newline; without ``b64`` exactly kcat's keys, followed by ``extra``.

    A value that is not UTF-8 is null in ``payload`` and complete in ``payload_b64``.
    """
    flat: list[str | None] = []
    binary = False
    for name, value in record.headers:
        text = _text(value)
        binary = binary or (text is None and value is not None)
        flat += (name, text)
    body: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "tstype": record.timestamp_type,
        "ts": record.timestamp_ms,
        "broker": -1,
        "headers": flat,
        "key": _text(record.key),
        "payload": _text(record.value),
    }
    if not record.headers:
        del body["headers"]
    if b64:
        if record.key is not None:
            body["key_b64"] = _b64(record.key)
        if record.value is not None:
            body["payload_b64"] = _b64(record.value)
        if binary:
            body["headers_b64"] = [
                part for name, value in record.headers for part in (name, None if value is None else _b64(value))
            ]
    body.update(extra)
    return orjson.dumps(body) + b"\n"


def parse_line(line: bytes) -> ConsumedRecord | LogHeader:
    """Record or header of one line, of our format or of plain ``kcat -J``. Raises InvalidLog (without the file)."""
    try:
        body = orjson.loads(line)
    except orjson.JSONDecodeError:
        # kcat copies bytes that are not UTF-8 into its JSON unchanged; surrogates preserve them.
        try:
            body = json.loads(line.decode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise InvalidLog(f"not JSON: {error}") from None
        except RecursionError:
            raise InvalidLog("JSON that is nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidLog(f"expected a JSON object as printed by kcat -J, got a JSON {type(body).__name__}")
    if body.get("type") == "log-header":
        return _header(body)
    try:
        topic, partition, offset, time_ms = body["topic"], body["partition"], body["offset"], body.get("ts")
        time_type = body.get("tstype", "create")
        if time_ms is None:
            time_ms = -1
        numbers = (partition, offset, time_ms)
        if not all(type(each) is str for each in (topic, time_type)) or not all(
            type(each) is int and -_LIMIT <= each < _LIMIT for each in numbers
        ):
            raise _mistyped(body | {"tstype": time_type, "ts": time_ms})
        if not 0 <= partition < MOST_PARTITIONS:
            raise InvalidLog(f"'partition': expected 0 to {MOST_PARTITIONS - 1:,}, got {partition:,}")
        if offset < 0:
            raise InvalidLog(f"'offset': expected 0 or more, got {offset:,}")
        topic.encode()
        time_type.encode()
        key, value = body.get("key_b64"), body.get("payload_b64")
        return ConsumedRecord(
            topic,
            partition,
            offset,
            time_ms,
            _bytes(body.get("key")) if key is None else binascii.a2b_base64(key, strict_mode=True),
            _bytes(body["payload"]) if value is None else binascii.a2b_base64(value, strict_mode=True),
            _headers(body),
            time_type,
        )
    except KeyError as error:
        raise InvalidLog(
            "expected an object with topic, partition, offset, ts, key and payload as printed by kcat -J, "
            f"got one without {error.args[0]!r}"
        ) from None
    except (UnicodeEncodeError, orjson.JSONEncodeError):
        raise InvalidLog(f"a lone surrogate in {_surrogate_in(body)!r}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidLog(f"invalid base64: {error}") from None


def _header(body: dict[str, Any]) -> LogHeader:
    version = body.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise InvalidLog(f"expected a log of format {FORMAT} or older, got {version!r}; upgrade astrocyte")
    topics = body.get("topics", {})
    try:
        counts = {topic: entry["partitions"] for topic, entry in topics.items()}
        for topic, count in counts.items():
            if type(count) is not int or not 0 <= count <= MOST_PARTITIONS:
                raise InvalidLog(
                    f"the log header gives topic {topic[:250]!r} {str(count)[:80]} partitions; expected 0 to "
                    f"{MOST_PARTITIONS:,}"
                )
        return LogHeader(
            counts,
            body.get("created"),
            body.get("source"),
            {topic: dict(entry["config"]) for topic, entry in topics.items() if "config" in entry},
            _domains(body),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidLog(f"invalid 'topics' in the log header: {error!r}") from None


def _domains(body: dict[str, Any]) -> int | None:
    domains = body.get("domains")
    if domains is not None and (type(domains) is not int or not 1 <= domains <= _MOST_DOMAINS):
        raise InvalidLog(f"'domains' in the log header: expected a number from 1 to {_MOST_DOMAINS}, got {domains!r}")
    return domains


def _mistyped(body: dict[str, Any]) -> InvalidLog:
    for name, kind in (("topic", str), ("partition", int), ("offset", int), ("ts", int), ("tstype", str)):
        value = body.get(name)
        if type(value) is not kind or (isinstance(value, int) and not -_LIMIT <= value < _LIMIT):
            wanted = "a string" if kind is str else "an integer of 64 bits"
            return InvalidLog(f"{name!r}: expected {wanted}, got {repr(value)[:80]}")
    raise AssertionError


def _surrogate_in(body: dict[str, Any]) -> str:
    """Name of the first member whose text has no bytes: half of a character that needs two UTF-16 code units."""
    for name in ("topic", "tstype", "key", "payload", "headers"):
        # Keys and values may be any bytes, which surrogates stand for.
        errors = "strict" if name in ("topic", "tstype") else "surrogateescape"
        try:
            json.dumps(body.get(name), ensure_ascii=False).encode("utf-8", errors)
        except UnicodeEncodeError:
            return name
    return "headers"


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return None if value is None else orjson.dumps(value)  # kcat -s prints deserialised values as nested JSON


def _headers(body: dict[str, Any]) -> Headers:
    encoded, given = body.get("headers_b64"), body.get("headers")
    if encoded is not None:
        pairs = [(name, None if value is None else binascii.a2b_base64(value)) for name, value in _pairs(encoded)]
    else:
        pairs = [(name, _bytes(value)) for name, value in _pairs(given or [])]
    for name, _ in pairs:
        if type(name) is not str:
            raise InvalidLog(f"'headers': expected names that are strings, got {name!r:.80}")
        name.encode()
    return tuple(pairs)


def _pairs(given: Any) -> Iterable[tuple[str, str | None]]:
    """Pairs of kcat's flat array (as it prints) or of an object (as its manual shows)."""
    if isinstance(given, dict):
        return given.items()
    if not isinstance(given, list) or len(given) % 2:
        raise InvalidLog("'headers': expected an object or a flat array of names and values")
    return zip(given[::2], given[1::2], strict=True)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _b64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()
