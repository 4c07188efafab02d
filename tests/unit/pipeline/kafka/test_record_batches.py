"""Batches of an answer, as aiokafka reads them after they were unpacked: the same records, and no bomb."""

import gzip
import struct
from bisect import bisect_right
from itertools import accumulate, pairwise

import pytest
import zstandard
from aiokafka import TopicPartition
from aiokafka.record import MemoryRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.agents.ingest.decode import decode_chunk
from astrocyte.agents.ingest.decoders import REFUSED_HEADER
from astrocyte.pipeline.broker import EmbeddedBroker
from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES
from astrocyte.pipeline.kafka.client import consumer_client
from astrocyte.pipeline.kafka.record_batches import in_the_clear
from tests.support.broker import CODECS, flush, make_batch, with_checksum

VALUES = [b"one", None, b"three" * 100]


def at_offset(batch, offset):
    return offset.to_bytes(8, "big") + bytes(batch)[8:]


def read(data):
    records, found = MemoryRecords(data), []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(record.offset, record.key, record.value, record.timestamp, record.headers) for record in batch]
    return found


def bomb(megabytes=64):
    batch = bytearray(make_batch([b"v"] * 3, codec="zstd"))[:HEADER_BYTES]
    batch += zstandard.ZstdCompressor().compress(bytes(megabytes << 20))
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    return with_checksum(batch)


@pytest.mark.parametrize("codec", CODECS)
def test_records_are_the_same_as_before(codec):
    data = b"".join(
        [
            at_offset(make_batch(VALUES, keys=[b"a", None, b""], codec=codec), 5),
            at_offset(make_batch([b"x"]), 8),
            at_offset(make_batch(VALUES, codec=codec), 9),
        ]
    )
    cut = data + bytes(make_batch([b"y" * 100], codec=codec))[:65]
    assert read(in_the_clear(data)) == read(data)
    assert read(in_the_clear(cut)) == read(data)
    if codec == "none":
        assert in_the_clear(data) is data


def test_of_a_batch_that_cannot_be_unpacked_one_record_says_why_and_the_others_are_read():
    damaged = bytearray(make_batch([b"v" * 99] * 2, codec="lz4"))
    damaged[-9] ^= 0xFF
    batches = [
        at_offset(bomb(), 3), at_offset(make_batch([b"after"]), 6), at_offset(with_checksum(damaged), 7),
    ]  # fmt: skip
    first, after, last = read(in_the_clear(b"".join(batches), most=1 << 20))
    assert (first[0], first[2]) == (5, bytes(bomb())[:1024].replace(bytes(8), (3).to_bytes(8, "big"), 1))
    ((name, reason),) = first[4]
    assert name == REFUSED_HEADER
    assert reason.startswith(b"3 records, offsets 3 to 5, in a batch of ")
    assert b"that unpack to more than" in reason
    assert after[:3] == (6, None, b"after")
    assert (last[0], last[4][0][0]) == (8, REFUSED_HEADER)


def batch_of(raws):
    """A batch at offset 40 with these encoded records, whatever they are."""
    batch = bytearray(make_batch([b"v"] * len(raws)))[:HEADER_BYTES] + b"".join(raws)
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    return at_offset(with_checksum(batch), 40)


def raw_records(count, headers=()):
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    ends = [HEADER_BYTES]
    for number in range(count):
        builder.append(number, 1_700_000_000_000, b"k", b"value %d" % number, list(headers))
        ends.append(builder.size())
    data = bytes(builder.build())
    return [data[start:end] for start, end in pairwise(ends)]


def refusals(found):
    return {offset: headers[0][1].decode() for offset, *_, headers in found if dict(headers).get(REFUSED_HEADER)}


def test_a_header_whose_name_is_no_text_costs_its_own_record():
    raws = raw_records(5, [("name", b"x")])
    raws[2] = raws[2].replace(b"name", b"n\xffme")
    found = read(in_the_clear(batch_of(raws)))
    assert [offset for offset, *_ in found] == [40, 41, 42, 43, 44]
    assert refusals(found) == {42: "1 of 5 records, from offset 42, cannot be read"}
    assert found[3][2] == b"value 3"


def test_damaged_bounds_cost_the_records_that_follow_and_the_next_batch_is_read():
    raws = raw_records(5)
    raws[3] = b"\xfe\xff\x7f" + raws[3][1:]
    found = read(in_the_clear(batch_of(raws) + at_offset(make_batch([b"after"]), 45)))
    assert [offset for offset, *_ in found] == [40, 41, 42, 44, 45]
    assert refusals(found) == {44: "2 of 5 records, from offset 43, cannot be read"}


@given(
    count=st.integers(1, 6),
    codec=st.sampled_from(["none", "gzip"]),
    at=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
)
def test_one_damaged_byte_costs_no_record_before_its_own_and_stops_no_reader(count, codec, at, mask):
    raws = raw_records(count, [("name", b"x")])
    place = int(at * len(b"".join(raws)))
    starts = list(accumulate(map(len, raws)))
    number = bisect_right(starts, place)
    body = bytearray(b"".join(raws))
    body[place] ^= mask
    batch = batch_of([bytes(body), *[b""] * (count - 1)])
    if codec == "gzip":
        packed = bytearray(batch[:HEADER_BYTES]) + gzip.compress(batch[HEADER_BYTES:])
        struct.pack_into(">i", packed, 8, len(packed) - 12)
        packed[22] |= 1
        batch = at_offset(with_checksum(packed), 40)
    found = read(in_the_clear(batch))
    offsets = [offset for offset, *_ in found]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == 39 + count
    assert [each[2] for each in found[:number]] == [b"value %d" % each for each in range(number)]


def test_what_is_too_much_at_once_is_left_for_the_next_fetch():
    batches = [at_offset(make_batch([bytes(1000)], codec="zstd"), number) for number in range(5)]
    found = read(in_the_clear(b"".join(batches), most=3000))
    assert [offset for offset, *_ in found] == [0, 1]


async def test_a_bomb_in_a_topic_is_a_dead_letter_and_the_next_message_is_read(tmp_path):
    async with EmbeddedBroker(tmp_path, port=0) as broker:
        broker.topics.create("mono.A", 1)
        log = broker.topics.log("mono.A", 0)
        log.append(bomb(300))
        log.append(make_batch([b'{"x": 1}']))
        flush(log)
        async with consumer_client(broker.address) as consumer:
            consumer.assign([TopicPartition("mono.A", 0)])
            records = [await consumer.getone() for _ in range(2)]
    frames, (letter,) = decode_chunk("mono.A", 0, records)
    assert [item.frame.num_rows for item in frames] == [1]
    assert "offsets 0 to 2, in a batch of " in letter.reason
    assert (letter.topic, letter.offset) == ("mono.A", 2)
