"""Field values as the kernels carry them: pairs of float64, exact for 64-bit integers and able to stand for text.

``high + low`` is the value; ``low`` is 0 unless an integer is beyond 2**53. Text is a number beyond `TEXT`, one for
each distinct text that a matcher has met, so that texts can be compared for equality; NaN is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["TextNumbers", "split_integers"]

_EXACT = 2**53
_SCALE = 900


def split_integers(values: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """The values as (high, low); low is None where float64 holds all of them."""
    high = values.astype(np.float64)
    if not len(values) or (values.max() <= _EXACT and values.min() >= -_EXACT):
        return high, None
    # float64(2**63 - 1) is 2**63, which int64 does not hold: such values are split below that.
    high = np.where(high >= 2.0**63, np.float64(2.0**63 - 2048), high)
    return high, (values - high.astype(np.int64)).astype(np.float64)


class TextNumbers:
    """Numbers of texts, given in the order in which texts are first met."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._codes: dict[str, int] = {}
        self.replace(texts)

    def replace(self, texts: Iterable[str]) -> None:
        """Know exactly these texts, numbered in this order."""
        self._codes.clear()
        self._codes.update((text, code) for code, text in enumerate(texts))

    def number(self, text: str) -> float:
        """The number that stands for ``text``."""
        return math.ldexp(float(2**52 + self._codes.setdefault(text, len(self._codes))), _SCALE)

    def numbers(self, texts: Iterable[str | None]) -> NDArray[np.float64]:
        """Numbers of several texts; null is NaN."""
        return np.array([math.nan if text is None else self.number(text) for text in texts], np.float64)

    @property
    def texts(self) -> list[str]:
        """All texts met, in the order of their numbers."""
        return list(self._codes)
