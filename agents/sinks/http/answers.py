"""What an HTTP server's answer means to a sink, and how long it asks to be left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

__all__ = ["REFUSED", "TRANSIENT", "run_concurrently", "server_parts", "wait_hint"]

T = TypeVar("T")
R = TypeVar("R")

TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
REFUSED: Final = frozenset({400, 413, 422})
"""Statuses that say that what was sent can never be taken."""


def server_parts(url: str) -> SplitResult | None:
    """The parts of the address of an HTTP server; None for what is none."""
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if found else None


def wait_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds of the answer's Retry-After: a number, or a date, which is compared with the answer's Date."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        later = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, later.total_seconds())


async def run_concurrently(items: Sequence[T], send: Callable[[T], Awaitable[R]], at_once: int) -> list[R]:
    """Results of ``send`` for every item, in order; an error cancels the other calls and is raised."""
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, item in waiting:
            results[number] = await send(item)

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[number] for number in range(len(items))]
