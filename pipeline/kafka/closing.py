"""Closing aiokafka's clients: in a bounded time, and so that nobody waits for one that is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

__all__ = ["discard", "ended"]

_CLOSE_S: Final = 1.5


async def ended(close: Callable[[], Awaitable[object]], limit_s: float = _CLOSE_S) -> None:
    """Await ``close()`` of one of aiokafka's clients; after ``limit_s`` seconds cancel what it waits for.

    It cancels tasks and waits for their end. Up to Python 3.11 a task does not notice that it was cancelled if the
    response that it awaits arrives at the same moment (`asyncio.wait_for`); the second cancellation ends it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await close()


def _end_metadata(client: Any) -> None:
    """Fail those who wait for metadata of a closed client: aiokafka lets them wait for ever."""
    from aiokafka.errors import KafkaError

    def refuse() -> None:
        raise KafkaError("closed")

    client.force_metadata_update = refuse
    update = client._md_update_fut
    if update is not None and not update.done():
        update.set_exception(KafkaError("closed"))
        update.exception()  # otherwise asyncio warns where nobody waits


async def discard(producer: AIOKafkaProducer | None) -> None:
    """Close a producer without waiting for records that it holds; the caller keeps those that are not confirmed."""
    from aiokafka.errors import KafkaError

    if producer is None:
        return
    producer._closed = True
    producer._message_accumulator._closed = True
    sender = producer._sender.sender_task
    if sender is not None and not sender.done():
        sender.cancel()
    # Closing the connections fails the requests in flight, for which the cancelled sender waits.
    with contextlib.suppress(KafkaError, OSError):
        await ended(producer.client.close)
    _end_metadata(producer.client)
    if sender is not None:
        with contextlib.suppress(asyncio.CancelledError, KafkaError, TimeoutError):
            await asyncio.wait_for(sender, 5.0)
    held = producer._message_accumulator
    # Batches that were to be sent again are not among the pending ones, where aiokafka then looks for them.
    held._pending_batches.update(batch for batches in held._batches.values() for batch in batches)
    batches = list(held._pending_batches)
    held.fail_all(KafkaError("closed"))
    for batch in batches:
        if batch._drain_waiter.done() and not batch._drain_waiter.cancelled():
            batch._drain_waiter.exception()  # otherwise asyncio warns that its exception was never retrieved
