"""Events that were pushed one at a time, until they become frames.

Each stream fills a block of handles; a full block, or any step that looks at rows, makes a frame of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from astrocyte.agents.ingest.dicts import frame_of
from astrocyte.schemas.frames import Frame

__all__ = ["EventBuffer"]

BLOCK: Final = 512


class EventBuffer:
    """Single events by stream, each with its handle."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
        self._first: dict[tuple[str, bool], int] = {}
        self.sequence: dict[str, int] = {}
        """Next sequence number by stream, for events without an id of their own."""

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def add(self, stream: str, event: Mapping[str, Any], next_ref: int) -> tuple[int, int]:
        """Hold an event; returns its handle, and the first handle that is free after it."""
        place = (stream, event.get("event_id") is not None)
        rows = self._rows.get(place)
        if rows is None:
            rows = self._rows[place] = []
            self._first[place] = next_ref
            next_ref += BLOCK
        rows.append(event)
        return self._first[place] + len(rows) - 1, next_ref

    def take_numbers(self, stream: str, count: int) -> int:
        """The first of the next ``count`` numbers of a stream, where no event of it is held."""
        first = self.sequence.get(stream, 0)
        self.sequence[stream] = first + count
        return first

    def last_sequence(self, stream: str) -> int:
        """Sequence number of the event without an id that was added last."""
        return self.sequence.get(stream, 0) + len(self._rows[stream, False]) - 1

    def is_full(self, stream: str, event: Mapping[str, Any]) -> bool:
        """Whether the block that holds ``event`` takes no more."""
        return len(self._rows.get((stream, event.get("event_id") is not None), ())) == BLOCK

    def take(self) -> list[tuple[int, Frame]]:
        """Frames of all events, each with the handle of its first row, in order of these; nothing is held after."""
        found = []
        for (stream, has_ids), rows in self._rows.items():
            first_seq = 0
            if not has_ids:
                first_seq = self.take_numbers(stream, len(rows))
            found.append((self._first[stream, has_ids], frame_of(stream, rows, first_seq=first_seq)))
        self._rows, self._first = {}, {}
        return sorted(found, key=lambda each: each[0])
