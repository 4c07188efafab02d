"""What a sink is given of a chunk: frames of events, and records of outputs, rules and commands."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from astrocyte.agents.ingest.copies import is_silence
from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.ingest.faults import reason_of
from astrocyte.agents.ingest.letters import dead_letter
from astrocyte.agents.sinks.base import RecordKind, Sourced, SourcedRecords
from astrocyte.pipeline.topology.topics import RECORD_TOPICS
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.events import DeadLetter, is_command
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.cloudevents import EXTENSIONS
from astrocyte.schemas.json.reader import KafkaRecord
from astrocyte.schemas.json.text import read_object
from astrocyte.schemas.topics import CONTROL_PREFIX, RULES

__all__ = ["Decoded", "decode_for_sink", "record_body"]

_EXTENSIONS: Final = {f"ce_{attribute}": name for attribute, name in EXTENSIONS.items()}


class Decoded(NamedTuple):
    """Items of one chunk for a sink, and what could not be read."""

    items: list[Sourced]
    letters: list[DeadLetter]
    """Of records for which no other role writes a dead letter."""
    unread: list[DeadLetter]
    """Of records for which another role writes the dead letter, or that are one."""


def decode_for_sink(
    topic: str,
    partition: int,
    records: Sequence[KafkaRecord],
    catalog: Catalog = CATALOG,
    decoders: Decoders | None = None,
) -> Decoded:
    """Items of one chunk for a sink."""
    kind = RECORD_TOPICS.get(topic)
    if topic == RULES or topic.startswith(CONTROL_PREFIX):
        return Decoded([_audited(topic, partition, records)], [], [])
    if kind is None:
        frames, unread = decode_chunk(topic, partition, records, catalog, decoders)
        silent = {record.offset for record in records if is_silence(record)}  # that is no end, and nothing to store
        kept: list[Sourced] = [
            item for item in frames if item.frame.num_rows or (item.frame.end and item.offset not in silent)
        ]
        return Decoded(kept, [], unread)
    good, offsets, letters = [], [], []
    for record in records:
        try:
            good.append(record_body(record, kind))
        except Exception as error:  # noqa: BLE001  a record that raises is refused, whatever it raises
            reason = reason_of(f"decoding a record of {topic}", error)
            letters.append(dead_letter(record, topic, partition, reason=reason, stage="decode"))
        else:
            offsets.append(record.offset)
    letters, unread = ([], letters) if kind == "dead_letters" else (letters, [])
    if not good:
        return Decoded([], letters, unread)
    last = records[-1].offset
    item = SourcedRecords(kind, good, topic, partition, offsets[0], np.array(offsets, np.int64), last_offset=last)
    return Decoded([item], letters, unread)


def record_body(record: KafkaRecord, kind: RecordKind) -> dict[str, Any]:
    """The object of a JSON record, with what key and headers say of a multi event or alert. Raises InvalidEvent."""
    body = read_object(record.value)
    if kind in ("multi_events", "alerts"):
        body.setdefault("key", None if record.key is None else record.key.decode(errors="replace"))
        for name, value in record.headers:
            if name in _EXTENSIONS:
                body[_EXTENSIONS[name]] = value.decode(errors="replace")
    return body


def _audited(topic: str, partition: int, records: Sequence[KafkaRecord]) -> SourcedRecords:
    """Rule changes and control events as entries of the audit log."""
    kind = "rule_change" if topic == RULES else topic
    entries = [
        {
            "event_id": _audit_id(topic, partition, record),
            "timestamp": record.timestamp * 1000,
            "kind": kind,
            "subject": None if record.key is None else record.key.decode(errors="replace"),
            "simulation_id": None,
            "payload": None if record.value is None else record.value.decode(errors="replace"),
        }
        for record in records
    ]
    offsets = np.array([record.offset for record in records], np.int64)
    return SourcedRecords("audit", entries, topic, partition, records[0].offset, offsets)


def _audit_id(topic: str, partition: int, record: KafkaRecord) -> str:
    """Id of an entry: that of the message's place, but for a command that a controller may repeat after a crash."""
    if topic.startswith(CONTROL_PREFIX) and record.value is not None:
        with contextlib.suppress(InvalidEvent):
            if is_command(read_object(record.value)):
                return str(hash_id(topic, record.value.decode(errors="replace")))
    return str(hash_id(topic, str(partition), str(record.offset)))
