"""Embedded brokers for tests, record batches as producers send them, and raw connections."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from crc32c import crc32c

from astrocyte.pipeline.broker import BrokerProcess, BrokerThread, EmbeddedBroker
from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES, checksum_holds, read_header, records_of
from astrocyte.pipeline.broker.storage.log import PartitionLog

__all__ = [
    "BrokerProcess",
    "BrokerThread",
    "EmbeddedBroker",
    "RawConnection",
    "flush",
    "full_disk",
    "kcat",
    "make_batch",
    "raw_connection",
    "records_from",
    "with_checksum",
]

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def make_batch(
    values: list[bytes | None],
    *,
    keys: list[bytes | None] | None = None,
    timestamps: list[int] | None = None,
    codec: str = "none",
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
) -> memoryview:
    """A record batch as a producer sends it, in a new writable buffer."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], False, producer_id, epoch, sequence, 1 << 30)
    for i, value in enumerate(values):
        builder.append(i, timestamps[i] if timestamps else 1000 + i, keys[i] if keys else None, value, [])
    return memoryview(bytearray(builder.build()))


def with_checksum(batch: bytearray) -> memoryview:
    """A batch whose bytes were changed, with the checksum that fits them."""
    struct.pack_into(">I", batch, 17, crc32c(memoryview(batch)[21:]))
    return memoryview(batch)


class RawConnection:
    """A client that sends and receives raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, api_key: int, version: int, body: bytes, *, correlation_id: int = 1, client_id: str = "raw") -> None:
        """Queue a request; its answer is ``receive``d."""
        name = client_id.encode()
        frame = struct.pack(">hhih", api_key, version, correlation_id, len(name)) + name + body
        self.writer.write(struct.pack(">i", len(frame)) + frame)

    async def receive(self) -> tuple[int, bytes]:
        """(correlation id, body) of the next answer; IncompleteReadError if the broker closed the connection."""
        length = struct.unpack(">i", await asyncio.wait_for(self.reader.readexactly(4), 20))[0]
        answer = await asyncio.wait_for(self.reader.readexactly(length), 20)
        return struct.unpack_from(">i", answer)[0], answer[4:]

    async def ask(self, api_key: int, version: int, body: bytes) -> bytes:
        """Send, and receive the body of the answer."""
        self.send(api_key, version, body)
        return (await self.receive())[1]

    async def closed_by_broker(self) -> bool:
        """Whether the broker ends the connection, which this waits for."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 20) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def raw_connection(address: str) -> AsyncIterator[RawConnection]:
    """A connection to a broker that sends and receives raw bytes."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


def kcat() -> str:
    """The path of kcat; skips the test where it is not installed, but fails it in CI, where it must be."""
    found = shutil.which("kcat") or shutil.which("kafkacat")
    if found is None:
        reason = "kcat is not installed (Debian: apt-get install kcat)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def full_disk(pid: int, *, file_bytes: int = 0) -> Iterator[None]:
    """No file of a process can grow beyond some bytes, as on a full disk: its writes fail with an error."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def flush(log: PartitionLog) -> None:
    """Bring a log to disk as the broker's maintenance does."""
    jobs = log.begin_flush()
    for job in jobs:
        job.run()
    log.end_flush(jobs, [])


def records_from(
    log: PartitionLog, offset: int = 0, *, max_bytes: int = 1 << 20
) -> list[tuple[int, bytes | None, bytes]]:
    """(offset, key, encoded record) of every record from an offset on, by repeated fetches as a client does."""
    found: list[tuple[int, bytes | None, bytes]] = []
    while offset < log.end_offset:
        data, at = log.read(offset, max_bytes), 0
        if not data:
            break
        while at + HEADER_BYTES <= len(data):
            header = read_header(data, at)
            batch = data[at : at + header.size]
            if len(batch) < header.size:
                break
            assert checksum_holds(header, batch)
            found += [(r.offset, r.key, r.raw) for r in records_of(header, batch) if r.offset >= offset]
            offset, at = header.next_offset, at + header.size
        assert at, "a fetch must bring at least one whole batch"
    return found
