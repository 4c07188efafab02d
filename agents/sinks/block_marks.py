"""Lines to write to files, and the mark of a block: the offsets of its lines, by which they are found again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from astrocyte.schemas.topics import TopicPartition

__all__ = ["Ranges", "Rows", "mark_of", "merge", "overlap", "ranges_in", "ranges_of"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Lines to write, each with its newline, the partition from which they were read, and the offset of each."""

    place: TopicPartition
    offsets: NDArray[np.int64]
    lines: list[bytes]


Ranges = dict[TopicPartition, tuple[int, int]]
"""First offset, and the one after the last, of every place."""


def ranges_in(parts: Iterable[Rows]) -> Ranges:
    """Offsets of the lines."""
    ranges: Ranges = {}
    for part in parts:
        merge(ranges, {part.place: (int(part.offsets.min()), int(part.offsets.max()) + 1)})
    return ranges


def mark_of(ranges: Ranges, lines: Sequence[bytes], text: bytes) -> bytes:
    """The offsets of a block, and which of its lines hold newlines: their index and their number of newlines."""
    offsets = [[*place, first, following] for place, (first, following) in sorted(ranges.items())]
    split = {}
    if text.count(b"\n") > len(lines):
        counts = ((index, line.count(b"\n")) for index, line in enumerate(lines))
        split = {str(index): count for index, count in counts if count > 1}
    return orjson.dumps({"offsets": offsets, "split": split})


def ranges_of(mark: bytes) -> Ranges:
    """Offsets of a block. Raises ValueError for text that is no mark."""
    try:
        return {
            TopicPartition(topic, partition): (first, following)
            for topic, partition, first, following in orjson.loads(mark)["offsets"]
        }
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def merge(ranges: Ranges, others: Ranges) -> None:
    """Widen ``ranges`` to hold ``others`` too."""
    for place, (first, following) in others.items():
        known = ranges.get(place, (first, following))
        ranges[place] = (min(known[0], first), max(known[1], following))


def overlap(ranges: Ranges, others: Ranges) -> bool:
    """Whether some place has offsets in both."""
    return any(
        place in ranges and ranges[place][0] < following and first < ranges[place][1]
        for place, (first, following) in others.items()
    )
