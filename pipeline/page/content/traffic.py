"""Messages of each topic over Kafka time: counted as they are read, or by the ends of the topics' partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.page.aggregates.axis import EMPTY, Axis
from astrocyte.pipeline.page.aggregates.grid import Grid, add, moved

__all__ = ["Traffic"]

_MOST_TOPICS: Final = 64
_OLDEST_MS: Final = 0
_NEWEST_MS: Final = 4_102_444_800_000
"""1970 to 2100: a message with another time is counted without one."""


class Traffic:
    """Messages by topic, of at most 64 topics; the others are counted in `unlisted`."""

    def __init__(self) -> None:
        self.axis: Axis = EMPTY
        self.messages: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self.unlisted = 0
        self.spans_us: dict[str, tuple[int, int]] = {}
        """By topic: the times of its first and its last message."""
        self._grids: dict[str, Grid] = {}
        self._ends: dict[str, int] = {}

    def take(self, records: Sequence[ConsumedRecord]) -> None:
        """Count messages that were read."""
        by_topic: dict[str, list[ConsumedRecord]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record)
        for topic, own in by_topic.items():
            if not self._lists(topic, len(own)):
                continue
            size = sum(len(record.value or b"") + len(record.key or b"") for record in own)
            self.bytes[topic] = self.bytes.get(topic, 0) + size
            times_ms = np.array([record.timestamp_ms for record in own], np.int64)
            times_ms = times_ms[(times_ms >= _OLDEST_MS) & (times_ms < _NEWEST_MS)]
            if len(times_ms):
                self._count(topic, times_ms * 1000, None)

    def ended(self, ends: Mapping[str, int], now_us: int) -> None:
        """Take the sums of the end offsets of topics; what came since the last call is counted at ``now_us``."""
        for topic, end in ends.items():
            new = max(end - self._ends.get(topic, end), 0)
            first = topic not in self._ends
            self._ends[topic] = end
            if self._lists(topic, end if first else new) and new:
                self._count(topic, np.array([now_us]), np.array([float(new)]))

    def rates(self, topic: str) -> NDArray[np.float64]:
        """Messages in a second by bucket, up to the newest."""
        used = self.axis.used
        grid = self._grids.get(topic)
        if grid is None:
            return np.zeros(used)
        return grid.totals[0, :used] / (self.axis.width_us / 1e6)

    def topics(self) -> list[str]:
        """The topics, sorted."""
        return sorted(self.messages)

    def _lists(self, topic: str, count: int) -> bool:
        if topic not in self.messages and len(self.messages) >= _MOST_TOPICS:
            self.unlisted += count
            return False
        self.messages[topic] = self.messages.get(topic, 0) + count
        return True

    def _count(self, topic: str, times_us: NDArray[np.int64], weights: NDArray[np.float64] | None) -> None:
        oldest_us, newest_us = int(times_us.min()), int(times_us.max())
        axis = self.axis.covering(oldest_us, newest_us)
        if not self.axis.is_empty and (axis.width_us, axis.first) != (self.axis.width_us, self.axis.first):
            self._grids = {name: moved(grid, self.axis, axis) for name, grid in self._grids.items()}
        self.axis = axis
        before = self.spans_us.get(topic, (oldest_us, newest_us))
        self.spans_us[topic] = min(before[0], oldest_us), max(before[1], newest_us)
        values = np.ones(len(times_us)) if weights is None else weights
        grid = self._grids.get(topic, Grid.of(1))
        self._grids[topic] = add(grid, axis.positions(times_us), None, values)
