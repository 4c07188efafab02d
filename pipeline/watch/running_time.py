"""Time in which this process ran: a watch that was stopped itself must not say that others stood still meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["RunningTime"]

_LONGEST_LOOK_S: Final = 2.0
"""More time than this between two looks is time in which this process did not run."""


@dataclass(slots=True)
class RunningTime:
    """Counts the seconds between looks, of which there is about one a second."""

    seconds: float = 0.0
    _looked_s: float | None = None

    def look(self, now_s: float) -> None:
        """Count the time since the look before."""
        if self._looked_s is not None:
            self.seconds += min(max(0.0, now_s - self._looked_s), _LONGEST_LOOK_S)
        self._looked_s = now_s
