"""Populations in fixed arrays: compaction of masks, fair choice among candidates, claims, exact sums.

A population is a mapping of names to arrays, ``alive`` among them: of ``slots`` elements, or [rows, slots] for many
traits of one kind (each row contiguous: gathered and scattered by one flat index, which compiles four times faster).
Everything here is pure and runs inside a trace. Cost matters: these functions run every tick on every slot.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["Population", "Sum", "claim", "compact", "exact_sum", "exact_total", "pack_bits", "put", "take",
           "winners"]  # fmt: skip

Population = dict[str, Array]


def pack_bits(mask: Array) -> Array:
    """uint32 words of a boolean mask, lowest slot in the lowest bit; the length is padded to a multiple of 32."""
    padded = -(-mask.shape[0] // 32) * 32
    if padded != mask.shape[0]:
        mask = jnp.concatenate([mask, jnp.zeros(padded - mask.shape[0], bool)])
    weights = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.sum(jnp.where(mask.reshape(-1, 32), weights, jnp.uint32(0)), axis=1, dtype=jnp.uint32)


def _nth_set_bit(words: Array, rank: Array) -> Array:
    """Position of the bit of ``rank`` (0 = lowest) among the set bits of each word, by halving."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = words & jnp.uint32((1 << width) - 1)
        below = lax.population_count(low).astype(rank.dtype)
        high = rank >= below
        rank = jnp.where(high, rank - below, rank)
        words = jnp.where(high, words >> width, low)
        position = position + jnp.where(high, width, 0)
    return position


def _first_above(cumulative: Array, wanted: Array) -> Array:
    """First index whose cumulative count exceeds ``wanted``: counted among blocks, then within the block.

    Counting costs a few more operations than a binary search, and compiles to three loops instead of a dozen gathers.
    """
    size = cumulative.shape[0]
    inner = 1 << (size.bit_length() // 2)
    padding = jnp.full(-size % inner, jnp.iinfo(jnp.int32).max, jnp.int32)
    blocks = jnp.concatenate([cumulative, padding]).reshape(-1, inner)
    block = jnp.sum(blocks[:, -1] <= wanted[:, None], axis=1, dtype=jnp.int32)
    block = jnp.minimum(block, blocks.shape[0] - 1)
    within = jnp.sum(blocks[block] <= wanted[:, None], axis=1, dtype=jnp.int32)
    return jnp.minimum(block * inner + within, size - 1)


def compact(mask: Array, capacity: int) -> tuple[Array, Array]:
    """Indices of the set slots in ascending order: ``(int32[capacity], how many are set)``.

    Entries beyond the count are undefined, though they point at some slot. The mask is packed into words and each
    output selects its bit, which costs 5 to 50 times less than sorting or ``nonzero``.
    """
    words = pack_bits(mask)
    population = lax.population_count(words).astype(jnp.int32)
    cumulative = jnp.cumsum(population)
    wanted = jnp.arange(capacity, dtype=jnp.int32)
    word = _first_above(cumulative, wanted)
    rank = wanted - (cumulative[word] - population[word])
    bit = _nth_set_bit(words[word], rank)
    return jnp.minimum(word * 32 + bit, mask.shape[0] - 1), cumulative[-1]


def winners(tile: Array, luck: Array, want: Array, tiles: int) -> Array:
    """Slot of the winner of each tile, uniform among its candidates; -1 where there are none. int32[tiles].

    ``luck`` is a random word per slot. Its lowest bits are replaced by the slot's number, so that no two slots tie and
    the lowest word identifies its slot. An integer scatter-min is deterministic and needs no float atomics on a GPU.
    """
    slots = tile.shape[0]
    low_bits = max(slots - 1, 1).bit_length()
    ticket = (luck >> low_bits << low_bits) | jnp.arange(slots, dtype=jnp.uint32)
    best = jnp.full(tiles, 0xFFFFFFFF, jnp.uint32).at[jnp.where(want, tile, tiles)].min(ticket, mode="drop")
    slot = (best & jnp.uint32((1 << low_bits) - 1)).astype(jnp.int32)
    return jnp.where(best == jnp.uint32(0xFFFFFFFF), -1, slot)


def claim(tile: Array, luck: Array, want: Array, tiles: int) -> Array:
    """Which slots get the tile they want: one winner per tile (see `winners`). bool[slots]."""
    return want & (winners(tile, luck, want, tiles)[tile] == jnp.arange(tile.shape[0], dtype=jnp.int32))


def take(values: Array, slots: Array) -> Array:
    """Values of the given slots: [slots] to [n], [rows, slots] to [rows, n]."""
    if values.ndim == 1:
        return values[slots]
    rows, size = values.shape
    return values.reshape(-1)[_flat(slots, rows, size)].reshape(rows, -1)


def put(values: Array, slots: Array, new: Array, valid: Array) -> Array:
    """``values`` with ``new`` in the given slots where ``valid``; slots must be unique."""
    rows, size = (1, values.shape[0]) if values.ndim == 1 else values.shape
    target = jnp.where(valid, _flat(slots, rows, size).reshape(rows, -1), rows * size)
    flat = values.reshape(-1).at[target.reshape(-1)].set(new.reshape(-1).astype(values.dtype), mode="drop")
    return flat.reshape(values.shape)


def _flat(slots: Array, rows: int, size: int) -> Array:
    return (jnp.arange(rows, dtype=jnp.int32)[:, None] * size + slots).reshape(-1)


class Sum(NamedTuple):
    """An exact sum of int32 values in two words: ``high * 65536 + low``."""

    high: Array
    low: Array


def exact_sum(values: Array, mask: Array | None = None) -> Sum:
    """Exact sum of int32 values between -2**24 and 2**24, without 64-bit arithmetic (JAX has none by default).

    Up to 2**22 values. Columns of at most 127 values are summed as int32, then their upper and lower halves separately:
    one pass.
    """
    if mask is not None:
        values = jnp.where(mask, values, 0)
    rows = min(127, values.shape[0])
    while values.shape[0] % rows:
        rows -= 1
    partial = jnp.sum(values.reshape(rows, -1), axis=0, dtype=jnp.int32)
    high = jnp.sum(partial >> 16, dtype=jnp.int32)
    low = jnp.sum(partial & 0xFFFF, dtype=jnp.int32)
    # Carry, so that both words stay within int32.
    return Sum(high + (low >> 16), low & 0xFFFF)


def exact_total(high: int, low: int) -> int:
    """Python integer of a `Sum` whose words were read on the host."""
    return int(high) * 65536 + int(low)
