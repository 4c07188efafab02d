"""Events of a sample whose times are far from those of nearly all others: figures leave them out and name them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["usual_times"]

_TAIL: Final = 0.025
"""Share of the events at either end that may be strays."""
_LEAST: Final = 40
"""Number of events from which on one of them may be a stray."""
_FAR: Final = 10
"""How many times the span of the others a stray is away from them."""


def usual_times(times_us: NDArray[np.int64]) -> tuple[int, int] | None:
    """The first and last time of the events that are not far from nearly all others; None without an event."""
    if not len(times_us):
        return None
    if len(times_us) < _LEAST:
        return int(times_us.min()), int(times_us.max())
    low = int(np.quantile(times_us, _TAIL, method="higher"))
    high = int(np.quantile(times_us, 1 - _TAIL, method="lower"))
    margin = _FAR * (high - low)
    if margin <= 0:  # nearly all are at one time: nothing says what is far
        return int(times_us.min()), int(times_us.max())
    usual = times_us[(times_us >= low - margin) & (times_us <= high + margin)]
    return int(usual.min()), int(usual.max())
