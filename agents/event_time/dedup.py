"""Deduplication: the ids of events are kept until the watermark passes the events.

A repeated event that the watermark has passed is late, so older ids need not be kept. Ids computed from
(run, sequence number) are kept as ranges; ids that producers set are kept one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame
from astrocyte.schemas.ids import parse_ids

__all__ = ["Delivered"]

Flags = NDArray[np.bool_]
FIRST_PURGE: Final = 65_536


@dataclass(slots=True)
class _Range:
    first: int
    last: int
    newest_us: int
    sequence: NDArray[np.int64] | None
    """Sequence numbers; None: every number from first to last."""


class Delivered:
    """Ids of the delivered events that the watermark has not passed yet."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[str, str], list[_Range]] = {}
        self._ids: dict[bytes, int] = {}
        self._purge_at = FIRST_PURGE
        self._undo: Callable[[], object] | None = None

    def again(self, frame: Frame) -> Flags | None:
        """Flags of duplicate rows (also within the frame); None where there are none. Records the ids of the others."""
        self._undo = None
        if not frame.num_rows:
            return None
        if frame.batch.schema.get_field_index("event_id") >= 0:
            return self._again_by_id(frame)
        times = frame.timestamps()
        contiguous = frame.batch.schema.get_field_index("seq") < 0
        ranges = self._ranges.setdefault((frame.stream, frame.run), [])
        newest = int(times.max())
        if contiguous:
            first, last, sequence = frame.first_seq, frame.first_seq + frame.num_rows - 1, None
        else:
            sequence = frame.sequences()
            first, last = int(sequence.min()), int(sequence.max())
            if len(np.unique(sequence)) < len(sequence):
                return self._again_by_number(ranges, sequence, newest)
        if all(last < known.first or first > known.last for known in ranges):
            tail = ranges[-1] if ranges else None
            if tail is not None and contiguous and tail.sequence is None and tail.last == first - 1:
                self._undo = partial(_shorten, tail, tail.last, tail.newest_us)
                tail.last, tail.newest_us = last, max(tail.newest_us, newest)
            else:
                ranges.append(_Range(first, last, newest, sequence))
                self._undo = ranges.pop
            return None
        return self._again_by_number(ranges, frame.sequences(), newest)

    def _again_by_number(self, ranges: list[_Range], sequence: NDArray[np.int64], newest: int) -> Flags | None:
        again = np.ones(len(sequence), np.bool_)
        again[np.unique(sequence, return_index=True)[1]] = False
        first, last = int(sequence.min()), int(sequence.max())
        for known in ranges:
            if last < known.first or first > known.last:
                continue
            if known.sequence is None:
                again |= (sequence >= known.first) & (sequence <= known.last)
            else:
                again |= np.isin(sequence, known.sequence)
        if not again.all():
            fresh = sequence[~again]
            ranges.append(_Range(int(fresh.min()), int(fresh.max()), newest, fresh.copy()))
            self._undo = ranges.pop
        return again if again.any() else None

    def _again_by_id(self, frame: Frame) -> Flags | None:
        data = frame.ids().tobytes()
        known, times = self._ids, frame.timestamps().tolist()
        names = [data[start : start + 16] for start in range(0, len(data), 16)]
        before = len(known)
        if known.keys().isdisjoint(names):
            self._undo = partial(_remove, known, names)
            known.update(zip(names, times, strict=True))
            if len(known) == before + len(names):
                return None
            again = np.ones(len(names), np.bool_)
            again[list({name: row for row, name in reversed(list(enumerate(names)))}.values())] = False
            return again
        again = np.zeros(len(names), np.bool_)
        added = []
        for row, name in enumerate(names):
            if name in known:
                again[row] = True
            else:
                known[name] = times[row]
                added.append(name)
        self._undo = partial(_remove, known, added)
        return again

    def undo(self) -> None:
        """Forget the ids that the last call of `again` recorded: its rows were not taken."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def is_new(self, text: str, time_us: int) -> bool:
        """Whether no event with this id, set by its producer, was delivered before; records the id."""
        name = parse_ids([text]).tobytes()
        if name in self._ids:
            return False
        self._ids[name] = time_us
        return True

    def purge(self, watermark_us: int) -> None:
        """Drop the ids of events that the watermark has passed."""
        for name in list(self._ranges):
            kept = [known for known in self._ranges[name] if known.newest_us >= watermark_us]
            if kept:
                self._ranges[name] = kept
            else:
                del self._ranges[name]
        if len(self._ids) > self._purge_at:
            self._ids = {name: time for name, time in self._ids.items() if time >= watermark_us}
            self._purge_at = max(FIRST_PURGE, 2 * len(self._ids))

    def clear(self) -> None:
        """Drop all ids."""
        self._ranges.clear()
        self._ids.clear()
        self._undo = None


def _shorten(known: _Range, last: int, newest_us: int) -> None:
    known.last, known.newest_us = last, newest_us


def _remove(known: dict[bytes, int], names: Sequence[bytes]) -> None:
    for name in names:
        known.pop(name, None)
