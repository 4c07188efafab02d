"""A sink's patience without waiting: trouble is heard of, and mended at a given attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from astrocyte.agents.sinks.base import Trouble
from astrocyte.agents.sinks.retry import Patience

__all__ = ["Troubles"]


class Troubles(list[Trouble]):
    """Every trouble in order. ``mend`` is awaited instead of the wait after attempt ``at``."""

    def __init__(self, mend: Callable[[], Awaitable[object]] | None = None, at: int = 1) -> None:
        super().__init__()
        self.mend, self.at = mend, at

    def patience(self, name: str = "influx") -> Patience:
        return Patience(name, on_trouble=self.append, sleep=self._sleep)

    @property
    def waits(self) -> list[float]:
        """Seconds that each failed attempt was to wait."""
        return [trouble.wait_s for trouble in self if trouble.attempt]

    async def _sleep(self, _wait_s: float) -> None:
        if self.mend is not None and self[-1].attempt == self.at:
            await self.mend()
        assert len(self) < 20, self
