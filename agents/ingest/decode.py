"""Kafka messages to frames, one chunk of a partition at a time, in which frames, JSON and other forms may be mixed.

Every message is accounted for: it is in a frame, or it is a dead letter with its reason and its bytes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from astrocyte.agents.ingest.decoders import ARROW, JSON, Decoder, chosen_decoders, run_decoder
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import Frame, conform, decode_frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import KafkaRecord, is_retried, records_to_frame
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import stream_of

__all__ = ["RETRY_ORIGIN", "dead_letter", "decode_chunk"]

RETRY_ORIGIN: Final = "astrocyte.retry"
"""Origin of the frames of dead letters that were sent again."""
_CEILING_MS: Final = 4_102_444_800_000
"""The year 2100."""


def dead_letter(
    record: KafkaRecord, topic: str, partition: int, *, reason: str, stage: str, row: int | None = None
) -> DeadLetter:
    """The record as a dead letter; its id is a function of its offset, so that writing it again is idempotent."""
    return DeadLetter.model_validate(
        {
            "letter_id": str(hash_id("dead", topic, str(partition), str(record.offset), str(row), stage)),
            "reason": reason,
            "stage": stage,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "row": row,
            "timestamp": _time_text(record.timestamp),
            "key_b64": None if record.key is None else b64encode(record.key).decode(),
            "payload_b64": None if record.value is None else b64encode(record.value).decode(),
            "headers": tuple((name, b64encode(value or b"").decode()) for name, value in record.headers),
        }
    )


def _time_text(time_ms: int) -> str | None:
    """ISO 8601 text of a Kafka timestamp; None for one that no event can have."""
    return iso_from_us(time_ms * 1000) if 0 <= time_ms < _CEILING_MS else None


def decode_chunk(
    topic: str, partition: int, records: Sequence[KafkaRecord], catalog: Catalog = CATALOG
) -> tuple[list[SourcedFrame], list[DeadLetter]]:
    """Frames of the chunk in offset order, and dead letters of the messages that cannot be decoded.

    The catalog's types are enforced. A message that raises anything at all is a dead letter, and the others are read.
    """
    stream = stream_of(topic) or topic
    frames: list[SourcedFrame] = []
    letters: list[DeadLetter] = []
    for decoder, run in _runs(records):
        if decoder is JSON:
            _read_json(_Run(topic, partition, stream, run, catalog), frames, letters)
            continue
        for record in run:
            try:
                made = (
                    decode_frame(record.value or b"")
                    if decoder is ARROW
                    else run_decoder(decoder, record, topic, partition)
                )
                if isinstance(made, Frame):
                    event_type = None if made.has("window_start") else catalog.find(made.stream)
                    made = conform(made, event_type) if event_type is not None else made
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  a message that raises is refused, whatever it raises
                reason = reason_of("decoding a message", error)
                letters.append(dead_letter(record, topic, partition, reason=reason, stage="decode"))
                continue
            if isinstance(made, Frame):
                made = retried_frame(made) if is_retried(record) else made
                frames.append(SourcedFrame(made, topic, partition, record.offset))
            else:
                _read_json(_Run(topic, partition, stream, made, catalog, record), frames, letters)
    return frames, letters


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive JSON records of one partition; ``source`` is the message from which a decoder made them, if any."""

    topic: str
    partition: int
    stream: str
    records: Sequence[KafkaRecord]
    catalog: Catalog
    source: KafkaRecord | None = None


def _read_json(run: _Run, frames: list[SourcedFrame], letters: list[DeadLetter]) -> None:
    def attempt(first: int, last: int) -> None:
        records = run.records[first:last] if last - first < len(run.records) else run.records
        decoded, index, refused = records_to_frame(run.topic, run.partition, run.stream, records, run.catalog)
        for item in refused:
            refuse_record(first + item.index, item.reason)
        if decoded is not None:
            decoded = (
                retried_frame(decoded) if is_retried(records[0] if run.source is None else run.source) else decoded
            )
            offsets = np.array([records[row].offset for row in index], np.int64)
            end = records[-1].offset
            frames.append(SourcedFrame(decoded, run.topic, run.partition, int(offsets[0]), offsets, last_offset=end))

    def refuse_record(at: int, reason: str) -> None:
        record, row = (run.records[at], None) if run.source is None else (run.source, at)
        letters.append(dead_letter(record, run.topic, run.partition, reason=reason, stage="decode", row=row))

    def refuse(at: int, error: Exception) -> None:
        refuse_record(at, reason_of("decoding a message", error))

    apart(len(run.records), attempt, refuse)


def _runs(records: Sequence[KafkaRecord]) -> Iterator[tuple[Decoder, Sequence[KafkaRecord]]]:
    first = 0
    # Messages that were sent again say nothing about event time, so they form frames of their own.
    for (decoder, _), same in groupby(zip(_chosen(records), map(is_retried, records), strict=True)):
        last = first + len(list(same))
        yield decoder, records[first:last]
        first = last


def retried_frame(frame: Frame) -> Frame:
    """The frame of a dead letter that was sent again: it comes from a source that never delays event time."""
    return replace(frame, origin=RETRY_ORIGIN, watermark_us=None, end=False, peers=())


def _chosen(records: Sequence[KafkaRecord]) -> list[Decoder]:
    """The decoder of each message; JSON, which refuses it with a reason, for one on which a recogniser raises."""
    try:
        return chosen_decoders(records)
    except Exception as error:  # noqa: BLE001  a recogniser is a function of the user's
        reason_of("recognising a message", error)
    chosen = []
    for record in records:
        try:
            chosen += chosen_decoders([record])
        except Exception:  # noqa: BLE001  as above
            chosen.append(JSON)
    return chosen
