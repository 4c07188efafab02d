"""Numbers of the expression language: their range and arithmetic.

A number is a float64 or a whole number of 64 bits (-2**63 to 2**64 - 1); a whole number is the same number whether it
was given as an integer or as a float. Booleans and text are no numbers. ``+ - * %`` of two whole numbers are exact if
the result fits into 64 bits; everything else is computed in float64. Arrays hold numbers beyond float64's precision as
pairs: ``high`` is the nearest float64, ``low`` the remainder.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.values.single import LEAST, MOST, nearest_float, plain

__all__ = ["EXACT", "accumulate", "arithmetic", "clean", "is_number", "is_whole", "join_pair", "split_integers",
           "sum_of_pair", "total"]  # fmt: skip

_UNIT: Final = 2.0**-64
EXACT: Final = 2**53
"""float64 holds every integer up to this one."""
_PLAIN: Final = frozenset({str, bool, type(None)})
_OPERATIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
}


def clean(value: Any) -> Any:
    """A field's value in the language (`schemas.values.single.plain`): int, float, bool, str or None; NaN is None."""
    kind = type(value)
    if kind is float:
        return value if value == value else None  # noqa: PLR0124  NaN is the only value unequal to itself
    if kind is int:
        return value if LEAST <= value <= MOST else nearest_float(value)
    if kind in _PLAIN:
        return value
    return clean(plain(value))


def arithmetic(op: str, a: Any, b: Any) -> int | float | None:
    """``a op b`` of two values of the language; None if one is not a number or the result cannot be computed."""
    if not (isinstance(a, int | float) and isinstance(b, int | float)) or type(a) is bool or type(b) is bool:
        return None
    if op == "/":
        return clean(float(a) / float(b)) if b != 0 else None
    if op == "%" and b == 0:
        return None
    compute = _OPERATIONS[op]
    integers = isinstance(a, int) and isinstance(b, int)
    if not integers:
        result = compute(float(a), float(b)) if math.isfinite(a) or op != "%" else math.nan
        if isinstance(a, float) and isinstance(b, float) and abs(result) < EXACT and op != "%":
            return float(result)
    if integers or (is_whole(a) and is_whole(b)):
        exact: int = compute(int(a), int(b))
        if LEAST <= exact <= MOST:
            return exact if integers or exact != float(exact) else float(exact)
        result = compute(float(a), float(b))
    found: float | None = clean(result)
    return found


def accumulate(value: float, low: float, x: float, y: float) -> tuple[float, float]:
    """Add the pair (x, y) to a running sum, itself a pair: what float64 rounds away is kept in the low part.

    Exact for whole numbers of 64 bits; of other numbers about 32 digits count, so that 1e16 + 1 - 1e16 is 1. A sum
    beyond the range of float64 is infinite, and its low part is the sum in units of 2**64, so that later numbers can
    bring it back; that of an infinite number is 0. Kernels compile this function, so that a sum is the same in
    conditions, in emitted values and in windows.
    """
    total = value + x
    if not abs(total) < math.inf:
        if total != total and (value != value or x != x):  # noqa: PLR0124  only NaN is unequal to itself
            return total, 0.0
        endless = abs(value) == math.inf and low == 0.0
        if abs(x) == math.inf and y == 0.0:
            return (total if endless else x), 0.0
        if endless:
            return value, 0.0
        a = low if abs(value) == math.inf else value * _UNIT
        b = y if abs(x) == math.inf else x * _UNIT
        units = a + b
        total = units / _UNIT
        return total, (units if abs(total) == math.inf else 0.0)
    back = total - value
    low += y + ((value - (total - back)) + (x - back))
    value = total + low
    return value, low - (value - total)


def sum_of_pair(high: float, low: float, whole: bool) -> int | float | None:
    """The sum that `accumulate` kept: an int if the numbers were (``whole``) or float64 cannot hold it; None for NaN.

    A sum that is not whole, or beyond 64 bits, is the nearest float64.
    """
    if low and low.is_integer() and high.is_integer():
        exact = int(high) + int(low)
        if LEAST <= exact <= MOST:
            return exact
    if whole and is_whole(high):
        return int(high)
    found: float | None = clean(high)
    return found


def total(values: Sequence[int | float]) -> int | float | None:
    """Sum of numbers in their order, as every evaluator computes it (see `accumulate`)."""
    high = low = 0.0
    whole = True
    for value in values:
        if isinstance(value, int):
            x = float(value)
            high, low = accumulate(high, low, x, float(value - int(x)))
        else:
            whole = False
            high, low = accumulate(high, low, value, 0.0)
    return sum_of_pair(high, low, whole)


def is_number(value: Any) -> bool:
    """Whether a value of the language is a number; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: float) -> bool:
    """Whether a number is whole and fits into 64 bits."""
    return LEAST <= value <= MOST and (isinstance(value, int) or value.is_integer())


def split_integers(values: NDArray[np.int64] | NDArray[np.uint64]) -> tuple[NDArray[np.float64], Any]:
    """The values as (high, low); low is None if float64 holds all of them."""
    high = values.astype(np.float64)
    if not len(values) or (values.max() <= EXACT and (values.dtype.kind == "u" or values.min() >= -EXACT)):
        return high, None
    # The difference is exact in arithmetic modulo 2**64, where a float64 of 2**64 counts as 0.
    whole = np.where(high < 2.0**63, high, high - 2.0**64).astype(np.int64)
    return high, (values.view(np.uint64) - whole.view(np.uint64)).view(np.int64).astype(np.float64)


def join_pair(high: float, low: float) -> int | float:
    """The number that a pair represents."""
    return int(high) + int(low) if low else high
