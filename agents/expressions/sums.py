"""Sums of numbers kept as pairs of float64, for whole columns."""

from __future__ import annotations

from typing import Any

from astrocyte.agents.expressions import numbers
from astrocyte.agents.jit import loop

__all__ = ["accumulate", "add_pairs"]

accumulate = loop(numbers.accumulate)


@loop
def add_pairs(slots: Any, high: Any, low: Any, step: int, total: Any, rest: Any) -> None:  # noqa: PLR0917  a kernel
    """Add the pairs, in their order, to those of their slots; ``step`` 0: the low parts are all ``low[0]``."""
    for i in range(len(slots)):
        s = slots[i]
        total[s], rest[s] = accumulate(total[s], rest[s], high[i], low[i * step])
