"""Time series of one window: equally long columns in order of time, and what several statistics do with them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import Rows
from astrocyte.agents.insight.statistic import Window
from astrocyte.schemas.ids import hash_id

__all__ = [
    "POPULATION",
    "block_samples",
    "detrended",
    "generator",
    "kendall_tau",
    "series_of",
    "stationary_like",
    "straightened",
]

POPULATION: Final = "population_metrics"


def series_of(rows: Rows, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times and finite values of a column; of rows of the same time the last. Rows are ordered by time."""
    known = np.isfinite(rows[name])
    t, values = rows.t[known], rows[name][known]
    last = np.r_[t[1:] != t[:-1], True] if len(t) else np.empty(0, np.bool_)
    return t[last], values[last]


def generator(window: Window, *parts: str) -> np.random.Generator:
    """Random numbers of a window: a function of the run, the window's end and ``parts``, so that results repeat."""
    return np.random.Generator(np.random.PCG64(hash_id(window.run, str(window.end_us), *parts).int))


def detrended(values: NDArray[np.float64], bandwidth: float) -> NDArray[np.float64]:
    """Values [..., n] less their smooth by a Gaussian kernel whose standard deviation is ``bandwidth * n`` places.

    As in Dakos et al. 2008 (PNAS 105:14308); at the ends the kernel is cut off and scaled again.
    """
    n = values.shape[-1]
    place = np.arange(n)
    kernel = np.exp(-0.5 * ((place[:, None] - place) / max(bandwidth * n, 1e-9)) ** 2)
    smooth: NDArray[np.float64] = values @ (kernel / kernel.sum(axis=1, keepdims=True)).T
    return values - smooth


def kendall_tau(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each series [..., n] with time; NaN where a series is constant or has a NaN. O(n^2)."""
    n = values.shape[-1]
    later, earlier = np.tril_indices(n, -1)
    signs = np.sign(values[..., later] - values[..., earlier])
    pairs = n * (n - 1) / 2.0
    untied = (signs != 0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: NDArray[np.float64] = signs.sum(axis=-1) / np.sqrt(pairs * untied)
    return tau


def block_samples(rng: np.random.Generator, n: int, block: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Places below n, shape [count, length], of a circular block bootstrap (Politis and Romano 1992).

    They follow each other in blocks that begin anywhere.
    """
    count, length = shape
    first = rng.integers(0, n, (count, -(-length // block)))
    places = (first[:, :, None] + np.arange(block)) % n
    chosen: NDArray[np.int64] = places.reshape(count, -1)[:, :length]
    return chosen


def straightened(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [..., n] less the straight line that fits them best."""
    n = values.shape[-1]
    place = np.arange(n) - (n - 1) / 2.0
    slope = values @ place / (place @ place)
    rest: NDArray[np.float64] = values - values.mean(axis=-1, keepdims=True) - slope[..., None] * place
    return rest


def stationary_like(rng: np.random.Generator, values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Series [count, n] without trend that are otherwise like ``values`` [n]: an autoregressive block bootstrap.

    The values less a straight line are an AR(1) process, whose coefficient is corrected for its bias (Marriott and Pope
    1954); its innovations are drawn in blocks of n^(1/3), which keeps what the AR(1) leaves of dependence (sieve
    bootstrap, Buehlmann 1997, with blocks). A simple block bootstrap breaks the autocorrelation at the joints: with a
    coefficient of 0.8 it gave twice the stated false alarms.
    """
    n = len(values)
    residuals = straightened(values)
    total = float(residuals @ residuals)
    phi = float(residuals[1:] @ residuals[:-1]) / total if total > 0 else 0.0
    phi = min(max(phi + (1.0 + 4.0 * phi) / n, -0.98), 0.98)
    innovations = residuals[1:] - phi * residuals[:-1]
    warm_up = 50
    drawn = innovations[block_samples(rng, n - 1, max(round(n ** (1 / 3)), 1), (count, n + warm_up))]
    drawn = drawn - innovations.mean()
    state = np.zeros(count)
    made = np.empty((count, n + warm_up))
    for index in range(n + warm_up):
        state = phi * state + drawn[:, index]
        made[:, index] = state
    return made[:, warm_up:]
