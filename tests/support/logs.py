"""Recorded logs for tests: messages, frames of the axons scenario, and a broker on a thread to send them to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from astrocyte.pipeline.kafka.client import consumer_client, ensure_topics, producer_client, scan, topic_partitions
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.format import LogHeader
from astrocyte.pipeline.recording.writer import LogWriter
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.schemas.json.reader import frame_to_records
from astrocyte.schemas.partitioning import split_by_partition
from tests.support.broker import BrokerThread

__all__ = ["T0_US", "axon_frame", "frame_messages", "json_messages", "produce", "read_topics", "running", "write_log"]

T0_US = 1_700_000_000_000_000
"""Event time at which test logs begin."""


def axon_frame(
    stream: str,
    keys: Sequence[str],
    times_us: Sequence[int],
    *,
    types: str = "A",
    run: str = "run-1",
    seq: int = 0,
    **meta: object,
) -> Frame:
    """Spikes at ``T0_US + times_us``; ``types`` repeats, values count up."""
    count = len(keys)
    return Frame.from_columns(
        stream,
        run,
        {
            "timestamp": T0_US + np.asarray(times_us, np.int64),
            "key": list(keys),
            "type": [types[i % len(types)] for i in range(count)],
            "value": np.arange(seq, seq + count, dtype=np.float64),
        },
        first_seq=seq,
        **meta,
    )


def frame_messages(frame: Frame, partitions: int, offsets: dict[tuple[str, int], int]) -> list[ConsumedRecord]:
    """The frame as messages, one a partition; ``offsets`` holds the next offset of each partition and is advanced."""
    messages = []
    time_ms = int(frame.timestamps()[0]) // 1000 if frame.num_rows else (frame.watermark_us or 0) // 1000
    for partition, part in split_by_partition(frame, partitions):
        place = (f"mono.{frame.stream}", partition)
        headers = (("content-type", b"application/vnd.apache.arrow.stream"),)
        messages.append(ConsumedRecord(*place, offsets.get(place, 0), time_ms, None, encode_frame(part), headers))
        offsets[place] = offsets.get(place, 0) + 1
    return messages


def json_messages(frame: Frame, *, partition: int = 0, offset: int = 0) -> list[ConsumedRecord]:
    """The frame's events as JSON messages of one partition, each with its event time."""
    times = frame.timestamps() // 1000
    return [
        ConsumedRecord(f"mono.{frame.stream}", partition, offset + i, int(times[i]), key, value, tuple(headers))
        for i, (key, value, headers) in enumerate(frame_to_records(frame))
    ]


def write_log(path: Path, records: Sequence[ConsumedRecord], *, partitions: int = 2) -> Path:
    """A log of the messages, whose topics all have ``partitions``."""
    header = LogHeader(dict.fromkeys({record.topic for record in records}, partitions))
    with LogWriter(path, header) as writer:
        for record in records:
            writer.write(record)
    return path


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Address of a broker on a thread, which ends with the context."""
    with BrokerThread(folder) as broker:
        yield broker.address


async def produce(address: str, records: Sequence[ConsumedRecord], *, partitions: int = 2) -> None:
    """Send messages to their topics and partitions, which are created."""
    await ensure_topics(address, dict.fromkeys({record.topic for record in records}, partitions))
    async with producer_client(address) as producer:
        sent = [
            await producer.send(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                timestamp_ms=record.timestamp_ms,
                headers=list(record.headers),
            )
            for record in records
        ]
        await asyncio.gather(*sent)


async def read_topics(address: str, *topics: str) -> list[ConsumedRecord]:
    """All messages of the topics, merged by time."""
    known = await topic_partitions(address)
    async with consumer_client(address) as client:
        batches = [batch async for batch in scan(client, {topic: known[topic] for topic in topics})]
    return [record for batch in batches for record in batch]
