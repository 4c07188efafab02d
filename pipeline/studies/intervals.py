"""Intervals over worlds, which are independent of each other."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import normal_p, t_quantile, wilson_interval

__all__ = ["bootstrap_means", "mean_interval", "percentile_interval", "share_interval"]

Numbers = NDArray[np.float64]
_LARGEST: Final = 300.0
"""Exponent of the largest factor: one that a float holds together with its inverse."""


def mean_interval(
    values: Numbers, level: float = 0.95, *, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float, float]:
    """Mean of worlds and Student's interval; NaN for the interval of fewer than three.

    Of a quantity that lies between ``low`` and ``high`` the interval is that of the logarithm of the mean's distance
    from its one bound, or of its log-odds between both, carried back: half its width there is Student's times the
    derivative (delta method: Oehlert 1992, The American Statistician 46:27; Agresti 2013, Categorical Data Analysis,
    3.1). It never leaves the bounds, and is Student's where these are far away. Values that all lie at a bound have
    an interval without width.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    if n < 3:
        return mean, np.nan, np.nan
    half = t_quantile((1 + level) / 2, n - 1) * float(np.std(values, ddof=1)) / n**0.5
    above, below = mean - low, high - mean
    if above <= 0 or below <= 0:
        return mean, mean, mean
    if math.isinf(above) and math.isinf(below):
        return mean, mean - half, mean + half
    factor = math.exp(min(half / above + half / below, _LARGEST))
    if math.isinf(below):
        return mean, low + above / factor, low + above * factor
    if math.isinf(above):
        return mean, high - below * factor, high - below / factor
    odds = above / below
    least, most = (low + (high - low) / (1.0 + 1.0 / each) for each in (odds / factor, odds * factor))
    return mean, least, most


def share_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float, float]:
    """Share of worlds and Wilson's interval (`wilson_interval`); NaN without a world."""
    if not total:
        return np.nan, np.nan, np.nan
    return count / total, *wilson_interval(count, total, 1 - level)


def bootstrap_means(rng: np.random.Generator, values: Numbers, resamples: int) -> Numbers:
    """Means of resampled worlds: [worlds, ...] to [resamples, ...]. All trailing values of a world stay together."""
    n = len(values)
    count = rng.multinomial(n, np.full(n, 1.0 / n), resamples)
    means: Numbers = np.tensordot(count.astype(np.float64), values, axes=1) / n
    return means


def percentile_interval(samples: Numbers, level: float = 0.95, *, worlds: int | None = None) -> tuple[float, float]:
    """Percentile interval of bootstrap estimates (Efron 1979).

    With the number of ``worlds`` that were resampled its percentiles are further out, so that for the mean of few
    worlds it is as wide as Student's (Hesterberg 2015, The American Statistician 69:371).
    """
    tail = (1 - level) / 2
    if worlds is not None:
        tail = normal_p((worlds / (worlds - 1)) ** 0.5 * t_quantile(1 - tail, worlds - 1)) / 2
    low, high = np.quantile(samples, (tail, 1 - tail))
    return float(low), float(high)
