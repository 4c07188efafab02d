"""What clients may hold of the broker's memory and time: half-sent requests, many slow clients, silent ones."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest
from confluent_kafka import Producer

from astrocyte.pipeline.broker.protocol.errors import BrokerError
from astrocyte.pipeline.broker.settings import BrokerSettings
from tests.support.broker import BrokerProcess, EmbeddedBroker, raw_connection
from tests.support.brokers import read_all
from tests.support.processes import memory_bytes, peak_memory_bytes
from tests.support.waiting import eventually

METADATA, FETCH = 3, 1
ALL_TOPICS = struct.pack(">i", -1) + b"\1"
MIB = 1 << 20


def small(tmp_path, **settings):
    limits = {"max_request_bytes": 2 * MIB, "max_message_bytes": MIB, "max_unfinished_bytes": 8 * MIB}
    return EmbeddedBroker(tmp_path, port=0, **limits | settings)


async def half_sent(client, size: int = MIB) -> None:
    """Announce a request of 2 MiB, send a part of it and no more."""
    client.writer.write(struct.pack(">i", 2 * MIB) + bytes(size))
    await client.writer.drain()


async def test_half_sent_requests_of_many_clients_are_bounded_together(tmp_path):
    async with small(tmp_path) as broker, AsyncExitStack() as stack:
        good = await stack.enter_async_context(raw_connection(broker.address))
        await good.ask(METADATA, 5, ALL_TOPICS)
        clients = []
        for _ in range(20):
            clients.append(await stack.enter_async_context(raw_connection(broker.address)))
            before = broker._intake.total_bytes
            await half_sent(clients[-1])
            await eventually(lambda before=before: broker._intake.total_bytes != before)
            assert broker._intake.total_bytes <= 8 * MIB
        # The first ones have been silent for the longest time.
        assert [await client.closed_by_broker() for client in clients[:12]] == [True] * 12
        await good.ask(METADATA, 5, ALL_TOPICS)
    assert broker._intake.total_bytes == 0


async def test_a_client_that_goes_on_sending_is_not_closed_for_those_that_stopped(tmp_path):
    async with small(tmp_path) as broker, AsyncExitStack() as stack:
        stopped = [await stack.enter_async_context(raw_connection(broker.address)) for _ in range(6)]
        for client in stopped:
            await half_sent(client)
        sender = await stack.enter_async_context(raw_connection(broker.address))
        request = struct.pack(">hhih", METADATA, 5, 1, -1) + struct.pack(">i", 1) + struct.pack(">h", 1) + b"t\1"
        body = request + bytes(1_900_000 - len(request))
        sender.writer.write(struct.pack(">i", len(body)) + body[:1_000_000])
        await sender.writer.drain()
        others = [await stack.enter_async_context(raw_connection(broker.address)) for _ in range(2)]
        for client in others:
            sender.writer.write(body[1_000_000:1_000_001])
            body = body[:1_000_000] + body[1_000_001:]
            await sender.writer.drain()
            await half_sent(client)
        sender.writer.write(body[1_000_000:])
        assert (await sender.receive())[0] == 1
        assert await stopped[0].closed_by_broker()


async def test_many_slow_clients_do_not_keep_others_from_their_answers(tmp_path):
    async with small(tmp_path, max_unfinished_bytes=100 * MIB) as broker, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(raw_connection(broker.address)) for _ in range(150)]
        for client in slow:
            client.writer.write(struct.pack(">i", MIB) + b"\0")
        await eventually(lambda: len(broker._intake.connections) == 150)
        good = await stack.enter_async_context(raw_connection(broker.address))
        for _ in range(20):
            await asyncio.wait_for(good.ask(METADATA, 5, ALL_TOPICS), 20)
            for client in slow:
                client.writer.write(b"\0")
        assert broker._intake.total_bytes <= 100 * MIB


async def test_a_silent_client_is_disconnected_and_one_that_is_owed_an_answer_is_not(tmp_path):
    async with small(tmp_path, idle_timeout_s=0.5) as broker, AsyncExitStack() as stack:
        broker.topics.create("t")
        silent, half, waiting = [await stack.enter_async_context(raw_connection(broker.address)) for _ in range(3)]
        await half_sent(half, 100)
        head = struct.pack(">iiiib", -1, 3_000, 1, MIB, 0) + struct.pack(">i", 1)
        waiting.send(FETCH, 4, head + struct.pack(">h", 1) + b"t" + struct.pack(">iiqi", 1, 0, 0, MIB))
        assert await silent.closed_by_broker()
        assert await half.closed_by_broker()
        assert len((await waiting.receive())[1]) > 0
        assert await waiting.closed_by_broker()


def test_five_hundred_slow_clients_take_bounded_memory_of_the_process_and_no_record_of_others(tmp_path):
    broker = BrokerProcess(tmp_path)
    broker.start()
    try:
        host, port = broker.address.rsplit(":", 1)
        before, limit = memory_bytes(broker.pid), BrokerSettings(data_dir=tmp_path).max_unfinished_bytes
        producer = Producer({"bootstrap.servers": broker.address, "log_level": 0})
        with ExitStack() as stack:
            for number in range(500):
                client = stack.enter_context(socket.create_connection((host, int(port)), 60))
                with suppress(ConnectionError):  # some are ended, so that others have room
                    # More than may be, or a request of 90 MB of which a megabyte comes.
                    client.sendall(struct.pack(">i", 2**31 - 1 if number % 10 == 0 else 90 * MIB) + bytes(MIB))
                producer.produce("events", str(number).encode())
                producer.poll(0)
            assert producer.flush(60) == 0
            grown = peak_memory_bytes(broker.pid) - before
            assert 100 * MIB < grown < limit + 64 * MIB, f"{grown / MIB:.0f} MiB"
        found = [each.value for part in read_all(broker.address, "events").values() for each in part]
        assert Counter(found) == Counter(str(number).encode() for number in range(500))
    finally:
        broker.kill()


def test_a_limit_below_one_request_is_refused(tmp_path):
    with pytest.raises(BrokerError, match=r"max_unfinished_bytes \(2097152\) must exceed max_request_bytes"):
        BrokerSettings(
            data_dir=tmp_path, max_message_bytes=MIB, max_request_bytes=2 * MIB, max_unfinished_bytes=2 * MIB
        )
