"""Kafka keys as text, by their declared reading (docs/events.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from astrocyte.schemas.declarations import KeyReading
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.json.connect import with_decimals
from astrocyte.schemas.json.text import loads_exact
from astrocyte.schemas.values import single

__all__ = ["key_text"]

_BYTES: Final[Mapping[KeyReading, int]] = {"int32": 4, "int64": 8}


def key_text(key: bytes | None, reading: KeyReading | None = None) -> str | None:
    """A Kafka key as text. Raises InvalidEvent if it is not of the declared reading.

    Without a declaration, UTF-8 without control characters is text; any other key is binary and is written in
    hexadecimal (``0x00000000000004d2``), as with the reading ``hex`` all are.
    """
    if key is None:
        return None
    if reading is None:
        return single.bytes_text(key)
    if reading == "hex":
        return "0x" + key.hex()
    if reading in ("int32", "int64"):
        if len(key) != _BYTES[reading]:
            raise InvalidEvent(
                f"the key has {len(key)} bytes; expected {_BYTES[reading]} by key: {{reading: {reading}}}"
            )
        return str(int.from_bytes(key, "big", signed=True))
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise InvalidEvent(f"the key 0x{key.hex()} is not UTF-8; expected {reading} by key: {{reading: ...}}") from None
    return _json_key(text) if reading == "json" else text


def _json_key(text: str) -> str | None:
    """Key of JSON: of an object with one member, that member; a wrapper with a schema is opened."""
    try:
        found = loads_exact(text.encode())
    except orjson.JSONDecodeError:
        return text
    if isinstance(found, dict) and found.keys() == {"schema", "payload"}:
        found = with_decimals(found["payload"], found["schema"])
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    return single.key_text(found)
