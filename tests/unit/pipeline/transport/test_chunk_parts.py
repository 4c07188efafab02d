"""A fetch whose frames unpack to very much is handed out in parts, so that a reader's memory is bounded."""

import struct

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.transport.chunk import parts_of
from astrocyte.schemas.arrow.messages import unpacked_bytes
from astrocyte.schemas.arrow.stream import MOST_BYTES
from astrocyte.schemas.json.reader import RawRecord


def compressed(rows: int) -> bytes:
    batch = pa.record_batch({"timestamp": pa.array(np.zeros(rows, np.int64))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def records(*values: bytes | None) -> list[RawRecord]:
    return [RawRecord(offset, 0, None, value) for offset, value in enumerate(values)]


def offsets(found) -> list[list[int]]:
    return [[record.offset for record in part] for part in found]


def test_frames_that_unpack_to_more_than_the_limit_together_are_handed_out_one_after_another():
    third = compressed(MOST_BYTES // 8 // 3)
    assert len(third) < 10_000 < unpacked_bytes(third)
    given = records(third, b"{}", third, third, None, third, third)
    assert offsets(parts_of(given)) == [[0, 1, 2, 3, 4], [5, 6]]


def test_a_frame_that_claims_more_than_may_be_is_a_part_of_its_own():
    lying = compressed(1000).replace(struct.pack("<q", 8000), struct.pack("<q", 1 << 50))
    assert unpacked_bytes(lying) == 1 << 50
    assert offsets(parts_of(records(b"{}", lying, lying, b"{}"))) == [[0, 1], [2, 3]]
    assert offsets(parts_of(records(lying, lying))) == [[0], [1]]


def test_other_records_are_one_part():
    damaged = b"\xff\xff\xff\xff" + bytes(range(200))
    plain = records(*[b"{}"] * 1000, None, damaged, compressed(10))
    assert [len(part) for part in parts_of(plain)] == [1003]
