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


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0, what: Callable[[], str] | str = "") -> Any:
    """The first true value of ``condition``; the test fails with ``what`` if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        _fail_after(deadline, timeout_s, what)
        time.sleep(_PAUSE_S)
    return value


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], timeout_s: float = 30.0, what: Callable[[], str] | str = ""
) -> Any:
    """``wait_until`` for coroutines and inside a running loop."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return value
        _fail_after(deadline, timeout_s, what)
        await asyncio.sleep(_PAUSE_S)


async def loop_turns(count: int) -> None:
    """Let all runnable tasks run ``count`` times: what has not happened then waits for something else."""
    for _ in range(count):
        await asyncio.sleep(0)


def _fail_after(deadline: float, timeout_s: float, what: Callable[[], str] | str) -> None:
    if time.monotonic() > deadline:
        said = what() if callable(what) else what
        pytest.fail(f"waited {timeout_s:.0f} s in vain for {said or 'the condition'}")
