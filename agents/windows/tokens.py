"""Tokens: 64-bit representatives of values, used to count distinct values.

Equal values have equal tokens: 3, 3.0 and an int32 3 are one value, true and "3" others. Integers of int64 represent
themselves and so are exact. All other numbers and strings are hashed (the probability that any two of a million values
collide is one in 40 million); two integers from 2**63 on, and two numbers that are no such integers, never collide.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.expressions.values import Operand, Values, numbers_of
from astrocyte.agents.jit import loop

__all__ = ["hash_strings", "tokens_of"]

_BOOLEANS: Final = np.array([0x9AE16A3B2F90404F, 0xC949D7C7509E6557], np.uint64)
"""Tokens of false and true, which are no numbers."""

_SIGNED: Final = 2.0**63
_UNSIGNED: Final = 2.0**64
_NO_INTEGER: Final = np.uint64(0xD6E8FEB86659FD93)
"""Tells the bits of a float that is no integer of 64 bits from the integer of the same bits."""


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


def tokens_of(values: Operand) -> NDArray[np.uint64]:
    """Token of each value of a column; the tokens of nulls are undefined."""
    if isinstance(values, Values):
        return _tokens(values)
    first, *others = values.parts
    tokens = _tokens(first)
    for part in others:
        tokens = np.where(part.is_valid, _tokens(part), tokens)
    return tokens


def _tokens(values: Values) -> NDArray[np.uint64]:
    if values.strings is not None:
        table: NDArray[np.uint64] = np.append(hash_strings(values.strings), np.uint64(0))
        return np.asarray(table[values.data])
    if numbers_of(values) is None:
        return _BOOLEANS[values.data.astype(np.int8)]
    if values.data.dtype.kind == "i":
        return values.data.view(np.uint64)
    data = values.data
    low = np.zeros_like(data) if values.low is None else values.low
    above = (data > _SIGNED) | ((data == _SIGNED) & (low >= 0))
    beyond = (data > _UNSIGNED) | ((data == _UNSIGNED) & (low >= 0))
    whole = (data >= -_SIGNED) & ~beyond & (data == np.trunc(data))
    chosen = data[whole]
    integers = np.where(chosen < _SIGNED, chosen, chosen - _UNSIGNED).astype(np.int64) + low[whole].astype(np.int64)
    bits = data.view(np.uint64).copy()
    bits ^= _NO_INTEGER
    bits[whole] = integers.view(np.uint64)
    hashed = above | ~whole
    bits[hashed] = _mixed(bits[hashed])
    return bits


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64, which gives different numbers for different ones."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
