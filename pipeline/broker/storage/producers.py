"""State of a partition's idempotent producers, so that a repeated batch is stored once.

Kafka's rules: the last five batches of a producer are known by their sequence numbers. A batch among them is a
duplicate and gets the same response again, the next one in sequence is new, any other is rejected.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque

from astrocyte.pipeline.broker.protocol.batch import BatchHeader
from astrocyte.pipeline.broker.protocol.errors import ErrorCode, RequestRefused

__all__ = ["ProducerTable"]

BATCHES_KNOWN = 5
PRODUCERS_KNOWN = 10_000  # of one partition; the least recently active one is dropped first
SEQUENCE_MASK = 0x7FFFFFFF  # sequence numbers wrap to 0 after 2^31 - 1

_PRODUCER = struct.Struct(">qhB")
_BATCH = struct.Struct(">iiq")


class ProducerTable:
    """Producer id -> (epoch, its last batches as (first sequence, last sequence, base offset))."""

    def __init__(self) -> None:
        self._producers: OrderedDict[int, tuple[int, deque[tuple[int, int, int]]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._producers)

    def offset_of_repetition(self, header: BatchHeader) -> int | None:
        """The base offset of this batch if it is already stored; None if it is new.

        Raises RequestRefused for an old epoch, a gap, or a duplicate that is older than the batches known.
        """
        known = self._producers.get(header.producer_id)
        if known is None:
            return None
        epoch, batches = known
        first, last = header.base_sequence, (header.base_sequence + header.last_offset_delta) & SEQUENCE_MASK
        if header.producer_epoch < epoch:
            raise RequestRefused(ErrorCode.INVALID_PRODUCER_EPOCH, f"epoch {header.producer_epoch} after {epoch}")
        if header.producer_epoch > epoch:
            if first != 0:
                raise RequestRefused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, f"a new epoch begins with {first}")
            return None
        for known_first, known_last, base_offset in batches:
            if (known_first, known_last) == (first, last):
                return base_offset
        newest = batches[-1][1]
        if first == (newest + 1) & SEQUENCE_MASK:
            return None
        if (newest - last) & SEQUENCE_MASK < 1 << 30:
            raise RequestRefused(ErrorCode.DUPLICATE_SEQUENCE_NUMBER, f"{first} to {last} came before {newest}")
        raise RequestRefused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, f"{first} follows {newest}")

    def note(self, header: BatchHeader) -> None:
        """Record a batch that was appended to the log."""
        if header.producer_id < 0:
            return
        known = self._producers.get(header.producer_id)
        if known is None or known[0] != header.producer_epoch:
            known = self._producers[header.producer_id] = (header.producer_epoch, deque(maxlen=BATCHES_KNOWN))
            if len(self._producers) > PRODUCERS_KNOWN:
                self._producers.popitem(last=False)
        last = (header.base_sequence + header.last_offset_delta) & SEQUENCE_MASK
        known[1].append((header.base_sequence, last, header.base_offset))
        self._producers.move_to_end(header.producer_id)

    def snapshot(self) -> bytes:
        """The whole table as bytes, for a segment's index file."""
        out = bytearray()
        for producer_id, (epoch, batches) in self._producers.items():
            out += _PRODUCER.pack(producer_id, epoch, len(batches))
            for batch in batches:
                out += _BATCH.pack(*batch)
        return bytes(out)

    def restore(self, snapshot: bytes) -> None:
        """Replace the table by a snapshot. Raises struct.error if the snapshot is truncated."""
        self._producers.clear()
        at = 0
        while at < len(snapshot):
            producer_id, epoch, count = _PRODUCER.unpack_from(snapshot, at)
            at += _PRODUCER.size
            batches: deque[tuple[int, int, int]] = deque(maxlen=BATCHES_KNOWN)
            for _ in range(count):
                batches.append(_BATCH.unpack_from(snapshot, at))
                at += _BATCH.size
            self._producers[producer_id] = (epoch, batches)
