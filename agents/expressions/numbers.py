"""Numbers of the expression language: their range and arithmetic.

A number is a float64 or a whole number of 64 bits (-2**63 to 2**64 - 1); a whole number is the same number whether a
column holds it as an integer or as a float, and true and false are 1 and 0. So the meaning of a value does not depend
on the other values of its column. ``+ - * %`` of two whole numbers are exact if the result fits into 64 bits;
everything else is computed in float64. Arrays hold numbers beyond float64's precision as pairs: ``high`` is the nearest
float64, ``low`` the remainder.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "arithmetic", "clean", "join_pair", "nearest_float", "split_integers", "total", "whole_or_float"]

EXACT: Final = 2**53
"""float64 holds every integer up to this one."""
LEAST: Final = -(2**63)
MOST: Final = 2**64 - 1
_PLAIN: Final = frozenset({str, bool, type(None)})
_OPERATIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
}


def clean(value: Any) -> Any:
    """A field's value in the language: int, float, bool, str or None; NaN and values of other types become None.

    An integer beyond 64 bits becomes the nearest float.
    """
    kind = type(value)
    if kind is float:
        return value if value == value else None  # noqa: PLR0124  NaN is the only value unequal to itself
    if kind is int:
        return value if LEAST <= value <= MOST else nearest_float(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return clean(value.item()) if isinstance(value, np.number | np.bool_ | np.str_) else None
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return clean(plain(value))
    return None


def nearest_float(value: float) -> float:
    """The value as a float64; an integer beyond its range becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def arithmetic(op: str, a: Any, b: Any) -> int | float | None:
    """``a op b`` of two values of the language; None if one is not a number or the result cannot be computed."""
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
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
    if integers or (_is_whole(a) and _is_whole(b)):
        exact: int = compute(int(a), int(b))
        if LEAST <= exact <= MOST:
            return exact if integers or exact != float(exact) else float(exact)
        result = compute(float(a), float(b))
    found: float | None = clean(result)
    return found


def total(values: Sequence[int | float]) -> int | float:
    """Sum of numbers: exact if all are whole and the sum fits into 64 bits, otherwise the nearest float64."""
    if all(isinstance(value, int) for value in values) or all(_is_whole(value) for value in values):
        exact = sum(int(value) for value in values)
        if LEAST <= exact <= MOST:
            whole = exact != float(exact) or all(isinstance(value, int) for value in values)
            return exact if whole else float(exact)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # an intermediate sum beyond float64, or infinities of both signs
        return sum(float(value) for value in values)


def _is_whole(value: float) -> bool:
    return LEAST <= value <= MOST and (isinstance(value, int) or value.is_integer())


def split_integers(values: NDArray[np.int64] | NDArray[np.uint64]) -> tuple[NDArray[np.float64], Any]:
    """The values as (high, low); low is None if float64 holds all of them."""
    high = values.astype(np.float64)
    if not len(values) or (values.max() <= EXACT and (values.dtype.kind == "u" or values.min() >= -EXACT)):
        return high, None
    # The difference is exact in arithmetic modulo 2**64, where a float64 of 2**64 counts as 0.
    whole = np.where(high < 2.0**63, high, high - 2.0**64).astype(np.int64)
    return high, (values.view(np.uint64) - whole.view(np.uint64)).view(np.int64).astype(np.float64)


def whole_or_float(high: float, low: float) -> int | float:
    """The number that a pair represents, an int if it is whole and fits into 64 bits."""
    return int(high) + int(low) if low or _is_whole(high) else high


def join_pair(high: float, low: float) -> int | float:
    """The number that a pair represents."""
    return int(high) + int(low) if low else high
