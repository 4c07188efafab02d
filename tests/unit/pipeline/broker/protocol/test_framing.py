from __future__ import annotations

import random
import struct

import pytest

from astrocyte.pipeline.broker.protocol.errors import MalformedRequest
from astrocyte.pipeline.broker.protocol.framing import CLAIM_BYTES, SCRATCH_BYTES, FrameReader

MOST = 8 << 20


def feed(reader, data, sizes):
    """The frames made of bytes that arrive in pieces."""
    frames, at = [], 0
    while at < len(data):
        room = reader.buffer()
        size = min(len(room), next(sizes), len(data) - at)
        room[:size] = data[at : at + size]
        frames += reader.received(size)
        at += size
    return frames


@pytest.mark.parametrize("seed", range(40))
def test_frames_come_out_whole_however_they_are_cut(seed):
    rng = random.Random(seed)
    lengths = [rng.choice([8, 9, 100, SCRATCH_BYTES - 4, SCRATCH_BYTES, rng.randrange(8, 300_000)]) for _ in range(20)]
    sent = [rng.randbytes(length) for length in [*lengths, rng.choice([CLAIM_BYTES, CLAIM_BYTES + 1, 5 << 20])]]
    data = b"".join(struct.pack(">i", len(frame)) + frame for frame in sent)

    def sizes():
        while True:
            yield rng.choice([1, 3, 4, 5, 1000, SCRATCH_BYTES, 1 << 20])

    assert feed(FrameReader(MOST), data, sizes()) == sent


def test_a_claimed_length_allocates_memory_only_as_bytes_arrive():
    reader = FrameReader(MOST)
    feed(reader, struct.pack(">i", MOST) + b"x", iter([5]))
    assert len(reader.buffer()) < CLAIM_BYTES


@pytest.mark.parametrize("length", [-1, 0, 7, MOST + 1, 1 << 30])
def test_an_impossible_length_is_malformed(length):
    with pytest.raises(MalformedRequest, match=f"expected a frame of 8 to {MOST} bytes, got {length}"):
        feed(FrameReader(MOST), struct.pack(">i", length), iter([4]))
