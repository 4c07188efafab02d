"""Clients of Kafka: what their errors mean, and closing them."""

import asyncio
import contextlib

import pytest
from aiokafka.client import AIOKafkaClient

from astrocyte.pipeline.kafka.client import BrokerUnavailable, _translated
from astrocyte.pipeline.kafka.closing import ended


class LosesTheFirstCancellation:
    """A client whose own task does not notice that it was cancelled, as aiokafka's up to Python 3.11."""

    def __init__(self) -> None:
        self._cancelled = 0
        self.running = asyncio.Event()
        self._task = asyncio.ensure_future(self._routine())
        self.connected = True

    async def _routine(self) -> None:
        while self._cancelled < 2:
            self.running.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self._cancelled += 1

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.connected = False


async def test_closing_ends_though_a_task_of_the_client_lost_its_cancellation():
    client = LosesTheFirstCancellation()
    await client.running.wait()
    async with asyncio.timeout(30):
        await ended(client.close, limit_s=0.01)
    assert not client.connected


async def test_an_error_of_closing_is_raised():
    async def close() -> None:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await ended(close)


async def test_a_broker_that_does_not_answer_a_request_for_metadata_is_unavailable():
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    # aiokafka raises its base class here, which is not among the retriable ones.
    with pytest.raises(BrokerUnavailable), _translated("127.0.0.1:1"):
        await client.fetch_all_metadata()
