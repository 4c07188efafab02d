"""The normal and Student's t distribution, intervals of shares, and correction for many tests.

Written out, because the core depends on NumPy alone; the tests hold each to scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["benjamini_hochberg", "holm", "normal_p", "normal_quantile", "t_p", "t_quantile", "wilson_interval"]

_TINY: Final = 1e-300


def normal_p(z: float) -> float:
    """Two-sided p of a standard normal deviate; NaN for NaN."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution, for a probability above 0 and below 1."""
    return NormalDist().inv_cdf(probability)


def t_p(t: float, df: float) -> float:
    """Two-sided p of Student's t with ``df`` degrees of freedom (above 0); NaN for NaN."""
    if math.isnan(t):
        return math.nan
    total = df + t * t
    return _beta_share(df / 2.0, 0.5, df / total, t * t / total) if math.isfinite(t) else 0.0


@lru_cache(maxsize=1_024)
def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution, for a probability above 0 and below 1; to 1e-10."""
    if probability == 0.5:
        return 0.0
    tail = 2.0 * min(probability, 1.0 - probability)
    high = 1.0
    while t_p(high, df) > tail:
        high *= 2.0
    low = 0.0
    while high - low > 1e-11 * max(high, 1.0):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_p(middle, df) > tail else (low, middle)
    return math.copysign(0.5 * (low + high), probability - 0.5)


def _beta_share(a: float, b: float, x: float, y: float) -> float:
    """Regularised incomplete beta function at x by its continued fraction (Press et al., Numerical Recipes, 6.4).

    ``y`` is 1 - x, given apart since it may be smaller than the precision of x.
    """
    if x <= 0.0 or y <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_share(b, a, y, x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 1_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d, c = 1.0 / _away(1.0 + even * d), _away(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d, c = 1.0 / _away(1.0 + odd * d), _away(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return math.exp(front) * value / a


def _away(value: float) -> float:
    """The value, kept away from 0."""
    return value if abs(value) > _TINY else _TINY


def wilson_interval(hits: int, total: int, level: float) -> tuple[float, float]:
    """Interval of a share at confidence ``1 - level`` (Wilson 1927, J. Am. Stat. Assoc. 22:209); total above 0."""
    z = normal_quantile(1.0 - level / 2.0)
    share = hits / total
    middle = share + z * z / (2.0 * total)
    half = z * math.sqrt(share * (1.0 - share) / total + z * z / (4.0 * total * total))
    scale = 1.0 + z * z / total
    # At its ends exactly 0 and 1, which rounding misses.
    return 0.0 if hits == 0 else (middle - half) / scale, 1.0 if hits == total else (middle + half) / scale


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P adjusted so that any false finding among all tests has the stated probability (Holm 1979). NaN stays NaN."""
    return _stepwise(np.asarray(p, np.float64), false_discovery=False)


def benjamini_hochberg(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P adjusted so that the stated share of the findings is false (Benjamini and Hochberg 1995). NaN stays NaN."""
    return _stepwise(np.asarray(p, np.float64), false_discovery=True)


def _stepwise(p: NDArray[np.float64], *, false_discovery: bool) -> NDArray[np.float64]:
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    count = len(order)
    rank = np.arange(1, count + 1)
    if false_discovery:
        scaled = p[order] * count / rank
        scaled = np.minimum.accumulate(scaled[::-1])[::-1]
    else:
        scaled = np.maximum.accumulate(p[order] * (count + 1 - rank))
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted
