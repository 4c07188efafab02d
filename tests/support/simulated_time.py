"""A virtual clock with timers that only tests advance."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["SimulatedTimers"]


class _Timer:
    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class SimulatedTimers:
    """``time`` and ``call_later`` as an asyncio loop has them; seconds."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> _Timer:
        timer = _Timer(callback, args)
        heapq.heappush(self._timers, (self._now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Advance time, and call due timers in order."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.callback(*timer.args)
        self._now = end

    @property
    def pending(self) -> int:
        """Timers that are still pending."""
        return sum(not timer.cancelled for _, _, timer in self._timers)
