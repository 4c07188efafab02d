"""An event outside the engine that waits until the log shows whether its clock is right (`event_time.clock_guard`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from astrocyte.agents.ingest.copies import positions_of
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.schemas.frames import Frame, decode_frame, encode_frame
from astrocyte.schemas.json.reader import RawRecord

__all__ = ["Waiter"]


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """One event that waits until its clock is judged: row ``row`` as it came, row ``kept_row`` as validated."""

    sourced: SourcedFrame
    row: int
    kept: Frame
    kept_row: int

    @property
    def position(self) -> int:
        """Its position in its partition (`agents.ingest.copies.positions_of`)."""
        return int(positions_of(self.sourced)[self.row])

    def pack(self) -> dict[str, Any]:
        """The event for a snapshot: its row alone, with the message that it came in, and its number there."""
        sourced, row = self.sourced, self.row
        message = None
        if sourced.received is not None:
            record = sourced.received[row]
            message = [record.timestamp, record.key, record.value, [list(header) for header in record.headers]]
        return {
            "topic": sourced.topic,
            "offset": sourced.offset_of(row),
            "singly": sourced.offsets is not None,
            "number": sourced.row_of(row),
            "message": message,
            "frame": encode_frame(sourced.frame.take(np.array([row]))),
            "kept": encode_frame(self.kept.take(np.array([self.kept_row]))),
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any], *, partition: int) -> Waiter:
        """The event of a snapshot."""
        offset = int(packed["offset"])
        frame, kept = (decode_frame(bytes(packed[name]), bounded=False) for name in ("frame", "kept"))
        numbers = None if packed["number"] is None else np.array([packed["number"]], np.int64)
        offsets = np.array([offset], np.int64) if packed["singly"] else None
        received = None
        if packed["message"] is not None:
            time_ms, key, value, headers = packed["message"]
            received = [RawRecord(offset, time_ms, key, value, [(name, bytes(given)) for name, given in headers])]
        sourced = SourcedFrame(frame, packed["topic"], partition, offset, offsets, received=received, numbers=numbers)
        return cls(sourced, 0, kept, 0)
