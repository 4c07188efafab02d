"""Kafka's default partitioning (murmur2 of the key), for a whole dictionary of keys at once; keys by partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.values.mixed import key_column

__all__ = [
    "KeySample",
    "SpreadKeys",
    "murmur2",
    "partition_keys",
    "partition_of",
    "partitions_of",
    "split_by_partition",
    "spread_keys",
]

_M = np.uint32(0x5BD1E995)
_SEED = np.uint32(0x9747B28C)
_SAMPLED: Final = 256
_LOOKED_AT: Final = 100_000
_SPARED: Final = 16
"""After so many rows only every so many frames is looked at: keys come again, and hashing all costs 0.2 us a row."""
_END: Final = 2**32
"""Above every hash."""


def murmur2(keys: pa.Array) -> NDArray[np.uint32]:
    """Kafka's murmur2 hash (org.apache.kafka.common.utils.Utils.murmur2) of each string or binary key; no nulls."""
    keys = keys.cast(pa.large_binary())
    count = len(keys)
    if count == 0:
        return np.empty(0, np.uint32)
    offsets = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + count + 1]
    lengths = np.diff(offsets)
    data = np.frombuffer(keys.buffers()[2] or b"", np.uint8)
    width = int(lengths.max(initial=0))
    padded = np.zeros((count, (width // 4 + 1) * 4), np.uint8)
    columns = np.arange(width)
    inside = columns[None, :] < lengths[:, None]
    padded[:, :width][inside] = data[offsets[0] : offsets[-1]]
    words = padded.view("<u4")
    with np.errstate(over="ignore"):
        value = _SEED ^ lengths.astype(np.uint32)
        for index in range(width // 4):
            word = words[:, index] * _M
            word ^= word >> np.uint32(24)
            value = np.where(lengths // 4 > index, (value * _M) ^ (word * _M), value)
        # The padding is zero, so the last word holds the 1 to 3 bytes left over, as murmur2 adds them.
        tail = words[np.arange(count), np.minimum(lengths // 4, words.shape[1] - 1)]
        value = np.where(lengths % 4 > 0, (value ^ tail) * _M, value)
        value ^= value >> np.uint32(13)
        value *= _M
        value ^= value >> np.uint32(15)
    return value


def partitions_of(keys: pa.Array, partitions: int) -> NDArray[np.int32]:
    """Partition of each key, as Kafka's default partitioner assigns it; ``partitions`` is their number."""
    return ((murmur2(keys) & np.uint32(0x7FFF_FFFF)) % np.uint32(partitions)).astype(np.int32)


def partition_of(key: str | bytes, partitions: int) -> int:
    """Partition of one key."""
    data = key.encode() if isinstance(key, str) else key
    return int(partitions_of(pa.array([data], pa.binary()), partitions)[0])


def partition_keys(frame: Frame, by: str) -> pa.DictionaryArray:
    """What decides on the partition of each row in a topic that is partitioned by a field, as text.

    It is null for rows without the field, and for all rows where ``by`` is empty: all go to one partition.
    """
    if not by or not frame.has(by):
        return pa.DictionaryArray.from_arrays(pa.nulls(frame.num_rows, pa.int32()), pa.array([], pa.utf8()))
    column = frame.column(by)
    if column.type != TEXT:
        column = key_column(column)
        column = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).cast(TEXT)
    return column


def split_by_partition(frame: Frame, partitions: int, *, by: str = "key") -> list[tuple[int, Frame]]:
    """The frame's rows by partition of their key, in order of partition; rows keep their order and sequence.

    ``by`` is the field that is partitioned by (`partition_keys`); the key of the rows does not change. Rows without a
    key go to partition 0, so that a stream without keys stays in order. Where the frame carries a watermark, a
    partition without rows gets an empty frame, because its watermark advances too.
    """
    everywhere = frame.watermark_us is not None or frame.end or frame.num_rows == 0
    if partitions == 1:
        return [(0, frame)]
    keys = partition_keys(frame, by)
    of_key = partitions_of(keys.dictionary, partitions)
    codes = keys.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    of_row = np.append(of_key, np.int32(0))[codes]
    of_row = of_row.astype(np.uint16)  # NumPy uses a radix sort for 16 bits, several times faster
    order = np.argsort(of_row, kind="stable")
    bounds = np.searchsorted(of_row[order], np.arange(partitions + 1))
    # Each key belongs to one partition, so each part takes only its own entries of the dictionary.
    by_key = np.argsort(of_key, kind="stable")
    starts = np.searchsorted(of_key[by_key], np.arange(partitions + 1))
    rank = np.empty(len(of_key), np.int32)
    rank[by_key] = np.arange(len(of_key), dtype=np.int32) - np.repeat(starts[:-1], np.diff(starts)).astype(np.int32)
    index = frame.batch.schema.get_field_index("key")
    parts = []
    for partition in range(partitions):
        rows = order[bounds[partition] : bounds[partition + 1]]
        if len(rows) == 0:
            if everywhere:
                parts.append((partition, frame.slice(0, 0)))
            continue
        if len(rows) == frame.num_rows:
            parts.append((partition, frame))
            continue
        part = frame.take(rows)
        if by == "key":
            row_codes = codes[rows]
            own = keys.dictionary.take(pa.array(by_key[starts[partition] : starts[partition + 1]]))
            indices = pa.array(rank[row_codes] if len(rank) else row_codes, mask=row_codes < 0)
            column = pa.DictionaryArray.from_arrays(indices, own)
        else:
            column = part.column("key").dictionary_decode().dictionary_encode()
        parts.append((partition, replace(part, batch=part.batch.set_column(index, pa.field("key", TEXT), column))))
    return parts


# -- keys that have events in several partitions -----------------------------------------------------------------------


class KeySample:
    """Some of the keys of one partition: those with the smallest hashes, at most ``most``.

    Which these are depends on the keys alone. So a key that is in the samples of two partitions, or would be in both,
    can be found without all keys (bottom-k sampling; Cohen and Kaplan, PODC 2007).
    """

    def __init__(self, most: int = _SAMPLED) -> None:
        self._most = most
        self._kept: dict[str, int] = {}
        self.limit = _END
        """Every key that was looked at and whose hash is below it is in the sample."""
        self._rows = self._frames = 0

    def add(self, frame: Frame, by: str) -> None:
        """Note the keys of the rows of a frame in the field ``by``."""
        self._rows += frame.num_rows
        self._frames += 1
        if self._rows > _LOOKED_AT and self._frames % _SPARED:
            return
        column = partition_keys(frame, by)
        used = np.zeros(len(column.dictionary), np.bool_)
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        used[codes[codes >= 0]] = True
        hashes = murmur2(column.dictionary)
        for row in np.flatnonzero(used & (hashes < self.limit)).tolist():
            self._kept[column.dictionary[row].as_py()] = int(hashes[row])
        if len(self._kept) > self._most:
            ordered = sorted(self._kept.items(), key=lambda item: item[1])
            self.limit = ordered[self._most][1]
            self._kept = {key: value for key, value in ordered if value < self.limit}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def keys(self) -> dict[str, int]:
        """The keys and their hashes."""
        return dict(self._kept)

    @classmethod
    def of(cls, keys: Mapping[str, int], limit: int) -> KeySample:
        """The sample with these `keys` and `limit`."""
        sample = cls()
        sample._kept, sample.limit = dict(keys), limit
        return sample


class SpreadKeys(NamedTuple):
    """Of ``looked_at`` keys of a topic, ``spread`` have events in several partitions: ``key`` in ``partitions``."""

    spread: int
    looked_at: int
    key: str
    partitions: tuple[int, ...]

    def sentence(self, topic: str, by: str) -> str:
        """What this means for rules by ``by``, and what to do."""
        keys = "1 key" if self.looked_at == 1 else f"{self.spread:,} of {self.looked_at:,} keys looked at"
        have = "has" if self.looked_at == 1 else "have"
        where = " and ".join(map(str, self.partitions[:2]))
        return (
            f"{keys} {have} events in several partitions of {topic}, which never meet, such as {self.key[:100]!r} in "
            f"{where}: its producer partitions it by something else than {by}; declare "
            f"'key: {{field: {by}, partitioned: false}}'"
        )


def spread_keys(samples: Iterable[tuple[int, KeySample]]) -> SpreadKeys | None:
    """The keys that are in several partitions, from a sample of each partition; None where there are none."""
    samples = list(samples)
    limit = min((sample.limit for _, sample in samples), default=_END)
    places: dict[str, set[int]] = {}
    for partition, sample in samples:
        for key, value in sample.keys.items():
            if value < limit:
                places.setdefault(key, set()).add(partition)
    spread = [key for key in sorted(places) if len(places[key]) > 1]
    if not spread:
        return None
    return SpreadKeys(len(spread), len(places), spread[0], tuple(sorted(places[spread[0]])))
