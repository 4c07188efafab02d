"""What clients send to the embedded broker: requests, record batches, and whole connections to a broker."""

from __future__ import annotations

import asyncio
import atexit
import logging
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiokafka.record import MemoryRecords

from astrocyte.pipeline.broker import EmbeddedBroker
from astrocyte.pipeline.broker.protocol.batch import (
    HEADER_BYTES,
    read_header,
    records_of,
    refuse_unless_appendable,
    with_records,
)
from astrocyte.pipeline.broker.protocol.errors import MalformedRequest, RequestRefused
from astrocyte.pipeline.broker.protocol.messages import APIS
from astrocyte.pipeline.broker.protocol.produce_fetch import read_fetch, read_produce
from astrocyte.pipeline.broker.server.connection import Connection, Request
from astrocyte.pipeline.kafka.record_batches import in_the_clear
from tests.fuzz.target import Check, Target
from tests.support.broker import CODECS, make_batch, with_checksum

__all__ = ["TARGETS"]

PRODUCE, FETCH = 0, 1
REQUESTS_OF_A_BROKER = 400
"""After which a new one takes its place: topics and groups that were made must not slow down what follows."""


def _frame(api: int, version: int, body: bytes) -> bytes:
    return struct.pack(">hhih", api, version, 1, 3) + b"raw" + body


def _produce_body(batch: bytes, *, topic: bytes = b"t", acks: int = -1) -> bytes:
    head = struct.pack(">hhi", -1, acks, 1000) + struct.pack(">ih", 1, len(topic)) + topic
    return head + struct.pack(">iii", 1, 0, len(batch)) + batch


def _sample(kind: Any) -> Any:
    """A small value of a wire type."""
    import random

    from tests.support.wire_values import value_of

    return value_of(kind, random.Random(1))


def _request_seeds() -> Iterator[bytes]:
    for key, api in sorted(APIS.items()):
        version = api.newest
        if key == PRODUCE:
            yield _frame(key, version, _produce_body(bytes(make_batch([b"v"], keys=[b"k"]))))
        elif key == FETCH:
            head = struct.pack(">iiiib", -1, 100, 1, 1 << 20, 0)
            yield _frame(key, version, head + struct.pack(">ih", 1, 1) + b"t" + struct.pack(">iiqi", 1, 0, 0, 1 << 20))
        else:
            body = bytearray()
            fields = api.request.at_version(version)
            fields.write(_sample(fields), body)
            yield _frame(key, version, bytes(body))


def _open_requests() -> Check:
    def check(data: bytes) -> None:
        request = Request(bytearray(data))
        api = APIS.get(request.api_key)
        if api is None or not api.oldest <= request.version <= api.newest:
            return
        if request.api_key == PRODUCE:
            for _, partitions in read_produce(request.frame, request.at, request.version).topics:
                for _, records in partitions:
                    if records is not None:
                        _read_batch(bytearray(records))
        elif request.api_key == FETCH:
            read_fetch(request.frame, request.at, request.version)
        else:
            fields = api.request.at_version(request.version)
            body, _ = fields.read(request.frame, request.at)
            out = bytearray()
            fields.write(body, out)
            assert fields.read(out, 0)[0] == body

    return check


def _read_batch(batch: bytearray) -> None:
    if len(batch) >= HEADER_BYTES:
        with_checksum(batch)
    try:
        header = refuse_unless_appendable(memoryview(batch), 1 << 20)
        found = list(records_of(header, batch))
    except (RequestRefused, ValueError):
        return
    again = bytearray(with_records(header, found))
    assert [each.key for each in records_of(read_header(again), again)] == [each.key for each in found]


def _open_batches() -> Check:
    return lambda data: _read_batch(bytearray(data))


def _batch_seeds() -> Iterator[bytes]:
    for codec in CODECS:
        yield bytes(make_batch([b"value", None, b""], keys=[b"k", b"", None], codec=codec))
    yield bytes(make_batch([b"v"], producer_id=5, epoch=0, sequence=0))


async def _turn() -> None:
    await asyncio.sleep(0)


_MAGIC_AT = 16


def _open_answers() -> Check:
    """Batches as a worker gets them of a broker."""

    def check(data: bytes) -> None:
        batch = bytearray(data)
        if len(batch) >= HEADER_BYTES:
            struct.pack_into(">i", batch, 8, len(batch) - 12)
            with_checksum(batch)
        for answer in (data, bytes(batch) + data):
            found = in_the_clear(answer, 1 << 20)
            assert len(found) <= max(len(answer), 1 << 20) + 4096
            assert in_the_clear(found) == found
        if len(batch) > HEADER_BYTES and batch[_MAGIC_AT] == 2:  # clients of today write no older one
            records = MemoryRecords(in_the_clear(bytes(batch), 1 << 20))
            while records.has_next():
                read = records.next_batch()
                if not read.is_control_batch:
                    list(read)

    return check


class _Transport(asyncio.Transport):
    """Takes what the broker answers."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        assert len(data) < 32 << 20

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Faults(logging.Handler):
    """Keeps what the broker logs as an error: it survives its own faults, which a fuzzer must see."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


def _open_connection() -> Check:
    """Bytes as a client sends them, split anywhere, to a broker that has topics and groups."""
    loop = asyncio.new_event_loop()
    faults = _Faults()
    logger = logging.getLogger("astrocyte.pipeline.broker")
    logger.addHandler(faults)
    logger.propagate = False
    state: dict[str, Any] = {"left": 0, "broker": None, "folder": None}

    def begin() -> None:
        end()
        state["folder"] = Path(tempfile.mkdtemp(prefix="astrocyte-fuzz-"))
        broker = EmbeddedBroker(
            state["folder"],
            port=0,
            sync="interval",
            max_message_bytes=1 << 19,
            max_request_bytes=1 << 20,
            initial_rebalance_delay_s=0.0,
        )
        loop.run_until_complete(broker.start())
        broker.topics.create("t", 1)
        broker.topics.create("compacted", 1, {"cleanup.policy": "compact"})
        state.update(broker=broker, left=REQUESTS_OF_A_BROKER)

    async def converse(data: bytes) -> None:
        connection, transport = Connection(state["broker"]), _Transport()
        connection.connection_made(transport)
        at = 0
        while at < len(data) and not transport.closed:
            room = connection.get_buffer(-1)
            size = min(len(room), len(data) - at)
            room[:size] = data[at : at + size]
            connection.buffer_updated(size)
            at += size
            await _turn()
        await _turn()
        connection.connection_lost(None)
        await _turn()

    def end() -> None:
        if state["broker"] is not None:
            loop.run_until_complete(state["broker"].stop())
            shutil.rmtree(state["folder"], ignore_errors=True)

    atexit.register(end)

    def check(data: bytes) -> None:
        if state["left"] == 0:
            begin()
        state["left"] -= 1
        faults.found.clear()
        loop.run_until_complete(converse(data))
        assert not faults.found, faults.found[0]

    return check


def _connection_seeds() -> Iterator[bytes]:
    frames = list(_request_seeds())
    for frame in frames:
        yield struct.pack(">i", len(frame)) + frame
    compacted = _frame(PRODUCE, APIS[PRODUCE].newest, _produce_body(bytes(make_batch([b"v"])), topic=b"compacted"))
    for frame in (compacted, b"".join(struct.pack(">i", len(each)) + each for each in frames[:6])):
        yield struct.pack(">i", len(frame)) + frame


TARGETS = [
    Target("broker-requests", _open_requests, _request_seeds, (MalformedRequest,)),
    Target("broker-batches", _open_batches, _batch_seeds),
    Target("answered-batches", _open_answers, _batch_seeds),
    Target("broker-connections", _open_connection, _connection_seeds),
]
