"""Pacing of a replay: when each message is due, with rate changes, pause and single steps while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Final, Protocol

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["MAX_RATE", "Clock", "Tempo", "WallClock", "parse_rate"]

MAX_RATE: Final = math.inf
_STEP: Final = 2.0


class Clock(Protocol):
    """Clock for waiting; tests use one whose time advances at once."""

    def now(self) -> float:
        """Seconds of a monotonic clock."""

    async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
        """Return after ``seconds`` (None: never), or as soon as ``changed`` is set."""


class WallClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def wait(self, changed: asyncio.Event, seconds: float | None) -> None:
        """Sleep ``seconds``, at most until ``changed`` is set."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), seconds)


def parse_rate(text: str) -> float:
    """``max``, or a positive factor such as 0.1 or 10. Raises InvalidSettings."""
    if text == "max":
        return MAX_RATE
    try:
        rate = float(text.removesuffix("x"))
    except ValueError:
        rate = math.nan
    if not rate > 0 or math.isinf(rate):
        raise InvalidSettings(f"--rate: expected a positive factor such as 0.5 or 10, or max, got {text!r}")
    return rate


class Tempo:
    """Maps times of the log to times of the clock. Changes take effect at once, also on the message due next."""

    def __init__(self, rate: float = 1.0, *, paused: bool = False, clock: Clock | None = None) -> None:
        self.rate = rate
        self.paused = paused
        self._clock = clock or WallClock()
        self._changed = asyncio.Event()
        self._steps = 0
        self._anchor_us: int | None = None
        self._anchor_s = 0.0

    async def until(self, log_us: int) -> bool:
        """Wait until the message of time ``log_us`` is due; returns whether it had to wait."""
        waited = False
        while True:
            self._changed.clear()
            if self._anchor_us is None:
                self._anchor(log_us)
            if self.paused:
                if self._steps:
                    self._steps -= 1
                    self._anchor(log_us)
                    return waited
                delay: float | None = None
            elif math.isinf(self.rate):
                return waited
            else:
                assert self._anchor_us is not None  # set above; nothing was awaited since
                delay = (log_us - self._anchor_us) / 1e6 / self.rate - (self._clock.now() - self._anchor_s)
                if delay <= 0:
                    return waited
            waited = True
            await self._clock.wait(self._changed, delay)

    def ready(self, log_us: int) -> bool:
        """Whether `until` would return at once."""
        if self.paused:
            return False
        if math.isinf(self.rate):
            return True
        if self._anchor_us is None:
            return False  # `until` sets the reference time for all later messages
        return (log_us - self._anchor_us) / 1e6 / self.rate <= self._clock.now() - self._anchor_s

    def toggle(self) -> None:
        """Pause, or continue from the paused position."""
        if not self.paused:
            self._anchor(self._log_now())
        else:
            self._anchor_s = self._clock.now()
        self.paused = not self.paused
        self._changed.set()

    def step(self) -> None:
        """Release one message while paused."""
        if self.paused:
            self._steps += 1
            self._changed.set()

    def faster(self) -> None:
        """Double the rate."""
        self._set_rate(self.rate * _STEP)

    def slower(self) -> None:
        """Halve the rate; from ``max`` to 1."""
        self._set_rate(1.0 if math.isinf(self.rate) else self.rate / _STEP)

    def _set_rate(self, rate: float) -> None:
        if not self.paused:
            self._anchor(self._log_now())
        self.rate = rate
        self._changed.set()

    def _log_now(self) -> int | None:
        if self._anchor_us is None or math.isinf(self.rate):
            return None
        return self._anchor_us + round((self._clock.now() - self._anchor_s) * self.rate * 1e6)

    def _anchor(self, log_us: int | None) -> None:
        self._anchor_us = log_us
        self._anchor_s = self._clock.now()
