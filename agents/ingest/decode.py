"""Kafka messages to frames: a chunk of one partition at a time, frames and JSON records mixed.

Every message is accounted for: it is in a frame, or it is a dead letter with its reason and its bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import numpy as np

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.errors import InvalidFrame, SchemaMismatch
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import conform, decode_frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, records_to_frame
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import stream_of

__all__ = ["dead_letter", "decode_chunk"]

# An Arrow IPC stream begins with this continuation marker, which no JSON text can.
_ARROW_MAGIC: Final = b"\xff\xff\xff\xff"


def dead_letter(
    record: KafkaRecord, topic: str, partition: int, *, reason: str, stage: str, row: int | None = None
) -> DeadLetter:
    """The record as a dead letter; its id is a function of its place, so that repeating it changes nothing."""
    return DeadLetter.model_validate(
        {
            "letter_id": str(hash_id("dead", topic, str(partition), str(record.offset), str(row), stage)),
            "reason": reason,
            "stage": stage,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "row": row,
            "timestamp": iso_from_us(record.timestamp * 1000),
            "key_b64": None if record.key is None else b64encode(record.key).decode(),
            "payload_b64": None if record.value is None else b64encode(record.value).decode(),
            "headers": tuple((name, b64encode(value or b"").decode()) for name, value in record.headers),
        }
    )


def decode_chunk(
    topic: str, partition: int, records: Sequence[KafkaRecord], catalog: Catalog = CATALOG
) -> tuple[list[SourcedFrame], list[DeadLetter]]:
    """Frames of the chunk in offset order, and the messages that are none; the catalog's types are enforced."""
    stream = stream_of(topic) or topic
    frames: list[SourcedFrame] = []
    letters: list[DeadLetter] = []
    for is_frame, run in _runs(records):
        if is_frame:
            for record in run:
                try:
                    frame = decode_frame(record.value or b"")
                    event_type = None if frame.has("window_start") else catalog.find(frame.stream)
                    frame = conform(frame, event_type) if event_type is not None else frame
                except (InvalidFrame, SchemaMismatch) as error:
                    letters.append(dead_letter(record, topic, partition, reason=str(error), stage="decode"))
                else:
                    frames.append(SourcedFrame(frame, topic, partition, record.offset))
            continue
        decoded, index, refused = records_to_frame(topic, partition, stream, run, catalog)
        letters += [
            dead_letter(run[item.index], topic, partition, reason=item.reason, stage="decode") for item in refused
        ]
        if decoded is not None:
            offsets = np.array([run[row].offset for row in index], np.int64)
            frames.append(SourcedFrame(decoded, topic, partition, int(offsets[0]), offsets, last_offset=run[-1].offset))
    return frames, letters


def _runs(records: Sequence[KafkaRecord]) -> Iterator[tuple[bool, Sequence[KafkaRecord]]]:
    frames = [record.value is not None and record.value.startswith(_ARROW_MAGIC) for record in records]
    first = 0
    for is_frame, same in groupby(frames):
        last = first + len(list(same))
        yield is_frame, records[first:last]
        first = last
