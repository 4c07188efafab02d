"""The one place in which tests wait: for a condition, with a limit, and never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import pytest

__all__ = ["eventually", "loop_turns", "wait_until"]

_PAUSE_S = 0.01  # between two looks; it only spares the processor
_LONGEST_PAUSE_S = 1.0
_PAUSES_PER_LOOK = 3  # a look that reads whole topics would otherwise take the time of what is waited for


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0, what: Callable[[], str] | str = "") -> Any:
    """The first true value of ``condition``; the test fails with ``what`` if there is none in time."""
    deadline = time.monotonic() + timeout_s
    began = time.monotonic()
    while not (value := condition()):
        _fail_after(deadline, timeout_s, what)
        time.sleep(_pause_s(began))
        began = time.monotonic()
    return value


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], timeout_s: float = 30.0, what: Callable[[], str] | str = ""
) -> Any:
    """``wait_until`` for coroutines and inside a running loop."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return value
        _fail_after(deadline, timeout_s, what)
        await asyncio.sleep(_pause_s(began))


async def loop_turns(count: int) -> None:
    """Let all runnable tasks run ``count`` times: what has not happened then waits for something else."""
    for _ in range(count):
        await asyncio.sleep(0)


def _pause_s(began: float) -> float:
    """Seconds until the next look: the longer the last one took, the longer."""
    return min(max(_PAUSE_S, _PAUSES_PER_LOOK * (time.monotonic() - began)), _LONGEST_PAUSE_S)


def _fail_after(deadline: float, timeout_s: float, what: Callable[[], str] | str) -> None:
    if time.monotonic() > deadline:
        said = what() if callable(what) else what
        pytest.fail(f"waited {timeout_s:.0f} s in vain for {said or 'the condition'}")
