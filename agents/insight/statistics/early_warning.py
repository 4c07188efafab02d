"""Early warnings of a critical transition: rising variance and autocorrelation, against a null of no trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.agents.insight.series import POPULATION, detrended, generator, kendall_tau, series_of, stationary_like
from astrocyte.agents.insight.statistic import State, Window, Windows, check_level
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["EarlyWarning", "rolling_indicators"]


RESULT: Final = RESULTS["early_warning"]


def rolling_indicators(residuals: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variance (n - 1) and lag-1 autocorrelation in every part of ``width`` values; [..., n] to [..., n - width + 1].

    The autocorrelation is Pearson's, of the values with those one place before. NaN where values do not vary.
    """
    pieces = np.lib.stride_tricks.sliding_window_view(residuals, width, axis=-1)
    variance: NDArray[np.float64] = pieces.var(axis=-1, ddof=1)
    first, second = pieces[..., :-1], pieces[..., 1:]
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: NDArray[np.float64] = (first * second).sum(axis=-1) / np.sqrt(
            (first * first).sum(axis=-1) * (second * second).sum(axis=-1)
        )
    return variance, correlation


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyWarning:
    """Early-warning signals (Scheffer et al. 2009, Nature 461:53; Dakos et al. 2012, PLoS ONE 7:e41010).

    The series of a window is detrended by a Gaussian kernel of ``bandwidth`` times its length. Variance and lag-1
    autocorrelation are taken in rolling parts of ``part`` times its length, and Kendall's tau says whether they rise.
    Null: ``resamples`` series without trend that are otherwise like this one (`series.stationary_like`), treated in the
    same way. p is the share of them (with the series itself) whose tau is as large.
    A warning needs both to rise: its p is that of the smaller tau against the smaller taus of the null. Values are
    taken as equally spaced in time. The random numbers are a function of run, window and field.

    Cost: O(resamples * n^2) for each field and window.
    """

    windows: Windows
    fields: tuple[str, ...] = ("total_population", "avg_energy", "avg_accuracy")
    stream: str = POPULATION
    bandwidth: float = 0.2
    part: float = 0.5
    resamples: int = 199
    min_samples: int = 40
    level: float = 0.05
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["early_warning"]
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        check_level(self.level, "early_warning")
        if not (self.bandwidth > 0 and 0 < self.part < 1 and self.min_samples * self.part >= 8):
            raise InvalidSettings(
                f"early_warning: bandwidth {self.bandwidth}, part {self.part}, min_samples {self.min_samples}; "
                "expected a bandwidth above 0, a part below 1, and 8 or more values in a part"
            )
        if self.resamples < 1 / self.level - 1:
            raise InvalidSettings(
                f"early_warning: {self.resamples} resamples cannot show p below {self.level}; take "
                f"{round(1 / self.level - 1)} or more"
            )
        object.__setattr__(self, "sources", (Source(self.stream, (), self.fields),))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each field."""
        return state, [self._signals(window, name, series_of(rows[0], name)[1]) for name in self.fields]

    def _signals(self, window: Window, name: str, values: NDArray[np.float64]) -> dict[str, Any]:
        found: dict[str, Any] = {each: None for each in RESULT.about if each not in ("indicator", "samples")}
        found |= {"indicator": name, "samples": len(values), "warning": False}
        if len(values) < self.min_samples:
            return found
        width = int(len(values) * self.part)
        residuals = detrended(values, self.bandwidth)
        if residuals.std() <= 1e-12 * max(float(np.abs(values).max()), 1e-300):
            return found
        null = stationary_like(generator(window, "early_warning", name), values, self.resamples)
        null = detrended(null, self.bandwidth)
        variance, correlation = rolling_indicators(np.concatenate([residuals[None], null]), width)
        taus = np.stack([kendall_tau(variance), kendall_tau(correlation)])
        taus = np.concatenate([taus, taus.min(axis=0, keepdims=True)])
        if np.isnan(taus[:, 0]).any():
            return found
        others = np.where(np.isnan(taus[:, 1:]), -1.0, taus[:, 1:])
        p = (1 + (others >= taus[:, :1]).sum(axis=1)) / (self.resamples + 1)
        return found | {
            "variance": float(variance[0, -1]),
            "autocorrelation": float(correlation[0, -1]),
            "variance_tau": float(taus[0, 0]),
            "variance_p": float(p[0]),
            "autocorrelation_tau": float(taus[1, 0]),
            "autocorrelation_p": float(p[1]),
            "p": float(p[2]),
            "warning": bool(p[2] <= self.level),
        }
