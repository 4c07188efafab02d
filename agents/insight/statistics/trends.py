"""Trends of series and what moves with what: slopes, cross-correlation at lags, transfer entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import benjamini_hochberg, normal_p, normal_quantile
from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.agents.insight.series import generator, kendall_tau, stationary_like, straightened
from astrocyte.agents.insight.statistic import State, Window, Windows, check_level
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["CELL_SERIES", "Trends", "cross_correlations", "mann_kendall", "theil_sen", "transfer_entropy"]

_SECOND_US: Final = 1_000_000
CELL_SERIES: Final = (
    ("genome_data", "metabolism"),
    ("genome_data", "growth_rate"),
    ("genome_data", "tpu_cores"),
    ("genome_data", "tpu_efficiency"),
    ("problem_solving", "accuracy"),
)

RESULT: Final = RESULTS["trends"]


def theil_sen(t: NDArray[np.float64], x: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    """Slope of a series at ascending times, and its interval at confidence ``1 - level`` (Theil 1950, Sen 1968).

    The median of the slopes of all pairs; the ends are those of ranks ``(pairs -+ z * sd(S)) / 2`` with the variance of
    Kendall's S, corrected for ties. Holds for independent values. O(n^2).
    """
    later, earlier = np.tril_indices(len(x), -1)
    slopes = np.sort((x[later] - x[earlier]) / (t[later] - t[earlier]))
    half = normal_quantile(1.0 - level / 2.0) * sqrt(_variance_of_s(x))
    low = min(max(round((len(slopes) - half) / 2.0) - 1, 0), len(slopes) - 1)
    high = min(round((len(slopes) + half) / 2.0), len(slopes) - 1)
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def mann_kendall(x: NDArray[np.float64]) -> float:
    """Two-sided p of no trend in independent values in order of time (Mann 1945), with ties and without continuity."""
    later, earlier = np.tril_indices(len(x), -1)
    s = float(np.sign(x[later] - x[earlier]).sum())
    variance = _variance_of_s(x)
    return normal_p(s / sqrt(variance)) if variance > 0 else 1.0


def _variance_of_s(x: NDArray[np.float64]) -> float:
    n = len(x)
    ties = np.unique(x, return_counts=True)[1].astype(np.float64)
    return (n * (n - 1.0) * (2 * n + 5.0) - float((ties * (ties - 1.0) * (2 * ties + 5.0)).sum())) / 18.0


def cross_correlations(x: NDArray[np.float64], y: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Correlation of x [..., n] with y [n] that is 0 to ``most`` places later; shape [..., most + 1].

    The usual estimate: with the means and standard deviations of the whole series, divided by n (Box and Jenkins).
    """
    n = x.shape[-1]
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean()
    scale = np.sqrt((x * x).sum(axis=-1) * (y @ y))
    found = np.stack([x[..., : n - lag] @ y[lag:] for lag in range(most + 1)], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations: NDArray[np.float64] = found / scale[..., None]
    return correlations


def transfer_entropy(x: NDArray[np.float64], y: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Transfer entropy from each x [..., n] to y [n] in nats, with one place of history (Schreiber 2000, PRL 85:461).

    ``sum p(y1, y0, x0) ln(p(y1 | y0, x0) / p(y1 | y0))`` over classes of equal frequency. This plug-in estimate is
    above 0 also without relation; compare it with surrogates.
    """
    shape = x.shape[:-1]
    sources = _ranked(x.reshape(-1, x.shape[-1]), classes)[:, :-1]
    target = _ranked(y[None], classes)[0]
    code = (target[1:] * classes + target[:-1]) * classes + sources
    count = len(sources)
    joint = np.zeros((count, classes**3))
    np.add.at(joint, (np.arange(count)[:, None], code), 1.0)
    joint = joint.reshape(count, classes, classes, classes) / max(len(y) - 1, 1)  # [., y1, y0, x0]
    ratio = joint * joint.sum(axis=(1, 3), keepdims=True)
    below = joint.sum(axis=1, keepdims=True) * joint.sum(axis=3, keepdims=True)
    terms = joint * np.log(np.divide(ratio, below, out=np.ones_like(joint), where=joint > 0))
    total: NDArray[np.float64] = terms.sum(axis=(1, 2, 3)).reshape(shape)
    return total


def _ranked(values: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    """Class of each value of each row, by its rank."""
    rank = np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1, kind="stable")
    ranked: NDArray[np.int64] = rank * classes // values.shape[1]
    return ranked


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """Trends and directed relations of series, by run and window.

    The value of a series in an interval of ``every_us`` is the mean of the field in it. Slopes and tau are those of the
    series; correlations and transfer entropies those of what a straight line leaves, in intervals in which both series
    have values. Null: the leading series is replaced by ``resamples`` independent ones with its autocorrelation
    (`series.stationary_like`). The p of all pairs are corrected together (Benjamini and Hochberg).

    Cost: O(rows) to take the means, then O(n^2) for each series and O(resamples * n) for each pair and lag.
    """

    windows: Windows
    every_us: int
    series: tuple[tuple[str, str], ...] = CELL_SERIES
    """Stream and field of each; the fields' names differ."""
    most_lag: int = 5
    classes: int = 3
    resamples: int = 199
    min_samples: int = 30
    level: float = 0.05
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["trends"]
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        check_level(self.level, "trends")
        names = [name for _, name in self.series]
        if not names or len(set(names)) < len(names):
            raise InvalidSettings(f"trends: series {names}; expected one or more fields with names that differ")
        if self.every_us <= 0 or self.windows.size_us < self.every_us * self.min_samples:
            raise InvalidSettings(
                f"trends: every_us {self.every_us}; expected more than 0 and at least {self.min_samples} intervals in "
                f"a window of {self.windows.size_us} us"
            )
        if self.min_samples < 3 * (self.most_lag + 1) or self.classes < 2 or self.resamples < 19:
            raise InvalidSettings(
                f"trends: min_samples {self.min_samples}, most_lag {self.most_lag}, classes {self.classes}, resamples "
                f"{self.resamples}; expected three samples for each lag, 2 classes and 19 resamples or more"
            )
        streams = dict.fromkeys(stream for stream, _ in self.series)
        fields = {stream: tuple(name for of, name in self.series if of == stream) for stream in streams}
        object.__setattr__(self, "sources", tuple(Source(stream, (), names) for stream, names in fields.items()))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each series, then one for each ordered pair."""
        parts = {source.stream: part for source, part in zip(self.sources, rows, strict=True)}
        means = {name: self._means(window, parts[stream], name) for stream, name in self.series}
        names = list(means)
        results = [self._trend(window, name, means[name]) for name in names]
        pairs = [self._pair(window, (one, two), means[one], means[two]) for one in names for two in names if one != two]
        for p in ("correlation_p", "transfer_entropy_p"):
            adjusted = benjamini_hochberg([np.nan if each[p] is None else each[p] for each in pairs])
            for each, value in zip(pairs, adjusted.tolist(), strict=True):
                each[p] = None if np.isnan(value) else value
        return state, results + pairs

    def _means(self, window: Window, rows: Rows, name: str) -> NDArray[np.float64]:
        """Mean of a field in each interval of the window; NaN where it has no value."""
        count = -(-self.windows.size_us // self.every_us)
        known = np.isfinite(rows[name])
        place = (rows.t[known] - window.start_us) // self.every_us
        total = np.bincount(place, rows[name][known], count)
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = total / np.bincount(place, minlength=count)
        return means

    def _trend(self, window: Window, name: str, means: NDArray[np.float64]) -> dict[str, Any]:
        place = np.flatnonzero(np.isfinite(means))
        x = means[place]
        found: dict[str, Any] = dict.fromkeys(RESULT.about) | {"series": name, "samples": len(x)}
        if len(x) < self.min_samples or np.ptp(x) == 0:
            return found
        slope, low, high = theil_sen(place * self.every_us / _SECOND_US, x, self.level)
        tau = float(kendall_tau(x))
        null = np.abs(kendall_tau(stationary_like(generator(window, "trend", name), x, self.resamples)))
        return found | {
            "slope": slope,
            "slope_low": low,
            "slope_high": high,
            "tau": tau,
            "mann_kendall_p": mann_kendall(x),
            "trend_p": self._p(abs(tau), null),
        }

    def _pair(
        self, window: Window, names: tuple[str, str], one: NDArray[np.float64], two: NDArray[np.float64]
    ) -> dict[str, Any]:
        both = np.isfinite(one) & np.isfinite(two)
        found: dict[str, Any] = dict.fromkeys(RESULT.about) | {"series": names[0], "other": names[1]}
        found["samples"] = int(both.sum())
        if found["samples"] < self.min_samples or np.ptp(one[both]) == 0 or np.ptp(two[both]) == 0:
            return found
        x, y = straightened(one[both]), straightened(two[both])
        null = straightened(stationary_like(generator(window, "pair", *names), one[both], self.resamples))
        correlations = cross_correlations(x, y, self.most_lag)
        lag = int(np.abs(correlations).argmax())
        most = np.abs(cross_correlations(null, y, self.most_lag)).max(axis=1)
        entropy = float(transfer_entropy(x, y, self.classes))
        entropies = transfer_entropy(null, y, self.classes)
        return found | {
            "lag": lag,
            "correlation": float(correlations[lag]),
            "correlation_p": self._p(abs(float(correlations[lag])), most),
            "transfer_entropy": entropy - float(entropies.mean()),
            "transfer_entropy_p": self._p(entropy, entropies),
        }

    def _p(self, value: float, null: NDArray[np.float64]) -> float:
        return float((1 + (null >= value).sum()) / (len(null) + 1))
