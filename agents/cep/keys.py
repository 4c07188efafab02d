"""Correlation keys as small numbers: a hash table of strings, filled a whole column at a time.

A frame's keys are dictionary-encoded, so that a string is hashed once per frame (or only once, if frames share a
dictionary) and not once per row. Numbers of keys to which no state refers any more are reused.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917  kernels take their arrays one by one

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import plain
from astrocyte.agents.jit import inner, kernel, prefetch
from astrocyte.schemas.values.mixed import key_column

__all__ = ["KeyTable", "Selected", "touched"]

_COUNT, _BYTES, _FREE = range(3)
_CACHED: Final = 8
_NO_STRINGS: Final = pa.array([""], pa.utf8())
LEAST: Final = 65_536
"""Number of strings up to which a table is not swept: a sweep then costs more than it frees."""


_ENTRY: Final = np.dtype([("hash", "u8"), ("start", "i8"), ("size", "i4")], align=True)
"""A string in the arena; size -1: the number is free."""


@inner
def _word(data, i):
    """Eight bytes as a number; LLVM compiles this to one load."""
    i = np.uint64(i)
    value = np.uint64(data[i])
    for k in range(1, 8):
        value |= np.uint64(data[i + np.uint64(k)]) << np.uint64(8 * k)
    return value


@inner
def _hash(data, start, stop):
    """A multiplication and a shift per eight bytes, and a final mix, since the low bits index the table."""
    value = np.uint64(0xCBF29CE484222325) ^ np.uint64(stop - start)
    i = start
    while i + 8 <= stop:
        value = (value ^ _word(data, i)) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(32)
        i += 8
    rest = np.uint64(0)
    while i < stop:
        rest = (rest << np.uint64(8)) | np.uint64(data[np.uint64(i)])
        i += 1
    value = (value ^ rest) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> np.uint64(32))


@inner
def _equal(data, start, stop, arena, at):
    i = start
    while i + 8 <= stop:
        if _word(data, i) != _word(arena, at + i - start):
            return False
        i += 8
    while i < stop:
        if data[np.uint64(i)] != arena[np.uint64(at + i - start)]:
            return False
        i += 1
    return True


@kernel
def _touched(words, rows, mask):
    """Rows with a word that is not 0, and these words; returns their number."""
    n = np.uint64(0)
    for row in range(words.shape[0]):
        rows[n] = row
        mask[n] = words[row]
        n += np.uint64(words[row] != 0)
    return np.int64(n)


@kernel
def _select(codes, known, t, first_ref, rows, key, times, ref, mask, unknown, count):
    """Keep those of the first ``count`` rows that have a key, in ``rows`` and ``mask``; fill in key, time and handle.

    ``known[code]`` is the number of a dictionary entry, -1 before its first look-up. Returns how many rows are kept,
    and how many of them, with indices in ``unknown``, still need a look-up.
    """
    n = np.int64(0)
    later = np.int64(0)
    for i in range(count):
        row = np.uint64(rows[i])
        code = np.int64(codes[row])
        if code < 0:
            continue
        number = np.int64(known[np.uint64(code)])
        u = np.uint64(n)
        if number < 0:
            unknown[np.uint64(later)] = n
            later += 1
        rows[u] = row
        mask[u] = mask[np.uint64(i)]
        key[u] = number
        times[u] = t[row]
        ref[u] = first_ref + np.int64(row)
        n += 1
    return n, later


@kernel
def _look_up(at, unknown, count, hashes, codes, offsets, data, known, table, entries, arena, free, G, rows, key):
    """Look up numbers for the ``count`` indices in ``unknown``; ``at[0]`` is the next. False: no room for a new key.

    The memory for a string is prefetched some strings ahead: its index in the table, then the entry found there.
    """
    slots = np.uint64(table.shape[0] - 1)
    for ahead in range(at[0], count + 16):
        if ahead + 24 < count:
            prefetch(offsets, np.int64(codes[rows[unknown[ahead + 24]]]))
            prefetch(data, np.int64(offsets[codes[rows[unknown[ahead + 8]]]]))
        if ahead < count:
            code = np.uint64(codes[rows[unknown[ahead]]])
            hashes[ahead] = _hash(data, np.int64(offsets[code]), np.int64(offsets[code + np.uint64(1)]))
            prefetch(table, np.int64(hashes[ahead] & slots))
        if at[0] + 8 <= ahead < count + 8:
            number = np.int64(table[hashes[ahead - 8] & slots])
            if number >= 0:
                prefetch(entries, number)
        j = ahead - 16
        if j < at[0]:
            continue
        place = unknown[j]
        code = np.uint64(codes[rows[place]])
        number = np.int64(known[code])
        if number < 0:
            start = np.int64(offsets[code])
            stop = np.int64(offsets[code + np.uint64(1)])
            value = hashes[j]
            slot = value & slots
            while True:
                number = np.int64(table[slot])
                if number < 0:
                    break
                entry = entries[number]
                if entry.hash == value and entry.size == stop - start and _equal(data, start, stop, arena, entry.start):
                    break
                slot = (slot + np.uint64(1)) & slots
            if number < 0:
                reused = G[_FREE] > 0
                if (
                    (not reused and G[_COUNT] >= entries.shape[0])
                    or 2 * (G[_COUNT] + 1) > table.shape[0]
                    or G[_BYTES] + stop - start > arena.shape[0]
                ):
                    at[0] = j
                    return False
                if reused:
                    G[_FREE] -= 1
                    number = free[G[_FREE]]
                else:
                    number = G[_COUNT]
                    G[_COUNT] += 1
                table[slot] = number
                entries[number].hash = value
                entries[number].start = G[_BYTES]
                entries[number].size = stop - start
                for i in range(start, stop):
                    arena[G[_BYTES] + i - start] = data[i]
                G[_BYTES] += stop - start
            known[code] = number
        key[place] = number
    return True


@kernel
def _refill(table, entries, count):
    for number in range(count):
        if entries[number].size >= 0:
            place = np.int64(entries[number].hash & np.uint64(table.shape[0] - 1))
            while table[place] >= 0:
                place = (place + 1) & (table.shape[0] - 1)
            table[place] = number


@kernel
def _gather(numbers, entries, arena, offsets, data):
    at = np.int64(0)
    for row in range(numbers.shape[0]):
        start = entries[numbers[row]].start
        size = np.int64(entries[numbers[row]].size)
        for i in range(size):
            data[at + i] = arena[start + i]
        at += size
        offsets[row + 1] = at


@kernel
def _hash_all(entries, arena, count):
    for number in range(count):
        if entries[number].size >= 0:
            start = entries[number].start
            entries[number].hash = _hash(arena, start, start + entries[number].size)


class Selected(NamedTuple):
    """Selected rows as columns: index in the frame, key number, time, handle, word."""

    rows: NDArray[np.int64]
    key: NDArray[np.int32]
    t: NDArray[np.int64]
    ref: NDArray[np.int64]
    mask: NDArray[np.uint64]


class _Dictionary(NamedTuple):
    """Strings of a column with their numbers (-1: not looked up yet).

    The array is kept as well, so that its address, which is the cache key, cannot be reused for other strings.
    """

    array: pa.Array
    known: NDArray[np.int32]
    offsets: NDArray[np.int32]
    data: NDArray[np.uint8]


def touched(words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows with a word that is not 0, and these words."""
    rows, mask = np.empty(len(words), np.int64), np.empty(len(words), np.uint64)
    end = int(_touched(plain(words), rows, mask))
    return rows[:end], mask[:end]


class KeyTable:
    """Numbers of the keys of one correlation field, or of other strings.

    ``least`` is the number of strings up to which the table is never `due` for a sweep (`recycle`), by default LEAST.
    """

    def __init__(self, *, room: int = 1024, least: int | None = None) -> None:
        size = 1 << max(2, (2 * room - 1).bit_length())
        self._table = np.full(size, -1, np.int32)
        self._entries = _entries(size // 2)
        self._free = np.zeros(size // 2, np.int64)
        self._arena = np.zeros(8 * size, np.uint8)
        self._globals = np.zeros(3, np.int64)
        self._room = room
        self.least = LEAST if least is None else least
        self._sweep_at = 0
        self._single: dict[str, int] = {}
        self._cache: dict[tuple[int, int], _Dictionary] = {}

    def __len__(self) -> int:
        return int(self._globals[_COUNT] - self._globals[_FREE])

    @property
    def nbytes(self) -> int:
        """Memory of the table in bytes."""
        arrays = (self._table, self._entries, self._free, self._arena)
        return sum(array.nbytes for array in arrays)

    @property
    def due(self) -> bool:
        """Whether the table has grown to twice what the last sweep found alive, so that `recycle` is worth its cost."""
        return len(self) >= max(self._sweep_at, self.least)

    @property
    def numbers(self) -> int:
        """One more than the largest number ever assigned."""
        return int(self._globals[_COUNT])

    def select(self, column: pa.Array, words: NDArray[np.uint64], t: NDArray[np.int64], first_ref: int) -> Selected:
        """The rows that have a word and a key. Keys that are not strings are converted to strings."""
        rows, mask = touched(words)
        return self.select_rows(column, rows, mask, t, first_ref)

    def select_rows(
        self, column: pa.Array, rows: NDArray[np.int64], mask: NDArray[np.uint64], t: NDArray[np.int64], first_ref: int
    ) -> Selected:
        """Those of ``rows`` that have a key, with their words ``mask``; both arrays are overwritten."""
        column = key_column(column)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        indices = column.indices
        codes = indices.to_numpy() if indices.null_count == 0 else indices.fill_null(-1).to_numpy()
        codes = codes.astype(np.int32, copy=False)
        strings = self._dictionary(column.dictionary)
        if strings.array.null_count:
            codes = np.where(np.asarray(strings.array.is_null())[codes] & (codes >= 0), np.int32(-1), codes)
        count = len(rows)
        codes = plain(codes)
        key, times, ref = np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64)
        unknown = np.empty(count, np.int64)
        end, later = _select(codes, strings.known, plain(t), first_ref, rows, key, times, ref, mask, unknown, count)
        at, hashes = np.zeros(1, np.int64), np.empty(later, np.uint64)
        while later and not _look_up(
            at, unknown, later, hashes, codes, strings.offsets, strings.data, strings.known, self._table, self._entries,
            self._arena, self._free, self._globals, rows, key,
        ):  # fmt: skip
            self._grow()
        if end < count:
            return Selected(rows[:end], key[:end], times[:end], ref[:end], mask[:end])
        return Selected(rows, key, times, ref, mask)

    def _dictionary(self, dictionary: pa.Array) -> _Dictionary:
        """The strings of a dictionary with their known numbers; cached for the most recent dictionaries."""
        if not len(dictionary):
            dictionary = _NO_STRINGS  # some writers give an empty array no offsets buffer
        valid, offsets_buffer, data_buffer = dictionary.buffers()
        address = offsets_buffer.address + 4 * dictionary.offset, 0 if valid is None else valid.address
        cached = self._cache.get(address)
        if cached is not None and len(cached.known) == len(dictionary):
            return cached
        while len(self._cache) >= _CACHED:
            self._cache.pop(next(iter(self._cache)))
        offsets = np.frombuffer(offsets_buffer, np.int32)[dictionary.offset : dictionary.offset + len(dictionary) + 1]
        data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(1, np.uint8)
        known = np.full(len(dictionary), -1, np.int32)
        found = self._cache[address] = _Dictionary(dictionary, known, plain(offsets), plain(data))
        return found

    def number(self, text: str) -> int:
        """Number of the key ``text`` of one event."""
        number = self._single.get(text)
        if number is None:
            number = self._single[text] = self.intern(text)
        return number

    def intern(self, text: str) -> int:
        """Number of one string that is unlikely to come again."""
        data = np.frombuffer(text.encode("utf-8", "surrogatepass") or b"\0", np.uint8)
        offsets = np.array([0, len(data) if text else 0], np.int32)
        first, known, number = np.zeros(1, np.int64), np.full(1, -1, np.int32), np.empty(1, np.int32)
        at, hashes, codes = np.zeros(1, np.int64), np.empty(1, np.uint64), np.zeros(1, np.int32)
        while not _look_up(
            at, first, 1, hashes, codes, offsets, plain(data), known, self._table, self._entries, self._arena,
            self._free, self._globals, first, number,
        ):  # fmt: skip
            self._grow()
        return int(number[0])

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Entries (``start`` and ``size`` by number) and the bytes they point into; valid until the table grows."""
        return self._entries, self._arena

    def strings(self, numbers: NDArray[np.int32]) -> pa.Array:
        """Strings of the keys with these numbers, which `recycle` may invalidate."""
        offsets = np.zeros(len(numbers) + 1, np.int32)
        data = np.empty(int(self._entries["size"][numbers].sum()), np.uint8)
        _gather(numbers, self._entries, self._arena, offsets, data)
        return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data))

    def recycle(self, live: NDArray[np.bool_]) -> int:
        """Free all numbers that are not ``live``; returns how many. Memory follows the numbers that are left.

        ``live`` has one flag for every number below `numbers`. Whatever holds a number must have marked it.
        """
        before, kept = len(self), self._kept(live)
        data, starts = self._bytes(kept)
        count = int(kept[-1]) + 1 if len(kept) else 0
        size = min(len(self._table), 1 << max(2, (2 * max(self._room, 2 * count) - 1).bit_length()))
        old, self._entries, self._free = self._entries, _entries(size // 2), np.zeros(size // 2, np.int64)
        self._entries[kept] = old[kept]
        self._entries["start"][kept] = starts
        self._arena = np.zeros(max(8 * size, 1 << (2 * len(data)).bit_length()), np.uint8)
        self._arena[: len(data)] = data
        self._set_free(kept, count)
        self._globals[_COUNT], self._globals[_BYTES] = count, len(data)
        self._single.clear()
        self._cache.clear()
        self._rehash(size)
        self._sweep_at = 2 * len(kept)
        return before - len(kept)

    def _kept(self, live: NDArray[np.bool_] | None) -> NDArray[np.int32]:
        count = self.numbers
        kept = self._entries["size"][:count] >= 0
        return np.flatnonzero(kept if live is None else kept & live[:count]).astype(np.int32)

    def _bytes(self, kept: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Bytes of the strings with these numbers, one after the other, and where each begins."""
        offsets = np.zeros(len(kept) + 1, np.int32)
        data = np.empty(int(self._entries["size"][kept].sum()), np.uint8)
        _gather(kept, self._entries, self._arena, offsets, data)
        return data, offsets[:-1]

    def _set_free(self, kept: NDArray[np.int32], count: int) -> None:
        """Make all other numbers below ``count`` free, the lowest to be taken first, so that the table stays short."""
        free = np.ones(count, np.bool_)
        free[kept] = False
        numbers = np.flatnonzero(free)[::-1]
        self._free[: len(numbers)] = numbers
        self._globals[_FREE] = len(numbers)

    def _grow(self) -> None:
        if 2 * (self.numbers + 1) > len(self._table) or self.numbers >= len(self._entries):
            self._free = _doubled(self._free)
            self._entries = np.concatenate([self._entries, _entries(len(self._entries))])
            self._rehash(2 * len(self._table))
        else:
            self._arena = _doubled(self._arena)

    def _rehash(self, size: int) -> None:
        self._table = np.full(size, -1, np.int32)
        _refill(self._table, self._entries, self.numbers)

    def snapshot(self, live: NDArray[np.bool_] | None = None) -> dict[str, NDArray[Any]]:
        """The strings of the numbers that are ``live`` (None: of all), as arrays."""
        kept = self._kept(live)
        data, _ = self._bytes(kept)
        return {"numbers": kept, "sizes": self._entries["size"][kept], "arena": data}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot: its strings have the numbers that they had."""
        kept, sizes = np.asarray(snapshot["numbers"], np.int32), np.asarray(snapshot["sizes"], np.int32)
        data = np.asarray(snapshot["arena"], np.uint8)
        count = int(kept[-1]) + 1 if len(kept) else 0
        self.__init__(room=max(self._room, 2 * count), least=self.least)  # type: ignore[misc]
        self._entries["size"][kept] = sizes
        self._entries["start"][kept] = np.cumsum(sizes, dtype=np.int64) - sizes
        while len(self._arena) < len(data):
            self._arena = _doubled(self._arena)
        self._arena[: len(data)] = data
        self._set_free(kept, count)
        self._globals[_COUNT], self._globals[_BYTES] = count, len(data)
        self._sweep_at = 2 * len(kept)
        _hash_all(self._entries, self._arena, count)
        self._rehash(len(self._table))


def _entries(count: int) -> NDArray[Any]:
    entries = np.zeros(count, _ENTRY)
    entries["size"] = -1
    return entries


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])
