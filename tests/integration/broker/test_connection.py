"""Connections at the level of bytes: frames cut anywhere, pipelining, long polls, garbage, slow readers."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from astrocyte.pipeline.broker.protocol.messages import APIS
from tests.support.broker import EmbeddedBroker, make_batch, raw_connection
from tests.support.waiting import eventually
from tests.support.wire_values import value_of

PRODUCE, FETCH, METADATA, API_VERSIONS = 0, 1, 3, 18


@pytest.fixture
async def broker(tmp_path):
    async with EmbeddedBroker(
        tmp_path, port=0, default_partitions=1, max_request_bytes=2 << 20, max_message_bytes=1 << 20
    ) as b:
        yield b


def produce(topic, batch, acks=-1):
    body = b"\xff\xff" + struct.pack(">hi", acks, 1000) + struct.pack(">i", 1)
    return body + struct.pack(">h", len(topic)) + topic + struct.pack(">iii", 1, 0, len(batch)) + bytes(batch)


def fetch(topic, offset, *, wait_ms=0, min_bytes=1, max_bytes=1 << 20):
    body = struct.pack(">iiiib", -1, wait_ms, min_bytes, max_bytes, 0) + struct.pack(">i", 1)
    return body + struct.pack(">h", len(topic)) + topic + struct.pack(">iiqi", 1, 0, offset, max_bytes)


def metadata(*topics):
    return struct.pack(">i", len(topics)) + b"".join(struct.pack(">h", len(t)) + t for t in topics) + b"\1"


def decoded(key, version, body):
    return APIS[key].response.at_version(version).read(body, 0)[0]


async def test_requests_arrive_whole_however_they_are_cut(broker):
    async with raw_connection(broker.address) as client:
        frames = bytearray()
        for i in range(20):
            frame = struct.pack(">hhih", METADATA, 5, i, -1) + metadata(b"t%d" % i)
            frames += struct.pack(">i", len(frame)) + frame
        rng, at = random.Random(1), 0
        while at < len(frames):
            step = rng.choice([1, 2, 3, 5, 40])
            client.writer.write(bytes(frames[at : at + step]))
            await client.writer.drain()
            at += step
        for i in range(20):
            correlation, body = await client.receive()
            assert correlation == i
            assert decoded(METADATA, 5, body)["topics"][0]["name"] == f"t{i}"


async def test_pipelined_requests_are_answered_in_order_even_behind_a_long_poll(broker):
    async with raw_connection(broker.address) as client, raw_connection(broker.address) as other:
        await client.ask(METADATA, 5, metadata(b"t"))
        client.send(FETCH, 4, fetch(b"t", 0, wait_ms=20_000), correlation_id=1)
        client.send(METADATA, 5, metadata(b"t"), correlation_id=2)
        client.send(API_VERSIONS, 0, b"", correlation_id=3)
        await other.ask(PRODUCE, 7, produce(b"t", make_batch([b"value"])))
        assert [(await client.receive())[0] for _ in range(3)] == [1, 2, 3]


async def test_a_long_poll_waits_for_its_bytes_and_no_longer(broker):
    async with raw_connection(broker.address) as client, raw_connection(broker.address) as other:
        await client.ask(METADATA, 5, metadata(b"t"))
        batch = bytes(make_batch([b"v" * 100]))
        client.send(FETCH, 4, fetch(b"t", 0, wait_ms=20_000, min_bytes=3 * len(batch)))
        answer = asyncio.create_task(client.receive())
        for _ in range(2):
            await other.ask(PRODUCE, 7, produce(b"t", batch))
            assert not answer.done()
        await other.ask(PRODUCE, 7, produce(b"t", batch))
        assert len((await answer)[1]) > 3 * len(batch)


async def test_a_long_poll_ends_empty_when_its_time_is_over(broker):
    async with raw_connection(broker.address) as client:
        await client.ask(METADATA, 5, metadata(b"t"))
        answer = await client.ask(FETCH, 4, fetch(b"t", 0, wait_ms=30))
        assert answer.endswith(struct.pack(">i", 0))


async def test_a_long_poll_ends_with_its_connection(broker):
    log = broker.topics.create("t").logs[0]
    async with raw_connection(broker.address) as client:
        client.send(FETCH, 4, fetch(b"t", 0, wait_ms=600_000))
        await eventually(lambda: log._listeners, what="the long poll")
    await eventually(lambda: not log._listeners, what="the end of the long poll")
    await eventually(lambda: not broker._intake.connections)


async def test_a_long_poll_ends_when_its_topic_is_deleted(broker):
    broker.topics.create("t")
    async with raw_connection(broker.address) as client:
        client.send(FETCH, 4, fetch(b"t", 0, wait_ms=600_000))
        await eventually(lambda: broker.topics.log("t", 0)._listeners)
        async with raw_connection(broker.address) as other:
            await other.ask(20, 1, struct.pack(">i", 1) + b"\0\1t" + struct.pack(">i", 1000))
        assert struct.pack(">ih", 0, 3) in (await client.receive())[1]


async def test_acks_0_gets_no_answer(broker):
    async with raw_connection(broker.address) as client:
        await client.ask(METADATA, 5, metadata(b"t"))
        client.send(PRODUCE, 7, produce(b"t", make_batch([b"v"]), acks=0), correlation_id=8)
        client.send(API_VERSIONS, 0, b"", correlation_id=9)
        assert (await client.receive())[0] == 9
    assert broker.topics.log("t", 0).end_offset == 1


async def test_an_unknown_version_of_api_versions_is_answered_with_what_is_offered(broker):
    async with raw_connection(broker.address) as client:
        for version in (3, 99):
            answer = decoded(API_VERSIONS, 0, await client.ask(API_VERSIONS, version, b"\1\1\0"))
            assert answer["error_code"] == 35
            offered = {a["api_key"]: (a["min_version"], a["max_version"]) for a in answer["api_keys"]}
            assert offered[PRODUCE] == (0, 7)
            assert offered[FETCH] == (4, 11)
            assert not {24, 25, 26, 28} & offered.keys(), "transactions are not offered"


async def test_message_sets_of_old_produce_versions_are_refused_by_partition(broker):
    broker.topics.create("t")
    async with raw_connection(broker.address) as client:
        for version, length in ((0, 14), (1, 14), (2, 22)):
            answer = await client.ask(PRODUCE, version, produce(b"t", b"x" * 40)[2:])
            assert struct.unpack_from(">h", answer, 4 + 3 + 4 + 4)[0] == 35
            assert len(answer) == 11 + length + (4 if version else 0)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -5),
        struct.pack(">i", 1 << 30),
        struct.pack(">i", 2**31 - 1) + bytes(100),
        struct.pack(">i", 3) + b"abc",
        struct.pack(">i", 8) + struct.pack(">hhi", 99, 0, 1),
        struct.pack(">i", 8) + struct.pack(">hhi", METADATA, 90, 1),
        struct.pack(">i", 10) + struct.pack(">hhih", METADATA, 1, 1, 500),
        struct.pack(">i", 12) + struct.pack(">hhih", METADATA, 1, 1, 2) + b"\xff\xfe",
        struct.pack(">i", 12) + struct.pack(">hhih", METADATA, 1, 1, -1) + b"\0\1",
        struct.pack(">i", 14) + struct.pack(">hhih", METADATA, 1, 1, -1) + b"\x7f\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40,
    ],
)
async def test_a_malformed_frame_closes_only_its_connection_and_is_logged(broker, data, caplog):
    async with raw_connection(broker.address) as good, raw_connection(broker.address) as bad:
        await good.ask(METADATA, 5, metadata(b"t"))
        bad.writer.write(data)
        assert await bad.closed_by_broker()
        assert "closing the connection" in caplog.text
        assert not [record for record in caplog.records if record.exc_info], "a client's fault is no failure of ours"
        await good.ask(METADATA, 5, metadata(b"t"))


async def test_random_and_mutated_frames_never_stop_the_broker(broker, caplog):
    rng = random.Random(11)
    bodies = {
        PRODUCE: produce(b"t", make_batch([b"value"] * 3)),
        FETCH: fetch(b"t", 0),
        METADATA: metadata(b"t", b"u"),
    }
    for _ in range(600):
        key = rng.choice([*APIS, *bodies, *bodies])
        api = APIS[key]
        body = bytearray(bodies.get(key) or rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(4) if body else 0):
            body[rng.randrange(len(body))] = rng.choice([0, 1, 127, 128, 255])
        async with raw_connection(broker.address) as client:
            client.send(key, rng.randrange(api.oldest, api.newest + 1), bytes(body))
            if rng.random() < 0.5:
                client.writer.write_eof()
            else:
                client.send(API_VERSIONS, 0, b"")
                await client.writer.drain()
    async with raw_connection(broker.address) as client:
        broker.topics.create("afterwards")
        await client.ask(PRODUCE, 7, produce(b"afterwards", make_batch([b"value"])))
    assert broker.topics.log("afterwards", 0).end_offset == 1
    await eventually(lambda: not broker._intake.connections, what="the end of all connections")
    unexpected = [record.getMessage() for record in caplog.records if record.exc_info]
    assert unexpected == []


async def test_proper_requests_with_absurd_values_are_answered(broker, caplog):
    for key, api in APIS.items():
        if key in (PRODUCE, FETCH):
            continue
        for seed in range(40):
            rng = random.Random(f"{key} {seed}")
            version = rng.randrange(api.oldest, api.newest + 1)
            body, fields = bytearray(), api.request.at_version(version)
            fields.write(value_of(fields, rng), body)
            async with raw_connection(broker.address) as client:
                answer = await client.ask(key, version, bytes(body))
            fields = api.response.at_version(version)
            assert fields.read(answer, 0)[1] == len(answer)
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


async def test_the_answers_of_a_client_that_does_not_read_are_bounded(broker):
    log = broker.topics.create("t").logs[0]
    for _ in range(8):
        log.append(make_batch([b"x" * 900_000]))
    await broker.maintenance.flush()
    async with raw_connection(broker.address) as client:
        client.writer.transport.pause_reading()
        for i in range(200):
            client.send(FETCH, 4, fetch(b"t", i % 8), correlation_id=i)
        await eventually(lambda: any(not c._writable for c in broker._intake.connections), what="back-pressure")
        (connection,) = broker._intake.connections
        assert connection._transport.get_write_buffer_size() < 4 << 20
        client.writer.transport.resume_reading()
        for i in range(200):
            correlation, answer = await client.receive()
            assert correlation == i
            assert len(answer) > 900_000


async def test_the_requests_of_a_client_that_sends_ahead_are_bounded(broker):
    broker.topics.create("t")
    batch = bytes(make_batch([b"y" * 200_000]))
    async with raw_connection(broker.address) as client:
        client.send(FETCH, 4, fetch(b"t", 0, wait_ms=2_000, min_bytes=1 << 30), correlation_id=0)
        for i in range(1, 101):
            client.send(PRODUCE, 7, produce(b"t", batch), correlation_id=i)
        await eventually(lambda: any(not c._reading for c in broker._intake.connections), what="the pause")
        (connection,) = broker._intake.connections
        assert connection._queued_bytes < 2 << 20
        assert [(await client.receive())[0] for _ in range(101)] == list(range(101))
    assert broker.topics.log("t", 0).end_offset == 100


async def test_many_connections_come_and_go(broker):
    async def visit(i):
        async with raw_connection(broker.address) as client:
            assert decoded(METADATA, 5, await client.ask(METADATA, 5, metadata(b"t")))["controller_id"] == 0

    await asyncio.gather(*(visit(i) for i in range(200)))
    await eventually(lambda: not broker._intake.connections)


async def test_the_broker_ends_while_clients_wait(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        broker.topics.create("t")
        async with raw_connection(broker.address) as client:
            client.send(FETCH, 4, fetch(b"t", 0, wait_ms=600_000))
            await eventually(lambda: broker.topics.log("t", 0)._listeners)
            await asyncio.wait_for(broker.stop(), 10)
            assert await client.closed_by_broker()
