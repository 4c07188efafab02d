"""Calls of a sink's methods: one at a time, and none is cancelled, since a thread that it waits for would run on.

A method that is cancelled while `asyncio.to_thread` runs leaves the thread: another call, or ``close``, would then use
what the thread uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["SinkCalls"]

T = TypeVar("T")


class SinkCalls:
    """The calls of one sink."""

    def __init__(self) -> None:
        self._running: asyncio.Task[Any] | None = None
        self._what = ""

    async def run(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Result of ``call``, which begins once the call before has ended.

        If this is cancelled, the call goes on, and its result is lost.
        """
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        task = asyncio.create_task(_coroutine(call))
        self._running, self._what = task, what
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def unfinished(self, limit_s: float) -> str | None:
        """Wait for the call that runs; returns what it is where it has not ended after ``limit_s`` seconds."""
        if self._running is None:
            return None
        await asyncio.wait([self._running], timeout=limit_s)
        return None if self._running.done() else self._what


def _coroutine(call: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
    async def made() -> T:
        return await call()

    return made()


def _seen(task: asyncio.Task[Any]) -> None:
    """Take note of the error of a call for which nobody waits any more; nothing of it was acknowledged."""
    if not task.cancelled():
        task.exception()
