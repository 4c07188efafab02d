"""Keys of a window's groups as small dense numbers; forgotten once no group and no pending row can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.ids import Ids, hash_id, ids_from_bytes

__all__ = ["KeyTable"]

_NEVER: Final = -(2**63)


class KeyTable:
    """Numbers for the values of one field; a number is reused after its key was evicted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers: dict[Any, int] = {}
        self._values: list[Any] = []
        self._newest_us = np.zeros(0, np.int64)
        self._ids = np.zeros((0, 2), np.uint64)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def capacity(self) -> int:
        """One more than the greatest number in use or free."""
        return len(self._values)

    def number(self, column: pa.Array, newest_us: int) -> NDArray[np.int32]:
        """Number of each row's key; ``newest_us`` is the newest timestamp among the rows. Null is a key too."""
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        codes, dictionary = column.indices, column.dictionary
        if len(dictionary) > 2 * len(column) + 64:  # a slice of a large dictionary: number only what occurs
            used = pc.unique(codes.drop_null())
            dictionary = dictionary.take(used)
            codes = pc.index_in(codes, value_set=used)
        numbers = [self._number(value) for value in dictionary.to_pylist()]
        numbers.append(self._number(None) if codes.null_count else -1)
        table = np.array(numbers, np.int32)
        self._settle()
        seen = table[table >= 0]
        self._newest_us[seen] = np.maximum(self._newest_us[seen], newest_us)
        return np.asarray(table[codes.fill_null(-1).to_numpy(zero_copy_only=False)])

    def values(self, numbers: NDArray[np.integer]) -> list[Any]:
        """Keys of the given numbers."""
        values = self._values
        return [values[number] for number in numbers.tolist()]

    def ids(self, numbers: NDArray[np.integer]) -> Ids:
        """A 128-bit id of (table, key) for each number; shape [n, 2]."""
        return np.asarray(self._ids[numbers])

    def evict(self, before_us: int, live: NDArray[np.bool_]) -> None:
        """Forget keys that are not ``live`` and of which no row of ``before_us`` or later was seen."""
        dead = np.flatnonzero(~live[: self.capacity] & (self._newest_us[: self.capacity] < before_us))
        for number in dead.tolist():
            value = self._values[number]
            if self._numbers.get(value, -1) == number:
                del self._numbers[value]
                self._values[number] = None
                self._newest_us[number] = _NEVER
                self._free.append(number)

    def snapshot(self) -> dict[str, Any]:
        """State as arrays and bytes."""
        numbers = np.array(list(self._numbers.values()), np.int32)
        return {
            "keys": orjson.dumps(list(self._numbers)),
            "numbers": numbers,
            "newest_us": self._newest_us[numbers],
            "free": np.array(self._free, np.int32),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a snapshot."""
        numbers = snapshot["numbers"].tolist()
        self._free = snapshot["free"].tolist()
        self._values = [None] * (len(numbers) + len(self._free))
        self._numbers = dict(zip(orjson.loads(bytes(snapshot["keys"])), numbers, strict=True))
        self._newest_us, self._ids = np.zeros(0, np.int64), np.zeros((0, 2), np.uint64)
        self._settle()
        for value, number in self._numbers.items():
            self._values[number] = value
            self._ids[number] = self._id(value)[0]
        self._newest_us[snapshot["numbers"]] = snapshot["newest_us"]

    def _number(self, value: Any) -> int:
        if value != value:  # noqa: PLR0124  NaN is null, and would else be a new key each time
            value = None
        number = self._numbers.get(value)
        if number is None:
            number = self._free.pop() if self._free else len(self._values)
            self._numbers[value] = number
            if number == len(self._values):
                self._values.append(value)
                self._settle()
            self._values[number] = value
            self._ids[number] = self._id(value)[0]
        return number

    def _id(self, value: Any) -> Ids:
        return ids_from_bytes(hash_id("window", self._name, type(value).__name__, str(value)).bytes)

    def _settle(self) -> None:
        """Grow the arrays to the number of keys."""
        if len(self._newest_us) < len(self._values):
            added = max(64, 2 * len(self._values)) - len(self._newest_us)
            self._newest_us = np.concatenate([self._newest_us, np.full(added, _NEVER)])
            self._ids = np.concatenate([self._ids, np.zeros((added, 2), np.uint64)])
