"""Forecasts with intervals, the probability of extinction (Dennis et al. 1991), and the time to depletion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import normal_quantile, t_quantile
from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.agents.insight.series import POPULATION, series_of
from astrocyte.agents.insight.statistic import State, Window, Windows
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["CELL_TARGETS", "Diffusion", "Forecast", "Target", "first_passage", "fit_diffusion"]

_SECOND_US: Final = 1_000_000
_LEVELS: Final = (50, 80, 95)
_LONGEST_S: Final = 9e12
"""Times beyond it, in microseconds, are no 64-bit integers."""
_CHANCE: Final = 6.635  # 99 % quantile of chi-squared with one degree of freedom

RESULT: Final = RESULTS["forecast"]


@dataclass(frozen=True, slots=True)
class Target:
    """A field to forecast, on the scale of its logarithm, its logit, or its own; ``limit`` is an end it may reach."""

    field: str
    scale: Literal["log", "logit", "linear"] = "log"
    limit: float | None = None

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values on the scale; NaN or infinite outside of it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scale == "log":
                return np.log(values)
            return np.log(values / (1.0 - values)) if self.scale == "logit" else values

    def back(self, value: float) -> float:
        """A value from the scale."""
        if self.scale == "log":
            return math.exp(min(value, 700.0))
        return 1.0 / (1.0 + math.exp(min(-value, 700.0))) if self.scale == "logit" else value


CELL_TARGETS: Final = (
    Target("total_population", "log", 1.0),
    Target("avg_accuracy", "logit"),
    Target("avg_energy", "linear", 0.0),
)


@dataclass(frozen=True, slots=True)
class Diffusion:
    """A random walk with drift: ``drift`` a second, ``variance`` a second, from ``steps`` over ``span_s`` seconds.

    ``theta`` is that of a moving average of the changes, 0 without one; ``level`` is where the walk stands, without
    what the moving average takes back of the last value; ``noise`` is the variance that does not grow with the horizon
    (negative where a change is followed by more of it), ``step_variance`` that of one step.
    """

    drift: float
    variance: float
    steps: int
    span_s: float
    level: float
    theta: float = 0.0
    noise: float = 0.0
    step_variance: float = 0.0

    @property
    def df(self) -> int:
        """Degrees of freedom: steps less the parameters of the mean."""
        return self.steps - (1 if self.theta == 0.0 else 2)

    @property
    def drift_se(self) -> float:
        """Standard error of the drift."""
        return math.sqrt(self.variance / self.span_s)

    def spread(self, horizon_s: float) -> float:
        """Standard error of a prediction, with that of the drift."""
        grown = self.variance * horizon_s
        own = max(grown + self.noise, min(self.step_variance, grown)) if self.theta else grown
        return math.sqrt(own + self.variance * horizon_s * horizon_s / self.span_s)

    def reach_probability(self, distance: float, horizon_s: float) -> float:
        """Probability of a fall by ``distance`` within the horizon, over the uncertainty of drift and variance.

        The mean of `first_passage` over a variance of ``variance * (q - 1) / chi2``, with q - 1 degrees of freedom, and
        a drift that is normal around its estimate with that variance divided by the span: as in the intervals.
        """
        if distance <= 0.0:
            return 1.0
        df = self.df
        shares = [(number + 0.5) / 12 for number in range(12)]
        total = 0.0
        for share in shares:
            # Quantiles of chi-squared by Wilson and Hilferty (1931).
            cube = 1.0 - 2.0 / (9.0 * df) + normal_quantile(share) * math.sqrt(2.0 / (9.0 * df))
            variance = self.variance / max(cube, 1e-3) ** 3
            for other in shares:
                drift = self.drift + normal_quantile(other) * math.sqrt(variance / self.span_s)
                total += first_passage(distance, drift, variance, horizon_s)
        return total / len(shares) ** 2


def fit_diffusion(t_s: NDArray[np.float64], x: NDArray[np.float64]) -> Diffusion | None:
    """Drift and variance a second of a series at times that need not be equally spaced (Dennis et al. 1991).

    ``drift = (x_q - x_0) / (t_q - t_0)`` and ``variance = sum((dx - drift dt)^2 / dt) / (q - 1)`` over the q steps.
    None with fewer than two steps, or without variation. Where the times are equally spaced and the changes of
    neighbouring steps are related, they are a moving average (`_with_moving_average`).
    """
    dt, dx = np.diff(t_s), np.diff(x)
    if len(dt) < 2:
        return None
    span = float(t_s[-1] - t_s[0])
    drift = float((x[-1] - x[0]) / span)
    variance = float((((dx - drift * dt) ** 2) / dt).sum() / (len(dt) - 1))
    if variance <= 0:
        return None
    plain = Diffusion(drift, variance, len(dt), span, float(x[-1]))
    even = np.ptp(dt) <= 0.01 * dt.mean() and len(dt) >= 8
    return (_with_moving_average(dx, float(dt.mean()), float(x[-1])) if even else None) or plain


def _with_moving_average(dx: NDArray[np.float64], dt: float, last: float) -> Diffusion | None:
    """``dx = mu + e + theta e'``, with e' the e of the step before: ARIMA(0, 1, 1) with drift (Box and Jenkins 1970).

    theta is below 0 where values have noise of measurement and above 0 where changes go on in one direction. It is that
    of the least sum of squares (e' is 0 at the start) on a grid from -0.95 to 0.95; mu is linear for each. None unless
    twice the logarithm of the likelihood ratio to theta = 0 exceeds what chance exceeds in 1 %: taken where it is not
    there, a moving average makes intervals too narrow.
    """
    theta = np.round(np.arange(-0.95, 0.951, 0.05), 2)
    one, unit = np.zeros((len(dx), len(theta))), np.zeros((len(dx), len(theta)))
    one[0], unit[0] = dx[0], 1.0
    for step in range(1, len(dx)):
        one[step] = dx[step] - theta * one[step - 1]
        unit[step] = 1.0 - theta * unit[step - 1]
    weight = (unit * unit).sum(axis=0)
    mu = (one * unit).sum(axis=0) / weight
    errors = one - mu * unit
    squares = (errors * errors).sum(axis=0)
    best, zero = int(squares.argmin()), len(theta) // 2
    if squares[best] <= 0 or (len(dx) - 3) * math.log(squares[zero] / squares[best]) < _CHANCE:
        return None
    q, own = len(dx), float(theta[best])
    sigma2 = float(squares[best] / (q - 2))
    lasting = sigma2 * (1.0 + own) ** 2
    return Diffusion(
        drift=float(mu[best]) / dt,
        variance=lasting / dt,
        steps=q,
        span_s=float((1.0 + own) ** 2 * weight[best]) * dt,
        level=last + own * float(errors[-1, best]),
        theta=own,
        noise=sigma2 - lasting,
        step_variance=sigma2,
    )


def first_passage(distance: float, drift: float, variance: float, horizon: float) -> float:
    """Probability that a Brownian motion with drift falls by ``distance`` (above 0) within the horizon.

    The distribution function of the inverse Gaussian first passage (Dennis, Munholland and Scott 1991, Ecol. Monogr.
    61:115; Lande and Orzack 1988).
    """
    sd = math.sqrt(variance * horizon)
    direct = _normal_cdf((-distance - drift * horizon) / sd)
    reflected = _normal_cdf((-distance + drift * horizon) / sd)
    # exp(...) overflows only where the other factor vanishes: their product is at most 1.
    exponent = -2.0 * drift * distance / variance + (math.log(reflected) if reflected > 0 else -math.inf)
    return min(direct + math.exp(min(exponent, 0.0)), 1.0)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Forecasts of population, accuracy and energy, by run and window, ``horizons_us`` ahead of the last sample.

    Model: the value on its scale is a random walk with drift, fitted to the samples of the window; where neighbouring
    changes are related, their moving average is part of it. Intervals are ``level + drift h +- t * spread(h)`` with
    Student's t; without a moving average these are exact for that model: the spread is ``sqrt(variance (h + h^2 / T))``
    with q - 1 degrees of freedom. Values that return to a level have narrower futures than this states. O(samples) for
    each target and window.
    """

    windows: Windows
    horizons_us: tuple[int, ...]
    targets: tuple[Target, ...] = CELL_TARGETS
    stream: str = POPULATION
    min_samples: int = 10
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["forecast"]
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        if not self.horizons_us or min(self.horizons_us) <= 0 or len(set(self.horizons_us)) < len(self.horizons_us):
            raise InvalidSettings(f"forecast: horizons_us {self.horizons_us}; expected times above 0, each once")
        if self.min_samples < 4:
            raise InvalidSettings(f"forecast: min_samples {self.min_samples}; expected 4 or more")
        for target in self.targets:
            if target.limit is not None and not math.isfinite(float(target.forward(np.array(target.limit)))):
                raise InvalidSettings(
                    f"forecast: limit {target.limit} of {target.field!r} is no finite value on the scale "
                    f"{target.scale!r}; give one above 0, or scale='linear'"
                )
        names = tuple(dict.fromkeys(target.field for target in self.targets))
        object.__setattr__(self, "sources", (Source(self.stream, (), names),))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each target and horizon."""
        results = []
        for target in self.targets:
            t, values = series_of(rows[0], target.field)
            x = target.forward(values)
            enough = len(values) >= self.min_samples and bool(np.isfinite(x).all())
            fitted = fit_diffusion(t / _SECOND_US, x) if enough else None
            shared = {"target": target.field, "samples": len(values), "value": float(values[-1]) if len(t) else None}
            for horizon_us in self.horizons_us:
                found: dict[str, Any] = dict.fromkeys(RESULT.about) | shared | {"horizon_us": horizon_us}
                if fitted is not None:
                    found |= _ahead(target, fitted, horizon_us / _SECOND_US)
                results.append(found)
        return state, results


def _ahead(target: Target, fitted: Diffusion, horizon_s: float) -> dict[str, Any]:
    middle, spread = fitted.level + fitted.drift * horizon_s, fitted.spread(horizon_s)
    found: dict[str, Any] = {
        "median": target.back(middle),
        "drift": fitted.drift,
        "drift_se": fitted.drift_se,
        "volatility": math.sqrt(fitted.variance),
        "theta": fitted.theta,
    }
    for level in _LEVELS:
        half = t_quantile(0.5 + level / 200.0, fitted.df) * spread
        found |= {f"low_{level}": target.back(middle - half), f"high_{level}": target.back(middle + half)}
    if target.limit is None:
        return found
    distance = fitted.level - float(target.forward(np.array(target.limit)))
    found["limit_probability"] = fitted.reach_probability(distance, horizon_s)
    if fitted.drift < 0 and distance > 0 and _after_us(distance, fitted.drift) is not None:
        half = t_quantile(0.975, fitted.df) * fitted.drift_se
        slow, fast = fitted.drift + half, fitted.drift - half
        found["limit_us"] = _after_us(distance, fitted.drift)
        found["limit_low_us"] = _after_us(distance, fast)
        found["limit_high_us"] = _after_us(distance, slow) if slow < 0 else None
    return found


def _after_us(distance: float, drift: float) -> int | None:
    """Time in which a fall of ``drift`` (below 0) a second covers the distance; None for one that no time expresses."""
    seconds = -distance / drift
    return round(seconds * _SECOND_US) if seconds < _LONGEST_S else None
