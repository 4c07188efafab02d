"""Retries of a sink without waiting: notices are recorded, and the cause is repaired after a given attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from astrocyte.agents.sinks.base import RetryNotice
from astrocyte.agents.sinks.retry import RetryPolicy

__all__ = ["RetryNotices"]


class RetryNotices(list[RetryNotice]):
    """All retry notices in order. ``mend`` is awaited instead of the wait after attempt ``at``."""

    def __init__(self, mend: Callable[[], Awaitable[object]] | None = None, at: int = 1) -> None:
        super().__init__()
        self.mend, self.at = mend, at

    def retry(self, name: str = "influx") -> RetryPolicy:
        return RetryPolicy(name, on_retry=self.append, sleep=self._sleep)

    @property
    def waits(self) -> list[float]:
        """Seconds that each failed attempt was to wait."""
        return [notice.wait_s for notice in self if notice.attempt]

    async def _sleep(self, _wait_s: float) -> None:
        if self.mend is not None and self[-1].attempt == self.at:
            await self.mend()
        assert len(self) < 20, self
