"""Bags: the values of a group, for aggregates that need them (quantiles, distinct values, entropy).

All bags of one state are in one arena, each a segment that doubles when full. A bag of *values* holds (value, weight)
pairs: exact up to `VALUES` of them, then compressed to a t-digest. A bag of *tokens* (64-bit representatives of values)
merges equal tokens; for counting it becomes a HyperLogLog of 2**14 registers beyond `TOKENS` distinct ones. The point
at which a bag is compressed depends on its own sequence of values alone, never on their division into calls.
"""
# ruff: noqa: PLR0917  kernels take arrays one by one, for numba, and all readers the same ones

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.jit import loop

__all__ = ["TOKENS", "VALUES", "Arena", "count_distinct", "entropy_binned", "entropy_tokens", "quantile"]

VALUES: Final = 8_192
TOKENS: Final = 65_536
DELTA: Final = 1_000.0
"""Compression of the t-digest: about the maximum number of centroids. The rank error at the median is below 0.1 %."""
PRECISION: Final = 14
REGISTERS: Final = 1 << PRECISION
WORDS: Final = REGISTERS // 8

_EXACT: Final = 0
_DIGEST: Final = 1
_LOGLOG: Final = 2


@loop
def mix(x: Any) -> Any:
    """Finaliser of splitmix64: every bit of the token affects every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@loop
def sort_pairs(value: Any, weight: Any, offset: int, length: int) -> None:
    """Sort a segment by value, in place: Shell sort with the gaps of Gonnet and Baeza-Yates (1991).

    At these sizes it is as fast as numba's own sorts, which take seconds to compile.
    """
    gap = length
    while gap > 1:
        gap = max((5 * gap - 1) // 11, 1)
        for i in range(offset + gap, offset + length):
            x, w = value[i], weight[i]
            at = i
            while at >= offset + gap and value[at - gap] > x:
                value[at], weight[at] = value[at - gap], weight[at - gap]
                at -= gap
            value[at], weight[at] = x, w


@loop
def merge_equal(value: Any, weight: Any, offset: int, length: int) -> int:
    """Sort a segment and merge equal values; returns its new length."""
    sort_pairs(value, weight, offset, length)
    kept = 0
    for i in range(offset, offset + length):
        if kept > 0 and value[i] == value[offset + kept - 1]:
            weight[offset + kept - 1] += weight[i]
        else:
            value[offset + kept], weight[offset + kept] = value[i], weight[i]
            kept += 1
    return kept


@loop
def compress(value: Any, weight: Any, offset: int, length: int) -> int:
    """Replace a segment by a t-digest (Dunning and Ertl 2019, scale function k1); returns its new length."""
    sort_pairs(value, weight, offset, length)
    v, w = value[offset : offset + length].copy(), weight[offset : offset + length].copy()
    total = w.sum()
    kept = 0
    mean, mass, before = v[0], w[0], 0.0
    scale = DELTA / (2.0 * np.pi)
    limit = scale * np.arcsin(-1.0) + 1.0
    for i in range(1, length):
        share = min((before + mass + w[i]) / total, 1.0)
        if scale * np.arcsin(2.0 * share - 1.0) <= limit:
            mass += w[i]
            mean += (v[i] - mean) * w[i] / mass
        else:
            value[offset + kept], weight[offset + kept] = mean, mass
            kept += 1
            before += mass
            limit = scale * np.arcsin(min(2.0 * before / total - 1.0, 1.0)) + 1.0
            mean, mass = v[i], w[i]
    value[offset + kept], weight[offset + kept] = mean, mass
    return kept + 1


@loop
def register(words: Any, offset: int, token: Any) -> None:
    """Add one token to the registers of a HyperLogLog (eight registers per word)."""
    h = mix(token)
    place = np.int64(h >> np.uint64(64 - PRECISION))
    rest = h << np.uint64(PRECISION)
    rank = np.uint64(1)
    while rank <= np.uint64(64 - PRECISION) and not rest >> np.uint64(63):
        rest = rest << np.uint64(1)
        rank += np.uint64(1)
    shift = np.uint64((place & 7) * 8)
    word = words[offset + (place >> 3)]
    if (word >> shift) & np.uint64(255) < rank:
        words[offset + (place >> 3)] = (word & ~(np.uint64(255) << shift)) | (rank << shift)


@loop
def to_registers(value: Any, offset: int, length: int) -> None:
    tokens = value[offset : offset + length].copy()
    value[offset : offset + WORDS] = 0
    for i in range(length):
        register(value, offset, tokens[i])


@loop
def extend(s: int, length: int, heads: Any, value: Any, weight: Any, used: Any) -> None:
    """Move a full bag to a segment of twice the size; the caller ensures that the arena has room."""
    larger = max(8, 2 * heads[s, 2])
    start = used[0]
    for i in range(length):
        value[start + i], weight[start + i] = value[heads[s, 0] + i], weight[heads[s, 0] + i]
    heads[s, 0], heads[s, 2] = start, larger
    used[0] += larger


@loop
def append_value(s: int, x: Any, w: float, heads: Any, value: Any, weight: Any, used: Any) -> bool:
    """Add one value to bag ``s``; False, with nothing changed, if the arena has no room."""
    length = heads[s, 1]
    if length == heads[s, 2]:
        if length >= VALUES:
            length = compress(value, weight, heads[s, 0], length)
            heads[s, 3] = _DIGEST
        elif used[0] + max(8, 2 * length) > len(value):
            return False
        else:
            extend(s, length, heads, value, weight, used)
    place = heads[s, 0] + length
    value[place], weight[place] = x, w
    heads[s, 1] = length + 1
    return True


@loop
def append_token(limit: int, s: int, x: Any, w: float, heads: Any, value: Any, weight: Any, used: Any) -> bool:
    """Add one token to bag ``s``, which becomes registers beyond ``limit``; False, with nothing changed, if no room."""
    if heads[s, 3] == _LOGLOG:
        register(value, heads[s, 0], x)
        return True
    length = heads[s, 1]
    if length == heads[s, 2]:
        # Checked before equal tokens are merged, so that the memory use of other bags has no effect on when this bag
        # becomes registers.
        if used[0] + max(8, 2 * length) > len(value):
            return False
        if length > 0:
            length = merge_equal(value, weight, heads[s, 0], length)
        if length > limit:
            to_registers(value, heads[s, 0], length)
            heads[s, 1], heads[s, 2], heads[s, 3] = WORDS, WORDS, _LOGLOG
            register(value, heads[s, 0], x)
            return True
        if 2 * length >= heads[s, 2]:
            extend(s, length, heads, value, weight, used)
    place = heads[s, 0] + length
    value[place], weight[place] = x, w
    heads[s, 1] = length + 1
    return True


@loop
def add_values(
    begin: int, slots: Any, x: Any, w: Any, step: int, heads: Any, value: Any, weight: Any, used: Any
) -> int:
    """Append rows from ``begin``; returns the row for which there was no room, or the number of rows."""
    for i in range(begin, len(slots)):
        if not append_value(slots[i], x[i], w[i * step], heads, value, weight, used):
            return i
    return len(slots)


@loop
def add_tokens(
    limit: int, begin: int, slots: Any, x: Any, w: Any, step: int, heads: Any, value: Any, weight: Any, used: Any
) -> int:
    """`add_values` for tokens, with the same return value."""
    for i in range(begin, len(slots)):
        if not append_token(limit, slots[i], x[i], w[i * step], heads, value, weight, used):
            return i
    return len(slots)


@loop
def merge_values(at: Any, into: Any, other: Any, heads: Any, value: Any, weight: Any, used: Any) -> bool:
    """Append the items of each bag ``other[j]`` to ``into[j]``, from position ``at`` = [j, item]; False if no room."""
    while at[0] < len(into):
        a, b = into[at[0]], other[at[0]]
        while at[1] < heads[b, 1]:
            place = heads[b, 0] + at[1]
            if not append_value(a, value[place], weight[place], heads, value, weight, used):
                return False
            at[1] += 1
        at[0] += 1
        at[1] = 0
    return True


@loop
def widen(a: int, heads: Any, value: Any, used: Any) -> bool:
    """Convert an exact bag of tokens to registers; False if there is no room."""
    if heads[a, 2] < WORDS:
        if used[0] + WORDS > len(value):
            return False
        for i in range(heads[a, 1]):
            value[used[0] + i] = value[heads[a, 0] + i]
        heads[a, 0] = used[0]
        used[0] += WORDS
    to_registers(value, heads[a, 0], heads[a, 1])
    heads[a, 1], heads[a, 2], heads[a, 3] = WORDS, WORDS, _LOGLOG
    return True


@loop
def merge_tokens(limit: int, at: Any, into: Any, other: Any, heads: Any, value: Any, weight: Any, used: Any) -> bool:
    """`merge_values` for tokens; registers of two estimates are merged by their maximum."""
    while at[0] < len(into):
        a, b = into[at[0]], other[at[0]]
        if heads[b, 3] == _LOGLOG:
            if heads[a, 3] != _LOGLOG and not widen(a, heads, value, used):
                return False
            for word in range(WORDS):
                x, y = value[heads[a, 0] + word], value[heads[b, 0] + word]
                best = np.uint64(0)
                for byte in range(8):
                    shift = np.uint64(byte * 8)
                    best |= max((x >> shift) & np.uint64(255), (y >> shift) & np.uint64(255)) << shift
                value[heads[a, 0] + word] = best
        while heads[b, 3] != _LOGLOG and at[1] < heads[b, 1]:
            place = heads[b, 0] + at[1]
            if not append_token(limit, a, value[place], weight[place], heads, value, weight, used):
                return False
            at[1] += 1
        at[0] += 1
        at[1] = 0
    return True


@loop
def copy_bags(slots: Any, heads: Any, value: Any, weight: Any, starts: Any, new_value: Any, new_weight: Any) -> None:
    """Copy the items of each bag to its new start."""
    for j in range(len(slots)):
        for i in range(heads[slots[j], 1]):
            new_value[starts[j] + i] = value[heads[slots[j], 0] + i]
            new_weight[starts[j] + i] = weight[heads[slots[j], 0] + i]


@loop
def _sigma(x: Any) -> Any:
    if x == 1.0:
        return np.inf
    y, z = 1.0, x
    while True:
        x *= x
        previous = z
        z += x * y
        y += y
        if z == previous:
            return z


@loop
def _tau(x: Any) -> Any:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1.0 - x
    while True:
        x = np.sqrt(x)
        previous = z
        y *= 0.5
        z -= (1.0 - x) ** 2 * y
        if z == previous:
            return z / 3.0


@loop
def estimate(words: Any, offset: int) -> Any:
    """Cardinality of a HyperLogLog by Ertl's improved estimator (2017), which needs no bias tables."""
    q = 64 - PRECISION
    counts = np.zeros(q + 2)
    for place in range(REGISTERS):
        counts[np.int64((words[offset + (place >> 3)] >> np.uint64((place & 7) * 8)) & np.uint64(255))] += 1.0
    z = REGISTERS * _tau(1.0 - counts[q + 1] / REGISTERS)
    for k in range(q, 0, -1):
        z = 0.5 * (z + counts[k])
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return REGISTERS / (2.0 * np.log(2.0)) * REGISTERS / z


@loop
def count_distinct(slots: Any, heads: Any, value: Any, weight: Any) -> Any:
    """Number of distinct tokens of each bag, int64."""
    out = np.zeros(len(slots), np.int64)
    for j in range(len(slots)):
        s = slots[j]
        if heads[s, 3] == _LOGLOG:
            out[j] = np.int64(np.round(estimate(value, heads[s, 0])))
        elif heads[s, 1] > 0:
            # A copy: reading a result must not move the point at which the bag is compressed.
            offset, length = heads[s, 0], heads[s, 1]
            tokens, ones = value[offset : offset + length].copy(), weight[offset : offset + length].copy()
            out[j] = merge_equal(tokens, ones, 0, length)
    return out


@loop
def quantile(slots: Any, q: float, heads: Any, value: Any, weight: Any) -> Any:
    """Quantile of each bag of values, NaN if it is empty.

    Linear between the order statistics (type 7 of Hyndman and Fan, NumPy's default); in a digest or with weights,
    linear between the centres of the centroids.
    """
    out = np.full(len(slots), np.nan)
    for j in range(len(slots)):
        s = slots[j]
        length = heads[s, 1]
        if length == 0:
            continue
        offset = heads[s, 0]
        v, w = value[offset : offset + length].copy(), weight[offset : offset + length].copy()
        sort_pairs(v, w, 0, length)
        # Centre of item i is (weights before) + (w[i] - 1) / 2, so that unit weights give ranks 0 .. n - 1.
        rank = q * (w.sum() - 1.0)
        before, centre, left = 0.0, 0.0, 0.0
        out[j] = v[length - 1]
        for i in range(length):
            centre = before + (w[i] - 1.0) / 2.0
            if centre >= rank:
                if i == 0 or centre == rank:
                    out[j] = v[i]
                else:
                    out[j] = v[i - 1] + (v[i] - v[i - 1]) * ((rank - left) / (centre - left))
                break
            left = centre
            before += w[i]
    return out


@loop
def entropy_tokens(slots: Any, heads: Any, value: Any, weight: Any) -> Any:
    """Shannon entropy in nats of the tokens of each bag, NaN if it is empty."""
    out = np.full(len(slots), np.nan)
    for j in range(len(slots)):
        offset, length = heads[slots[j], 0], heads[slots[j], 1]
        if length == 0:
            continue
        v, w = value[offset : offset + length].copy(), weight[offset : offset + length].copy()
        kept = merge_equal(v, w, 0, length)
        total = w[:kept].sum()
        out[j] = 0.0
        for i in range(kept):
            out[j] -= w[i] / total * np.log(w[i] / total)
    return out


@loop
def entropy_binned(slots: Any, bins: int, heads: Any, value: Any, weight: Any) -> Any:
    """Shannon entropy in nats of a histogram of ``bins`` equal bins from the minimum to the maximum value."""
    out = np.full(len(slots), np.nan)
    for j in range(len(slots)):
        offset, length = heads[slots[j], 0], heads[slots[j], 1]
        if length == 0:
            continue
        v, w = value[offset : offset + length], weight[offset : offset + length]
        low, high = v.min(), v.max()
        counts = np.zeros(bins)
        for i in range(length):
            place = int((v[i] - low) / (high - low) * bins) if high > low else 0
            counts[min(place, bins - 1)] += w[i]
        total = counts.sum()
        out[j] = 0.0
        for count in counts:
            if count > 0.0:
                out[j] -= count / total * np.log(count / total)
    return out


class Arena:
    """The bags of all groups: ``heads[slot]`` is (offset, length, capacity, mode) of its segment.

    ``tokens`` is None for bags of values, otherwise the number of distinct tokens beyond which a bag becomes an
    estimate.
    """

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens
        self.heads = np.zeros((0, 4), np.int64)
        self.value: NDArray[Any] = np.zeros(1024, np.float64 if tokens is None else np.uint64)
        self.weight = np.zeros(1024)
        self.used = np.zeros(1, np.int64)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` slots."""
        self.heads = np.concatenate([self.heads, np.zeros((capacity - len(self.heads), 4), np.int64)])

    def clear(self, slots: NDArray[np.integer]) -> None:
        """Clear the bags of these slots; their segments are reclaimed when the arena is next rebuilt."""
        self.heads[slots] = 0

    def add(self, slots: NDArray[np.int32], x: NDArray[Any], w: NDArray[np.float64], step: int) -> None:
        """Append row i's value to bag ``slots[i]``."""
        row = 0
        while True:
            rows = (row, slots, x, w, step, *self.parts, self.used)
            row = add_values(*rows) if self.tokens is None else add_tokens(self.tokens, *rows)
            if row == len(slots):
                return
            self._make_room()

    def merge(self, into: NDArray[np.int32], other: NDArray[np.int32]) -> None:
        """Append the items of each bag ``other[j]`` to ``into[j]``."""
        at = np.zeros(2, np.int64)
        while True:
            pairs = (at, into, other, *self.parts, self.used)
            if merge_values(*pairs) if self.tokens is None else merge_tokens(self.tokens, *pairs):
                return
            self._make_room()

    @property
    def parts(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
        """Heads, values and weights, as arguments of the functions of this module."""
        return self.heads, self.value, self.weight

    def gather(self, slots: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
        """Copies of the given bags, contiguous and with the same capacities."""
        heads = self.heads[slots].copy()
        starts = np.concatenate([[0], np.cumsum(heads[:, 2])])
        value, weight = np.zeros(int(starts[-1]), self.value.dtype), np.zeros(int(starts[-1]))
        copy_bags(slots, *self.parts, starts, value, weight)
        heads[:, 0] = starts[:-1]
        return heads, value, weight

    def load(
        self, slots: NDArray[np.integer], bags: tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]
    ) -> None:
        """Restore bags that `gather` returned to the given slots; the arena must be empty."""
        heads, value, weight = bags
        self.heads[slots] = heads
        self.value = np.concatenate([value, np.zeros(1024, self.value.dtype)])
        self.weight = np.concatenate([weight, np.zeros(1024)])
        self.used[0] = len(value)

    def _make_room(self) -> None:
        """Rebuild the arena without unused segments and with room to spare."""
        live = np.flatnonzero(self.heads[:, 2] > 0)
        heads, value, weight = self.gather(live)
        size = 4 * len(value) + 4 * WORDS
        self.heads[live] = heads
        self.value = np.concatenate([value, np.zeros(size - len(value), self.value.dtype)])
        self.weight = np.concatenate([weight, np.zeros(size - len(weight))])
        self.used[0] = len(value)
