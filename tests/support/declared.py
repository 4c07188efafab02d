"""Messages of declared streams, and what a chunk of them is read as."""

from __future__ import annotations

from typing import Any

import orjson

from astrocyte import load_rules
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.json.reader import RawRecord

__all__ = ["START_US", "decoders", "message", "read"]

START_US = 1_759_055_400_000_000


def decoders(text: str) -> Decoders:
    """The decoders of a stream that is declared by a line of YAML."""
    return Decoders(Contracts(load_rules(f"streams:\n  - {text}\n").streams))


def read(text: str, *messages: RawRecord) -> tuple[list[Any], Any, Any]:
    """Rows, dead letters and frames of the messages of a stream that is declared by a line of YAML."""
    found = decoders(text)
    (name,) = found.contracts.declared
    frames, letters = decode_chunk(found.contracts.topic_of(name), 0, messages, decoders=found)
    return [row for item in frames for row in item.frame.event_fields()], letters, frames


def message(value: Any, *, key: bytes | None = b"k", offset: int = 0, headers: Any = ()) -> RawRecord:
    """A message with a value, given in bytes or to be written as JSON."""
    return RawRecord(offset, START_US // 1000, key, value if isinstance(value, bytes) else orjson.dumps(value), headers)
