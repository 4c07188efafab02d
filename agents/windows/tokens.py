"""Tokens: 64-bit representatives of values, used to count distinct values.

Equal values have equal tokens, independent of their type: 3, 3.0 and an int32 3 are one value. Integers represent
themselves and so are exact; strings are hashed (the probability that any two of a million strings collide is one in 40
million).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.columns import Values
from astrocyte.agents.jit import loop

__all__ = ["hash_strings", "tokens_of"]


@loop
def _hash(offsets: Any, data: Any, seed: Any, out: Any) -> None:
    for i in range(len(out)):
        # FNV-1a over the bytes, then the finaliser of splitmix64: FNV alone mixes the high bits badly.
        h = np.uint64(0xCBF29CE484222325) ^ seed
        for j in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[j])) * np.uint64(0x100000001B3)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = h ^ (h >> np.uint64(31))


def hash_strings(strings: pa.Array, seed: int = 0) -> NDArray[np.uint64]:
    """Token of each string; different seeds give independent tokens."""
    strings = strings.cast(pa.large_utf8())
    out = np.empty(len(strings), np.uint64)
    if len(strings):
        offsets = np.frombuffer(strings.buffers()[1], np.int64)[strings.offset : strings.offset + len(strings) + 1]
        _hash(offsets, np.frombuffer(strings.buffers()[2] or b"\0", np.uint8), np.uint64(seed), out)
    return out


def tokens_of(values: Values) -> NDArray[np.uint64]:
    """Token of each value of a column; the tokens of nulls are undefined."""
    if values.strings is not None:
        table: NDArray[np.uint64] = np.append(hash_strings(values.strings), np.uint64(0))
        return np.asarray(table[values.data])
    data = values.data
    if data.dtype.kind != "f":
        return data.astype(np.int64).view(np.uint64)
    bits = data.view(np.uint64).copy()
    whole = (np.abs(data) < 2.0**53) & (data == np.trunc(data))
    bits[whole] = data[whole].astype(np.int64).view(np.uint64)
    return bits
