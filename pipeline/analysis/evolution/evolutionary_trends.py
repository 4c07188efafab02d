"""Trends of traits and performance over a run, what leads what, and what mutations did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.insight import Mutations, Trends, Windows
from astrocyte.agents.insight.distributions import holm
from astrocyte.pipeline.analysis.evolution.history import EVENTS, METRICS, History
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData, records_of, table_of

__all__ = [
    "EvolutionaryTrends",
    "MutationEffect",
    "Relation",
    "SeriesTrend",
    "evolutionary_trends",
    "interval_means",
    "mutation_effects",
    "population_trends",
    "trends_statistic",
]

_MOST_INTERVALS: Final = 120
_LEAST_INTERVALS: Final = 30
_POPULATION: Final = tuple(
    (METRICS, name) for name in ("total_population", "avg_accuracy", "genome_diversity", "avg_energy")
)


@dataclass(frozen=True, slots=True)
class SeriesTrend:
    """Trend of one series over the run; fields as in the stream ``trends`` (docs/insight.md), and two of their p."""

    series: str
    samples: int
    slope: float | None
    slope_low: float | None
    slope_high: float | None
    tau: float | None
    mann_kendall_p: float | None
    trend_p: float | None
    trend_p_is_least: bool
    """Whether no resample had such a trend: ``trend_p`` is then the least that so many of them can show."""
    holm_p: float | None
    """``trend_p`` corrected for the number of series that were asked about (Holm 1979)."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Whether ``series`` leads ``other``; fields as in the stream ``trends``."""

    series: str
    other: str
    samples: int
    lag: int | None
    """In intervals."""
    correlation: float | None
    correlation_p: float | None
    transfer_entropy: float | None
    transfer_entropy_p: float | None


@dataclass(frozen=True, slots=True)
class MutationEffect:
    """Effect of mutations over the run; fields as in the stream ``mutations``."""

    effect: str
    births: int
    mutations: int
    mean: float | None
    mean_se: float | None
    mean_p: float | None
    beneficial: float | None
    beneficial_low: float | None
    beneficial_high: float | None
    beta: float | None
    beta_se: float | None
    beta_p: float | None
    cost: float | None
    cost_se: float | None
    cost_p: float | None


@dataclass(frozen=True, slots=True)
class EvolutionaryTrends:
    """Trends, relations and mutations of a whole run."""

    every_us: int
    """Length of the intervals whose means are the series."""
    intervals: int
    level: float
    series: tuple[SeriesTrend, ...]
    relations: tuple[Relation, ...]
    """One for each ordered pair of series."""
    mutations: tuple[MutationEffect, ...]
    """Empty where the run has no births."""

    @property
    def rising(self) -> tuple[str, ...]:
        """Series with an upward trend at the level, by ``holm_p``: with their autocorrelation and number in account."""
        return tuple(each.series for each in self.series if self._has_trend(each) and (each.slope or 0.0) > 0)

    @property
    def falling(self) -> tuple[str, ...]:
        """Series with a downward trend at the level."""
        return tuple(each.series for each in self.series if self._has_trend(each) and (each.slope or 0.0) < 0)

    @property
    def leading(self) -> tuple[Relation, ...]:
        """Pairs in which information goes from ``series`` to ``other`` at the level."""
        p = ((each, each.transfer_entropy_p) for each in self.relations)
        return tuple(each for each, value in p if value is not None and value <= self.level)

    @property
    def correlated(self) -> tuple[Relation, ...]:
        """Pairs whose strongest correlation is beyond chance at the level."""
        p = ((each, each.correlation_p) for each in self.relations)
        return tuple(each for each, value in p if value is not None and value <= self.level)

    def _has_trend(self, each: SeriesTrend) -> bool:
        return each.holm_p is not None and each.holm_p <= self.level

    def table(self) -> pa.Table:
        """A row for each series."""
        return table_of(SeriesTrend, self.series)

    def relations_table(self) -> pa.Table:
        """A row for each ordered pair of series."""
        return table_of(Relation, self.relations)

    def mutations_table(self) -> pa.Table:
        """A row for each effect of mutations."""
        return table_of(MutationEffect, self.mutations)


def evolutionary_trends(history: History, *, level: float = 0.05) -> EvolutionaryTrends:
    """Trends of a whole run. Raises NotEnoughData with fewer than 30 times at which genomes and attempts are known."""
    statistic = trends_statistic(history, level=level)
    table = history.results(statistic)
    mutations = mutation_effects(history, level=level)
    return EvolutionaryTrends(
        statistic.every_us, statistic.windows.size_us // statistic.every_us, level,
        _series_of(statistic, table), records_of(Relation, table.filter(pc.is_valid(table.column("other")))), mutations,
    )  # fmt: skip


def mutation_effects(history: History, *, level: float = 0.05) -> tuple[MutationEffect, ...]:
    """Effects of the mutations of a whole run: the weights' improvement first; none where there are no births."""
    if not history.count(EVENTS):
        return ()
    statistic = Mutations(windows=history.windows(history.end_us - history.begin_us), level=level)
    return records_of(MutationEffect, history.results(statistic))


def population_trends(history: History, *, level: float = 0.05) -> tuple[SeriesTrend, ...]:
    """Trends of the whole population's figures over a run. Raises NotEnoughData with fewer than 30 snapshots."""
    statistic = trends_statistic(history, _POPULATION, level=level)
    return _series_of(statistic, history.results(statistic))


def _series_of(statistic: Trends, table: pa.Table) -> tuple[SeriesTrend, ...]:
    rows = table.filter(pc.is_null(table.column("other")))
    p = np.array([np.nan if each is None else each for each in rows.column("trend_p").to_pylist()], np.float64)
    least = 1.0 / (statistic.resamples + 1)
    corrected = pa.array(holm(p), from_pandas=True)
    rows = rows.append_column("trend_p_is_least", pa.array(p < 1.5 * least)).append_column("holm_p", corrected)
    return records_of(SeriesTrend, rows)


def trends_statistic(history: History, series: Sequence[tuple[str, str]] = (), *, level: float = 0.05) -> Trends:
    """The statistic `astrocyte.insight.Trends` whose one window is the run; of its own series if none are given.

    Raises NotEnoughData where their streams have samples at fewer than 30 times.
    """
    own = Trends(windows=Windows(2**40), every_us=1).series
    chosen = tuple(series) or own
    streams = tuple(dict.fromkeys(stream for stream, _ in chosen))
    history.require(*streams)
    fewest = min(len(history.times(stream)) for stream in streams)
    if fewest < _LEAST_INTERVALS:
        raise NotEnoughData(
            f"trends need samples of {' and '.join(streams)} at {_LEAST_INTERVALS} times or more; run {history.run!r} "
            f"has them at {fewest}"
        )
    # An interval holds a whole number of sampling times: one that is shorter would have no value.
    spacing_us = max(history.spacing_us(stream) for stream in streams)
    length_us = history.end_us - history.begin_us
    every_us = spacing_us * max(-(-length_us // (spacing_us * _MOST_INTERVALS)), 1)
    intervals = -(-length_us // every_us)  # the first begins before the run, by less than its length
    if intervals < _LEAST_INTERVALS:
        raise NotEnoughData(
            f"trends need {_LEAST_INTERVALS} intervals with samples or more; run {history.run!r} has {intervals} of "
            f"{every_us / 1e6:g} s"
        )
    size_us = intervals * every_us
    return Trends(windows=Windows(size_us, 0, history.end_us % size_us), every_us=every_us, series=chosen, level=level)


def interval_means(history: History, statistic: Trends) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Middle of each interval [n] of the run's window, and the mean of each series in it [n], NaN without values."""
    every_us, size_us = statistic.every_us, statistic.windows.size_us
    start_us, count = history.end_us - size_us, size_us // every_us
    means = {}
    for stream, name in statistic.series:
        values, place = history.column(stream, name), (history.frames[stream].timestamps() - start_us) // every_us
        known = np.isfinite(values) & (place >= 0)
        with np.errstate(invalid="ignore"):
            means[name] = np.bincount(place[known], values[known], count) / np.bincount(place[known], minlength=count)
    return start_us + every_us * np.arange(count) + every_us // 2, means
