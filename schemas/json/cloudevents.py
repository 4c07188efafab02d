"""CloudEvents: which messages are some, and the binary mode, in which the attributes are headers (docs/events.md)."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.text import loads

__all__ = [
    "EXTENSIONS",
    "OWN_SOURCE",
    "cloud_event",
    "is_mono",
    "is_structured",
    "missing_attributes",
    "put_attributes",
    "text_data",
    "with_data",
]

_NEEDED_ATTRIBUTES: Final = ("specversion", "id", "source", "type")
_PLAIN_ATTRIBUTES: Final = frozenset(
    {"specversion", "time", "type", "datacontenttype", "dataschema", "data", "data_base64"}
)
"""Attributes that are part of the event itself, or say how its data are written, and are no fields."""
_JSON_TYPE: Final = re.compile(r"\s*[^\s;/]+/(?:[^\s;]+\+)?json\s*(?:;|$)", re.IGNORECASE)
OWN_SOURCE: Final = "/astrocyte/"
EXTENSIONS: Final = {
    "ruleversion": "rule_version",
    "simulationid": "simulation_id",
    "provisional": "provisional",
    "status": "status",
    "timedout": "timed_out",
}
"""Extension attributes of what a rule makes, with the names by which sinks get them beside the record."""
"""With this begins the source of every record that Astrocyte writes."""


def is_mono(body: Mapping[str, Any]) -> bool:
    """Whether a body is a mono event, which Astrocyte writes: it may have the headers of a CloudEvent, and is none."""
    source = body.get("source_stream")
    return isinstance(source, str) and source.startswith("stream:")


def is_structured(body: Mapping[str, Any]) -> bool:
    """Whether a body is a CloudEvent, complete or not: text ``specversion`` alone may be a field like any other."""
    named = sum(name in body for name in ("id", "source", "type"))
    return isinstance(body.get("specversion"), str) and (named > 1 or "data" in body or "data_base64" in body)


def missing_attributes(body: Mapping[str, Any]) -> list[str]:
    """Required attributes that a CloudEvent lacks; an empty one is missing, because it tells no events apart."""
    return [name for name in _NEEDED_ATTRIBUTES if body.get(name) in (None, "")]


def with_data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A CloudEvent in structured mode with JSON in ``data_base64`` as its ``data``.

    JSON is what ``datacontenttype`` says (``application/json``, any ``+json``), and by the specification what has
    none. The base64 text of any other type stays what it is, as ``data``. Raises InvalidEvent.
    """
    if body.get("data") is not None or body.get("data_base64") is None:
        return body
    given, kind = body["data_base64"], body.get("datacontenttype")
    if kind is not None and _JSON_TYPE.match(str(kind)) is None:
        return {**body, "data": given}
    try:
        content = b64decode(given, validate=True)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"'data_base64' is {given!r:.80}; expected base64 text: {error}") from None
    try:
        return {**body, "data": loads(content)}
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        said = "no datacontenttype, which stands for application/json" if kind is None else f"datacontenttype {kind!r}"
        raise InvalidEvent(
            f"'data_base64' holds no JSON, and the event has {said}: {error}; bytes of another form need a "
            "datacontenttype of theirs, such as application/octet-stream"
        ) from None


def put_attributes(fields: dict[str, Any], body: Mapping[str, Any]) -> None:
    """Put the attributes of a CloudEvent beside the fields of its data, as ``ce_<name>``.

    A member of the data that has such a name already, and another value, gets underscores until its name is free.
    """
    for attribute, value in body.items():
        if attribute in _PLAIN_ATTRIBUTES:
            continue
        name = f"ce_{attribute}"
        if name in fields and fields[name] != value:
            own = f"{name}_"
            while own in fields:
                own += "_"
            fields[own] = fields[name]
        fields[name] = value


def text_data(headers: Sequence[tuple[str, bytes | None]], value: bytes) -> str | None:
    """The data of a message in binary mode that are no JSON, as text.

    None where they have to be JSON by their content type, and for a message that is no CloudEvent. Raises InvalidEvent
    for bytes that are no text in UTF-8.
    """
    kind = next((bytes(given or b"") for name, given in headers if name.lower() == "content-type"), b"")
    if not kind or b"json" in kind:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        if cloud_event(headers, None) is None:
            return None
        raise InvalidEvent(
            f"the data of the CloudEvent are {len(value):,} bytes of content type {kind.decode(errors='replace')!r}, "
            "neither JSON nor text in UTF-8; send one of these, or declare a decoder of your own"
        ) from None
    return None if cloud_event(headers, text) is None else text


def cloud_event(
    headers: Sequence[tuple[str, bytes | None]], data: Any, *, declared: bool = False
) -> dict[str, Any] | None:
    """A message in CloudEvents' binary mode as the event would be in structured mode; None for any other message.

    It is one if it has the header ``ce_specversion`` or ``ce_id``; where the stream is ``declared`` to hold such, any
    required attribute. Records that Astrocyte wrote are none: they have the headers, too, but hold everything in
    their value. Raises InvalidEvent for a message that lacks a required attribute; ``specversion`` is 1.0 by default.
    """
    found: dict[str, Any] = {
        name[3:]: bytes(value).decode("utf-8", "replace")
        for name, value in headers
        if name.startswith("ce_") and value is not None
    }
    if found.keys().isdisjoint(_NEEDED_ATTRIBUTES if declared else ("specversion", "id")):
        return None
    if found.get("source", "").startswith(OWN_SOURCE) or (isinstance(data, Mapping) and is_mono(data)):
        return None
    found.setdefault("specversion", "1.0")
    missing = missing_attributes(found)
    if missing:
        if isinstance(data, Mapping) and is_structured(data):
            return None  # some attributes are repeated in the headers; the value holds the event
        raise InvalidEvent(
            "expected a CloudEvent with the headers ce_specversion, ce_id, ce_source and ce_type; it has no "
            + ", ".join(f"ce_{name}" for name in missing)
        )
    return {**found, "data": data}
