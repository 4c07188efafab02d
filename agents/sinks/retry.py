"""Retries: how every sink waits for an unavailable store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from astrocyte.agents.sinks.base import OnRetry, RetryNotice, SinkStopped
from astrocyte.schemas.errors import redacted

__all__ = ["RetryPolicy"]

T = TypeVar("T")


def _ignore(notice: RetryNotice) -> None:
    """Default callback: ignore retry notices."""


@dataclass(slots=True)
class RetryPolicy:
    """Exponential back-off: waits double from ``first_s`` to ``most_s`` seconds, until success or ``stop`` is set.

    ``sleep`` is an argument so that tests need not wait. There is no jitter: a sink has one connection, so there are
    no simultaneous retries to spread.
    """

    sink: str
    on_retry: OnRetry = _ignore
    first_s: float = 0.1
    most_s: float = 5.0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    sleep: Callable[[float], Awaitable[None]] | None = None

    async def persist(
        self,
        attempt: Callable[[], Awaitable[T]],
        is_transient: Callable[[Exception], str | None],
        wait_hint: Callable[[Exception], float | None] = lambda _: None,
    ) -> T:
        """Result of the first ``attempt`` that succeeds.

        ``is_transient`` returns the reason to report if a retry may succeed, else None: then the error is raised.
        ``wait_hint`` returns the wait in seconds that the store requested, if any. Raises SinkStopped.
        """
        failures = 0
        while True:
            try:
                result = await attempt()
            except Exception as error:
                reason = is_transient(error)
                if reason is None:
                    raise
                failures += 1
                reason = redacted(reason)
                hinted = wait_hint(error)
                wait_s = min(self.first_s * 2 ** min(failures - 1, 30), self.most_s) if hinted is None else hinted
                self.on_retry(RetryNotice(self.sink, failures, wait_s, reason))
                await self._wait(wait_s, reason, error)
            else:
                if failures:
                    self.on_retry(RetryNotice(self.sink, 0, 0.0, f"the store took the batch at attempt {failures + 1}"))
                return result

    async def _wait(self, wait_s: float, reason: str, error: Exception) -> None:
        if not self.stop.is_set():
            if self.sleep is not None:
                await self.sleep(wait_s)
            else:
                try:
                    await asyncio.wait_for(self.stop.wait(), wait_s)
                except TimeoutError:
                    return
        if self.stop.is_set():
            raise SinkStopped(
                f"sink {self.sink!r} was stopped while its store was unavailable ({reason}); nothing of the batch was "
                "confirmed, it will be read again"
            ) from error
