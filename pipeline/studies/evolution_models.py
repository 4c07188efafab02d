"""Models of how a trait's mean changes (Hunt 2006, Paleobiology 32:578; Hunt 2008, 34:360), compared by AICc.

The likelihood is that of each value given the one before it, so that all models describe the same n - 1 values::

    directional     x[i+1] ~ normal(x[i] + mu, s2)          general random walk
    random_walk     x[i+1] ~ normal(x[i], s2)               unbiased random walk
    stasis          x[i+1] ~ normal(theta, omega)           around one value
    punctuated      stasis around theta1, from a shift on around theta2, with one omega

Values are means of whole populations at equal distances of time: they have no sampling error, so the estimates of
greatest likelihood have closed forms (Hunt's fits add a known error to each variance). Each part of a punctuated series
has `LEAST_PART` values or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.errors import InvalidSettings

__all__ = ["LEAST_PART", "MODELS", "SHIFT_PARAMETERS", "Fits", "fit_models", "simulate_model"]

MODELS: Final = ("directional", "random_walk", "stasis", "punctuated")
LEAST_PART: Final = 6
SHIFT_PARAMETERS: Final = 3
"""How many parameters the place of the shift counts as. A place that is searched for fits more noise than a smooth
parameter: AIC's correction for it is 3 (Ninomiya 2015, Annals of the Institute of Statistical Mathematics 67:943). With
1, as Hunt counts it, 23 % of series of 40 values in stasis are called punctuated."""
_PARAMETERS: Final = (2, 1, 2, 3 + SHIFT_PARAMETERS)
_TINY: Final = 1e-30


@dataclass(frozen=True, slots=True)
class Fits:
    """All models fitted to series [..., n]; arrays [..., models] in the order of `MODELS`."""

    log_likelihood: NDArray[np.float64]
    aicc: NDArray[np.float64]
    weight: NDArray[np.float64]
    """Akaike weights: how much each model is supported, 1 in all."""
    shift: NDArray[np.int64]
    """Place of the first value after the best shift of the punctuated model; [...]."""

    @property
    def best(self) -> NDArray[np.int64]:
        """Index in `MODELS` of the model of least AICc."""
        chosen: NDArray[np.int64] = self.aicc.argmin(axis=-1)
        return chosen


def fit_models(series: NDArray[np.float64]) -> Fits:
    """All models fitted to series [..., n] of values at equal distances. Raises InvalidSettings for fewer than 14."""
    x = np.asarray(series, np.float64)
    n = x.shape[-1] - 1
    if n < 2 * LEAST_PART + 1:
        raise InvalidSettings(
            f"series of {x.shape[-1]} values; expected {2 * LEAST_PART + 2} or more: observe the worlds more often"
        )
    steps, values = np.diff(x), x[..., 1:]
    drift = steps - steps.mean(axis=-1, keepdims=True)
    still = values - values.mean(axis=-1, keepdims=True)
    variances = [(each**2).mean(axis=-1) for each in (drift, steps, still)]
    # Sums before each place give the variance of both parts for all places of the shift at once.
    sums, squares = still.cumsum(axis=-1), (still**2).cumsum(axis=-1)
    place = np.arange(LEAST_PART, n - LEAST_PART + 1)  # values in the first part
    first, total = sums[..., place - 1], sums[..., -1:]
    around = squares[..., -1:] - first**2 / place - (total - first) ** 2 / (n - place)
    best = around.argmin(axis=-1)
    variances.append(np.take_along_axis(around, best[..., None], axis=-1)[..., 0] / n)
    variance = np.maximum(np.stack(variances, axis=-1), _TINY)
    log_likelihood = -0.5 * n * (np.log(2 * np.pi * variance) + 1.0)
    k = np.array(_PARAMETERS)
    aicc = -2.0 * log_likelihood + 2.0 * k + 2.0 * k * (k + 1.0) / (n - k - 1.0)
    weight = np.exp(-0.5 * (aicc - aicc.min(axis=-1, keepdims=True)))
    return Fits(log_likelihood, aicc, weight / weight.sum(axis=-1, keepdims=True), place[best] + 1)


def simulate_model(
    rng: np.random.Generator, model: str, count: int, n: int, *, effect: float = 1.0
) -> NDArray[np.float64]:
    """Series [count, n] of a model with standard deviations of 1.

    ``effect`` is what tells it from the others: the mean step of the directional model, and the distance between both
    levels of the punctuated one, whose shift is drawn between a quarter and three quarters of the series.
    """
    noise = rng.standard_normal((count, n))
    if model == "stasis":
        return noise
    if model == "punctuated":
        shift = rng.integers(n // 4, 3 * n // 4 + 1, (count, 1))
        return noise + effect * (np.arange(n) >= shift)
    drift = effect if model == "directional" else 0.0
    return np.cumsum(noise + drift, axis=1)
