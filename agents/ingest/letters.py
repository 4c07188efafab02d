"""Rows of frames as JSON records and as dead letters, also rows that no JSON record can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrocyte.agents.ingest.decode import dead_letter, row_record
from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.catalog import Catalog
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.frames import CONTENT_TYPE, Frame, encode_frame
from astrocyte.schemas.json.reader import JsonRecord, RawRecord, frame_to_records

__all__ = ["RowRecords", "row_letter", "row_records"]


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
