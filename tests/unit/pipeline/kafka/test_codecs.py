"""Compressed batches: what was compressed comes out, a bomb does not, and damage is one kind of error."""

from __future__ import annotations

import gzip
import resource
import struct
from collections.abc import Callable

import cramjam
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from astrocyte.pipeline.broker.protocol.batch import HEADER_BYTES, read_header, records_of
from astrocyte.pipeline.kafka.codecs import UNPACKED_BYTES, compressed, unpacked
from tests.support.broker import CODECS, make_batch, with_checksum

NUMBERS = [number for number in CODECS.values() if number]


@given(st.binary(max_size=2000), st.integers(1, 40), st.sampled_from(NUMBERS))
def test_what_was_compressed_comes_out(body, times, codec):
    assert unpacked(codec, compressed(codec, body * times)) == body * times


ZEROS = bytes(1 << 20)
BOMBS: dict[str, tuple[int, Callable[[], bytes]]] = {
    "gzip": (1, lambda: gzip.compress(ZEROS) * 2048),
    "snappy that claims it": (2, lambda: b"\x80\x80\x80\x80\x08" + b"\x00" * 20),
    "snappy in blocks": (
        2,
        lambda: b"\x82SNAPPY\0" + bytes(8) + 70 * _block(bytes(cramjam.snappy.compress_raw(ZEROS))),
    ),
    "lz4": (3, lambda: bytes(cramjam.lz4.compress(ZEROS * 70))),
    "zstd": (4, lambda: zstandard.ZstdCompressor(level=1).compress(ZEROS) * 2048),
    "zstd in one frame": (4, lambda: zstandard.ZstdCompressor(level=1).compress(ZEROS * 128)),
}
"""Two gibibytes of zeros, or as many as the test can afford, in kilobytes or few megabytes."""


def _block(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(name):
    codec, body = BOMBS[name][0], BOMBS[name][1]()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="unpack"):
        unpacked(codec, body)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert grown_kb << 10 < 4 * UNPACKED_BYTES


@pytest.mark.parametrize("codec", NUMBERS)
def test_damage_is_a_value_error(codec):
    body = compressed(codec, bytes(range(256)) * 20)
    for cut in (1, 5, len(body) // 2, len(body) - 1):
        with pytest.raises(ValueError, match=r"gzip|snappy|lz4|zstd"):
            unpacked(codec, body[:cut])


def test_a_codec_that_does_not_exist_is_a_value_error():
    with pytest.raises(ValueError, match="no codec 7"):
        unpacked(7, b"x")


def records(body: bytes, count: int) -> list:
    batch = bytearray(make_batch([b"v"]))
    del batch[HEADER_BYTES:]
    batch += body
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">i", batch, 57, count)
    with_checksum(batch)
    return list(records_of(read_header(batch), batch))


def test_fields_that_reach_into_other_records_are_refused():
    # Each byte begins a record whose key is all that follows: a megabyte of them would be copied a million times.
    with pytest.raises(ValueError, match="a record of 0 bytes, with a key of"):
        records(b"\x00\x00\x00\xfe\xff\x07" + b"\x00" * 200_000, 1000)


def test_a_number_without_end_is_refused():
    with pytest.raises(ValueError, match="a number of more than 10 bytes"):
        records(b"\xff" * 500_000, 1)
