"""When the next snapshot of a domain is due: large states are stored less often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["LONGEST_PAUSE_S", "SnapshotSchedule"]

LONGEST_PAUSE_S: Final = 60.0
"""Longest time between snapshots, and so between commits, unless the interval is longer."""
_SHARE: Final = 0.1
"""Share of its time that a domain may spend on snapshots."""
_STORING_BYTES_PER_S: Final = 20 << 20
"""Rate by which storing a snapshot is a cost; all beyond it is waiting for the broker, which costs nothing."""


@dataclass(slots=True)
class SnapshotSchedule:
    """The schedule of one domain, and what its snapshots have cost so far."""

    interval_s: float
    stored_s: float
    """When the last snapshot was stored, or this life of the domain began."""
    due_s: float = field(init=False)
    count: int = 0
    cost_s: float = 0.0
    """Time that they took together."""
    last_bytes: int = 0

    def __post_init__(self) -> None:
        self.due_s = self.stored_s + self.interval_s

    def stored(self, now_s: float, *, packing_s: float, storing_s: float, size: int) -> None:
        """A snapshot of ``size`` bytes is stored: making it took ``packing_s``, and the broker ``storing_s``."""
        cost_s = packing_s + min(storing_s, size / _STORING_BYTES_PER_S)
        self.stored_s, self.last_bytes = now_s, size
        self.count += 1
        self.cost_s += cost_s
        self.due_s = now_s + max(self.interval_s, min(cost_s / _SHARE, LONGEST_PAUSE_S))
