"""Correlation keys as small numbers: a hash table of texts, filled a whole column at a time.

A frame's keys are dictionary-encoded, so that a text is hashed once a frame (or once ever, where frames share a
dictionary) and not once a row. Numbers of keys that no state refers to any more are given out again.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# ruff: noqa: PLR0917, SIM110  kernels take their arrays one by one and know no generators

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from agents.cep.jit import inner, kernel
from agents.cep.rows import plain

__all__ = ["KeyTable", "Selected"]

_COUNT, _BYTES, _FREE = range(3)
_CACHED: Final = 8
_NEVER: Final = -(2**62)


@inner
def _hash(data, start, stop):
    """FNV-1a (Fowler, Noll, Vo) with a final mix, since the table is indexed by the low bits."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        value = (value ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return value ^ (value >> np.uint64(29))


@inner
def _equal(data, start, stop, arena, at):
    for i in range(start, stop):
        if data[i] != arena[at + i - start]:
            return False
    return True


@kernel
def _select(at, codes, offsets, data, known, table, hashes, starts, sizes, arena, free, seen, G, epoch, words, t,
            first_ref, rows, key, times, ref, mask):  # fmt: skip
    """Rows with a word that is not 0 and a key, with the key's number, side by side in the outputs.

    ``known[code]`` is the number of a dictionary entry, -1 while it was not looked up. ``at`` holds the next row and
    the number of rows put out. False: there is no room for a new key, call again.
    """
    slots = np.uint64(table.shape[0] - 1)
    n = at[1]
    for row in range(at[0], codes.shape[0]):
        word = words[row]
        if word == 0:
            continue
        code = np.int64(codes[row])
        if code < 0:
            continue
        number = np.int64(known[code])
        if number < 0:
            start = np.int64(offsets[code])
            stop = np.int64(offsets[code + 1])
            value = _hash(data, start, stop)
            place = np.int64(value & slots)
            while True:
                number = np.int64(table[place])
                if number < 0:
                    break
                if (
                    hashes[number] == value
                    and sizes[number] == stop - start
                    and _equal(data, start, stop, arena, starts[number])
                ):
                    break
                place = np.int64((np.uint64(place) + np.uint64(1)) & slots)
            if number < 0:
                reused = G[_FREE] > 0
                if (
                    (not reused and G[_COUNT] >= hashes.shape[0])
                    or 2 * (G[_COUNT] + 1) > table.shape[0]
                    or G[_BYTES] + stop - start > arena.shape[0]
                ):
                    at[0] = row
                    at[1] = n
                    return False
                if reused:
                    G[_FREE] -= 1
                    number = free[G[_FREE]]
                else:
                    number = G[_COUNT]
                    G[_COUNT] += 1
                table[place] = number
                hashes[number] = value
                starts[number] = G[_BYTES]
                sizes[number] = stop - start
                for i in range(start, stop):
                    arena[G[_BYTES] + i - start] = data[i]
                G[_BYTES] += stop - start
            known[code] = number
        seen[number] = epoch
        rows[n] = row
        key[n] = number
        times[n] = t[row]
        ref[n] = first_ref + row
        mask[n] = word
        n += 1
    at[1] = n
    return True


@kernel
def _refill(table, hashes, sizes, count):
    for number in range(count):
        if sizes[number] >= 0:
            place = np.int64(hashes[number] & np.uint64(table.shape[0] - 1))
            while table[place] >= 0:
                place = (place + 1) & (table.shape[0] - 1)
            table[place] = number


@kernel
def _gather(numbers, starts, sizes, arena, offsets, data):
    at = 0
    for row in range(numbers.shape[0]):
        start = starts[numbers[row]]
        for i in range(sizes[numbers[row]]):
            data[at + i] = arena[start + i]
        at += sizes[numbers[row]]
        offsets[row + 1] = at


class Selected(NamedTuple):
    """Rows that take part, as columns: index in the frame, key number, time, handle, word."""

    rows: NDArray[np.int64]
    key: NDArray[np.int32]
    t: NDArray[np.int64]
    ref: NDArray[np.int64]
    mask: NDArray[np.uint64]


class KeyTable:
    """Numbers of the keys of one correlation field."""

    def __init__(self, *, room: int = 1024) -> None:
        size = 1 << max(2, (2 * room - 1).bit_length())
        self._table = np.full(size, -1, np.int32)
        self._hashes = np.zeros(size // 2, np.uint64)
        self._starts = np.zeros(size // 2, np.int64)
        self._sizes = np.full(size // 2, -1, np.int32)
        self._seen = np.zeros(size // 2, np.uint8)
        self._free = np.zeros(size // 2, np.int64)
        self._arena = np.zeros(8 * size, np.uint8)
        self._globals = np.zeros(3, np.int64)
        self._epoch, self._newest, self._newest_before = 1, _NEVER, _NEVER
        self._single: dict[str, int] = {}
        self._cache: dict[int, tuple[pa.Array, NDArray[np.int32]]] = {}

    def __len__(self) -> int:
        return int(self._globals[_COUNT] - self._globals[_FREE])

    @property
    def numbers(self) -> int:
        """One more than the largest number given out."""
        return int(self._globals[_COUNT])

    def select(self, column: pa.Array, words: NDArray[np.uint64], t: NDArray[np.int64], first_ref: int) -> Selected:
        """The rows that have a word and a key. Keys that are not text are taken as their text."""
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        dictionary = column.dictionary
        if not pa.types.is_string(dictionary.type):
            dictionary = dictionary.cast(pa.utf8())
        indices = column.indices
        codes = indices.to_numpy() if indices.null_count == 0 else indices.fill_null(-1).to_numpy()
        codes = codes.astype(np.int32, copy=False)
        if dictionary.null_count:
            codes = np.where(np.asarray(dictionary.is_null())[codes] & (codes >= 0), np.int32(-1), codes)
        _, offsets_buffer, data_buffer = dictionary.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[dictionary.offset : dictionary.offset + len(dictionary) + 1]
        data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(1, np.uint8)
        address = offsets_buffer.address + 4 * dictionary.offset
        cached = self._cache.get(address)
        if cached is None or len(cached[1]) != len(dictionary):
            while len(self._cache) >= _CACHED:
                self._cache.pop(next(iter(self._cache)))
            # The array is kept with it, so that its address cannot come to mean other texts.
            cached = self._cache[address] = (dictionary, np.full(len(dictionary), -1, np.int32))
        count = len(codes)
        out = Selected(
            np.empty(count, np.int64),
            np.empty(count, np.int32),
            np.empty(count, np.int64),
            np.empty(count, np.int64),
            np.empty(count, np.uint64),
        )
        if count:
            self._newest = max(self._newest, int(t.max()))
        at = np.zeros(2, np.int64)
        while not _select(
            at, plain(codes), plain(offsets), plain(data), cached[1], self._table, self._hashes, self._starts,
            self._sizes, self._arena, self._free, self._seen, self._globals, self._epoch, plain(words), plain(t),
            first_ref, out.rows, out.key, out.t, out.ref, out.mask,
        ):  # fmt: skip
            self._grow()
        end = int(at[1])
        return Selected(out.rows[:end], out.key[:end], out.t[:end], out.ref[:end], out.mask[:end])

    def number(self, text: str, t: int) -> int:
        """Number of the key of one event at ``t`` microseconds."""
        number = self._single.get(text)
        if number is None:
            column = pa.array([text]).dictionary_encode()
            number = int(self.select(column, np.ones(1, np.uint64), np.array([t], np.int64), 0).key[0])
            self._cache.clear()
            self._single[text] = number
        else:
            self._seen[number] = self._epoch
            self._newest = max(self._newest, t)
        return number

    def texts(self, numbers: NDArray[np.int32]) -> pa.Array:
        """Texts of the keys; valid until numbers are given out again (`recycle`)."""
        sizes = self._sizes[numbers]
        offsets = np.zeros(len(numbers) + 1, np.int32)
        data = np.empty(int(sizes.sum()), np.uint8)
        _gather(numbers, self._starts, self._sizes, self._arena, offsets, data)
        return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data))

    def recycle(self, live: NDArray[np.bool_], now_us: int) -> int:
        """Give back numbers that are not ``live`` and were not asked for since the last call; gives how many.

        Rows with these numbers may still wait to be processed until time has passed the newest of them.
        """
        count, numbers = self.numbers, np.empty(0, np.int64)
        if now_us > self._newest_before:
            gone = (self._sizes[:count] >= 0) & ~live[:count] & (self._seen[:count] != self._epoch)
            numbers = np.flatnonzero(gone)
        self._epoch = self._epoch % 255 + 1
        self._newest_before = self._newest
        if not len(numbers):
            return 0
        self._sizes[numbers] = -1
        free = int(self._globals[_FREE])
        self._free[free : free + len(numbers)] = numbers
        self._globals[_FREE] = free + len(numbers)
        self._single.clear()
        self._cache.clear()
        kept = np.flatnonzero(self._sizes[:count] >= 0).astype(np.int32)
        offsets = np.zeros(len(kept) + 1, np.int32)
        data = np.empty(int(self._sizes[kept].sum()), np.uint8)
        _gather(kept, self._starts, self._sizes, self._arena, offsets, data)
        self._arena[: len(data)] = data
        self._starts[kept] = offsets[:-1]
        self._globals[_BYTES] = len(data)
        self._rehash(len(self._table))
        return len(numbers)

    def _grow(self) -> None:
        if 2 * (self.numbers + 1) > len(self._table) or self.numbers >= len(self._hashes):
            self._hashes, self._starts = _doubled(self._hashes), _doubled(self._starts)
            self._seen, self._free = _doubled(self._seen), _doubled(self._free)
            self._sizes = np.concatenate([self._sizes, np.full_like(self._sizes, -1)])
            self._rehash(2 * len(self._table))
        else:
            self._arena = _doubled(self._arena)

    def _rehash(self, size: int) -> None:
        self._table = np.full(size, -1, np.int32)
        _refill(self._table, self._hashes, self._sizes, self.numbers)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy as arrays."""
        count, size, free = (int(number) for number in self._globals)
        return {
            "hashes": self._hashes[:count].copy(),
            "starts": self._starts[:count].copy(),
            "sizes": self._sizes[:count].copy(),
            "seen": self._seen[:count].copy(),
            "epoch": np.array([self._epoch, self._newest, self._newest_before]),
            "free": self._free[:free].copy(),
            "arena": self._arena[:size].copy(),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Take over a snapshot."""
        count, free, size = (len(snapshot[name]) for name in ("hashes", "free", "arena"))
        self.__init__(room=max(1024, 2 * count))  # type: ignore[misc]
        self._hashes[:count] = snapshot["hashes"]
        self._starts[:count] = snapshot["starts"]
        self._sizes[:count] = snapshot["sizes"]
        self._seen[:count] = snapshot["seen"]
        self._epoch, self._newest, self._newest_before = (int(number) for number in snapshot["epoch"])
        self._free[:free] = snapshot["free"]
        while len(self._arena) < size:
            self._arena = _doubled(self._arena)
        self._arena[:size] = snapshot["arena"]
        self._globals[:] = count, size, free
        self._rehash(len(self._table))


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])
