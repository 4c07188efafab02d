"""`protocol.match_hash` of many matches at once, for engines whose results are arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTOR = np.uint64(0x9E3779B97F4A7C15)


def hash_sum(numbers: NDArray[Any], offsets: NDArray[np.int64]) -> int:
    """Sum of the hashes of many lists, modulo 2^64: list i is ``numbers[offsets[i] : offsets[i + 1]]``."""
    lengths = np.diff(offsets)
    h = np.zeros(len(lengths), np.uint64)
    for at in range(int(lengths.max(initial=0))):
        has = np.flatnonzero(lengths > at)
        each = (h[has] ^ numbers[offsets[has] + at].astype(np.uint64)) * FACTOR
        h[has] = each ^ (each >> np.uint64(29))
    return int(h.sum(dtype=np.uint64))
