"""Dead letters: of messages, and of rows of frames, also of rows that no JSON record can hold."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.arrow.stream import ARROW_MAGIC
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, decode_frame, encode_frame
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import (
    CUT_HEADER,
    ROW_ALONE,
    ROW_HEADER,
    JsonRecord,
    KafkaRecord,
    RawRecord,
    frame_to_records,
)
from astrocyte.schemas.times import is_in_calendar, iso_from_us

__all__ = ["RowRecords", "dead_letter", "events_in", "row_letter", "row_record", "row_records"]

_WHOLE: Final = 16 << 20
"""Bytes of key, value and headers up to which a letter holds all of them: in base64 they fit the topic of letters."""
_PREFIX: Final = 64 << 10
"""Bytes that a letter holds of a larger value, and of all its headers and of its key together."""
_MOST_REASON: Final = 2000
"""Characters of a reason."""


def dead_letter(
    record: KafkaRecord, topic: str, partition: int, *, reason: str, stage: str, row: int | None = None
) -> DeadLetter:
    """The record as a dead letter; its id is a function of its offset, so that writing it again is idempotent.

    Without a Kafka timestamp, or with one outside the calendar, the letter has none, and its reason says which. Of a
    record of more than 16 MiB it holds the begin, and its size and hash (`schemas.json.reader.CUT_HEADER`).
    """
    reason = reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON]}..."
    time_us = record.timestamp * 1000
    dated = record.timestamp != -1 and is_in_calendar(time_us)
    if record.timestamp != -1 and not dated and str(record.timestamp) not in reason:
        reason += f" (Kafka timestamp {record.timestamp})"
    key, value, headers = record.key, record.value, [(name, value or b"") for name, value in record.headers]
    size = len(key or b"") + len(value or b"") + sum(len(name) + len(given) for name, given in headers)
    if size > _WHOLE:
        digest = hashlib.sha256(value or b"").hexdigest()
        reason += (
            f" (of {size:,} bytes the letter holds the begin; the value has {len(value or b''):,}, SHA-256 {digest})"
        )
        key, value, headers = _cut(key, value, headers, f"{len(value or b'')} sha256:{digest}")
    return DeadLetter.model_validate(
        {
            "letter_id": str(hash_id("dead", topic, str(partition), str(record.offset), str(row), stage)),
            "reason": reason,
            "stage": stage,
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "row": row,
            "timestamp": iso_from_us(time_us) if dated else None,
            "key_b64": None if key is None else b64encode(key).decode(),
            "payload_b64": None if value is None else b64encode(value).decode(),
            "headers": tuple((name, b64encode(given).decode()) for name, given in headers),
        }
    )


def _cut(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]], was: str
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """The begins of key and value, and the first headers, after one that says what the value was."""
    kept, room = [(CUT_HEADER, was.encode())], _PREFIX
    for name, given in headers:
        room -= len(name) + len(given)
        if room < 0:
            break
        kept.append((name, given))
    return None if key is None else key[:_PREFIX], None if value is None else value[:_PREFIX], kept


def events_in(letter: DeadLetter) -> int:
    """Number of events in a dead letter: the rows of a frame that was refused as a whole, else one."""
    if letter.row is not None or letter.payload_b64 is None:
        return 1
    if not b64decode(letter.payload_b64[:8]).startswith(ARROW_MAGIC):  # of other messages that is all that is needed
        return 1
    try:
        return decode_frame(b64decode(letter.payload_b64)).num_rows
    except InvalidFrame:
        return 1


def row_record(
    offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
) -> RawRecord:
    """A record that holds an event itself, not the message in which it came; a retry reads it as that."""
    return RawRecord(offset, timestamp_ms, key, value, [*headers, (ROW_HEADER, ROW_ALONE)])


@dataclass(frozen=True, slots=True)
class RowRecords:
    """JSON records of the rows of a frame, and the rows that no JSON record can hold, with the reason."""

    records: list[JsonRecord]
    rows: list[int]
    """Row of each record."""
    failed: list[tuple[int, str]]


def row_records(frame: Frame, rows: Sequence[int], catalog: Catalog) -> RowRecords:
    """JSON records of some rows of a frame, in order."""
    found = RowRecords([], [], [])

    def attempt(first: int, last: int) -> None:
        found.records.extend(frame_to_records(frame.take(np.array(rows[first:last], np.int64)), catalog))
        found.rows.extend(rows[first:last])

    def refuse(at: int, error: Exception) -> None:
        found.failed.append((rows[at], reason_of("writing an event as JSON", error)))

    apart(len(rows), attempt, refuse)
    return found


def row_letter(sourced: SourcedFrame, row: int, *, reason: str, stage: str, catalog: Catalog) -> DeadLetter:
    """Dead letter of one row: the message as it was received, where that held one record.

    Of a row of a frame it is the row's JSON record, or a frame of this row alone where no JSON record can hold it.
    """
    raw = _raw(sourced, row, catalog) if sourced.received is None else sourced.received[row]
    inside = sourced.row_of(row)
    return dead_letter(raw, sourced.topic, sourced.partition, reason=reason, stage=stage, row=inside)


def _raw(sourced: SourcedFrame, row: int, catalog: Catalog) -> RawRecord:
    frame = sourced.frame
    found = row_records(frame, [row], catalog)
    key: bytes | None
    value: bytes | None
    key, value, headers = found.records[0] if found.records else _alone(frame, row)
    return row_record(sourced.offset_of(row), int(frame.timestamps()[row]) // 1000, key, value, headers)


def _alone(frame: Frame, row: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    # Not `take`, which some types of columns do not have.
    part = frame.slice(row, row + 1)
    one = Frame(
        frame.stream, frame.run, part.batch, first_seq=part.first_seq, version=frame.version, weight=frame.weight
    )
    try:
        return None, encode_frame(one), [("content-type", CONTENT_TYPE.encode())]
    except Exception:  # noqa: BLE001  the letter must be written even if nothing can hold its event
        return None, None, []
