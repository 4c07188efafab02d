"""Field values as the kernels carry them: pairs of float64; text and booleans are boxed in NaN (`expressions.vm`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.cep.keys import KeyTable
from astrocyte.agents.expressions.numbers import EXACT, clean, split_integers
from astrocyte.agents.expressions.vm import BOX, FALSE, FALSE_BOX, PAYLOAD, TRUE, TRUE_BOX

__all__ = ["BOOLEANS", "TextNumbers", "mark", "mark_constants"]

ROOM: Final = 16
CACHED: Final = 65_536
"""Number of strings of single events that are cached in front of the table."""
_NULL: Final = (math.nan, 0.0)
BOOLEANS: Final = np.array([FALSE_BOX, TRUE_BOX], np.uint64).view(np.float64)
"""The NaNs that stand for false and true."""


class TextNumbers:
    """Numbers of the strings that captured values and constants hold, and the table of their bytes."""

    def __init__(self) -> None:
        self._table = KeyTable(room=ROOM)
        self._single: dict[str, np.float64] = {}

    @property
    def due(self) -> bool:
        """Whether `recycle` is worth its cost."""
        return self._table.due

    @property
    def unmarked(self) -> NDArray[np.bool_]:
        """A flag for every number, for `mark` and `mark_constants` to set."""
        return np.zeros(self._table.numbers, np.bool_)

    def recycle(self, live: NDArray[np.bool_]) -> int:
        """Forget the strings whose numbers are not ``live``; returns how many. The other numbers stay."""
        self._single.clear()
        return self._table.recycle(live)

    def box(self, text: str) -> np.float64:
        """The NaN that stands for ``text``."""
        found = self._single.get(text)
        if found is None:
            if len(self._single) >= CACHED:
                self._single.clear()
            found = self._single[text] = np.uint64(BOX + self._table.intern(text) + 1).view(np.float64)
        return found

    def boxes(self, strings: pa.Array) -> NDArray[np.float64]:
        """The NaNs that stand for several strings, none of which is null."""
        if not len(strings):
            return np.empty(0)
        words, times = np.ones(len(strings), np.uint64), np.zeros(len(strings), np.int64)
        numbers = self._table.select(strings, words, times, 0).key
        return (numbers.astype(np.uint64) + np.uint64(BOX + 1)).view(np.float64)

    def pair(self, value: Any) -> tuple[float, float]:
        """A field's value, or a constant, as the kernels carry it."""
        value = clean(value)
        if value is None:
            return _NULL
        if isinstance(value, str):
            return self.box(value), 0.0
        if isinstance(value, bool):
            return BOOLEANS[int(value)], 0.0
        if isinstance(value, int) and not -EXACT <= value <= EXACT:
            high, low = split_integers(np.array([value], np.int64) if value < 2**63 else np.array([value], np.uint64))
            return float(high[0]), 0.0 if low is None else float(low[0])
        return value, 0.0

    def on_stack(self, constant: Any) -> tuple[float, float]:
        """A constant as the stack machine represents it: text and booleans are NaN, and the low part says which."""
        if isinstance(constant, str):
            return math.nan, float(self._table.intern(constant) + 1)
        if isinstance(constant, bool):
            return math.nan, TRUE if constant else FALSE
        return self.pair(constant)

    @property
    def arrays(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Entries of all strings and their bytes, as the stack machine takes them; replaced when the table grows."""
        return self._table.arrays

    @property
    def nbytes(self) -> int:
        """Memory of the table."""
        return self._table.nbytes

    def snapshot(self, live: NDArray[np.bool_] | None = None) -> dict[str, NDArray[Any]]:
        """The strings of the numbers that are ``live`` (None: of all), as arrays."""
        return self._table.snapshot(live)

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot: its strings have the numbers that they had."""
        self._single.clear()
        self._table.restore(snapshot)


def mark(values: NDArray[np.float64], live: NDArray[np.bool_]) -> None:
    """Set the flags of the strings that ``values`` hold as boxed NaN; payloads beyond the table are something else."""
    bits = np.ascontiguousarray(values).reshape(-1)
    payloads = bits[np.isnan(bits)].view(np.uint64) & np.uint64(PAYLOAD)
    live[payloads[(payloads > 0) & (payloads <= len(live))].astype(np.int64) - 1] = True


def mark_constants(constants: NDArray[np.float64], live: NDArray[np.bool_]) -> None:
    """Set the flags of the strings among constants as the stack machine represents them, shape [constants, 2]."""
    numbers = constants[np.isnan(constants[:, 0]), 1]
    live[numbers[(numbers > 0) & (numbers <= len(live))].astype(np.int64) - 1] = True
