"""Forecasts of population, accuracy and energy, how earlier forecasts fared, and what threatens the population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.insight import EarlyWarning, Forecast, Windows, wilson_interval
from astrocyte.pipeline.analysis.evolution.history import METRICS, History
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData, records_of, table_of

__all__ = ["Ahead", "ForecastSkill", "PastForecast", "PopulationForecast", "Risk", "population_forecast"]

LEVELS: Final = (50, 80, 95)
_STEPS: Final = 10
"""Horizons of the forecast ahead of the run, up to twice the horizon asked for."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A value ahead of the run, with intervals; fields as in the stream ``forecast`` (docs/insight.md)."""

    target: str
    horizon_us: int
    samples: int
    value: float | None
    median: float | None
    low_50: float | None
    high_50: float | None
    low_80: float | None
    high_80: float | None
    low_95: float | None
    high_95: float | None
    drift: float | None
    limit_probability: float | None
    limit_us: int | None
    limit_low_us: int | None
    limit_high_us: int | None


@dataclass(frozen=True, slots=True)
class PastForecast:
    """A forecast that was made within the run, and the value that came."""

    target: str
    made_us: int
    """Time of its last sample."""
    for_us: int
    value: float
    """The last sample: what a forecast of no change would say."""
    median: float
    low_50: float
    high_50: float
    low_80: float
    high_80: float
    low_95: float
    high_95: float
    came: float


@dataclass(frozen=True, slots=True)
class ForecastSkill:
    """How the forecasts of one target fared: shares of what came that lay in their intervals, with 95 % intervals."""

    target: str
    forecasts: int
    held_50: float
    held_50_low: float
    held_50_high: float
    held_80: float
    held_80_low: float
    held_80_high: float
    held_95: float
    held_95_low: float
    held_95_high: float
    error: float
    """Mean absolute difference between median and what came, in the target's unit."""
    no_change_error: float
    """The same of a forecast that says the last value again."""
    skill: float | None
    """1 - error / no_change_error: above 0 is better than saying the last value again."""


@dataclass(frozen=True, slots=True)
class Risk:
    """One finding that speaks against the population's persistence, with its evidence, and what might be changed."""

    factor: str
    evidence: str
    suggestion: str


@dataclass(frozen=True, slots=True)
class PopulationForecast:
    """What comes after the run, as its last window tells, and how such forecasts fared before."""

    window_us: int
    """Event time of the samples from which each forecast is made."""
    horizon_us: int
    ahead: tuple[Ahead, ...]
    """By target and horizon, up to twice ``horizon_us``."""
    past: tuple[PastForecast, ...]
    """Forecasts by ``horizon_us``, one every ``horizon_us``."""
    skill: tuple[ForecastSkill, ...]
    risks: tuple[Risk, ...]

    def at(self, target: str, horizon_us: int | None = None) -> Ahead:
        """The forecast of a target at a horizon, by default ``horizon_us``. Raises KeyError."""
        wanted = self.horizon_us if horizon_us is None else horizon_us
        return {(each.target, each.horizon_us): each for each in self.ahead}[target, wanted]

    @property
    def extinction_probability(self) -> float | None:
        """Probability that one individual or none is left within the horizon; None without a forecast."""
        return self.at("total_population").limit_probability

    def table(self) -> pa.Table:
        """A row for each target and horizon."""
        return table_of(Ahead, self.ahead)

    def past_table(self) -> pa.Table:
        """A row for each forecast within the run."""
        return table_of(PastForecast, self.past)

    def skill_table(self) -> pa.Table:
        """A row for each target."""
        return table_of(ForecastSkill, self.skill)

    def risks_table(self) -> pa.Table:
        """A row for each risk."""
        return table_of(Risk, self.risks)


def population_forecast(
    history: History, *, horizon: str | int | None = None, time_window: str | int | None = None
) -> PopulationForecast:
    """Forecasts from windows of ``time_window`` (default: a tenth of the run) by ``horizon`` (default: half of that).

    Both become whole numbers of sampling steps. The forecasts within the run are made ``horizon`` apart, so that what
    comes in one is not what comes in the next. Raises NotEnoughData and InvalidSettings.
    """
    history.require(METRICS)
    spacing_us = history.spacing_us(METRICS)
    length_us = history.end_us - history.begin_us
    window_us = history.window_us(max(length_us // 10, 1) if time_window is None else time_window)
    window_us = max(round(window_us / spacing_us), 1) * spacing_us
    horizon_us = max(window_us // 2, 1) if horizon is None else history.window_us(horizon)
    horizon_us = max(round(horizon_us / spacing_us), 1) * spacing_us
    least = Forecast(windows=Windows(1), horizons_us=(1,)).min_samples
    if window_us < least * spacing_us:
        window_us = least * spacing_us
        horizon_us = min(horizon_us, window_us) if horizon is None else horizon_us
    if len(history.times(METRICS)) < least:
        raise NotEnoughData(
            f"a forecast needs {least} rows of {METRICS} or more; run {history.run!r} has {len(history.times(METRICS))}"
        )
    step_us = min(horizon_us, window_us)
    horizons = tuple(sorted({max(horizon_us * k * 2 // _STEPS, 1) for k in range(1, _STEPS + 1)} | {horizon_us}))
    windows = Windows(window_us, step_us, history.end_us % step_us)
    found = history.results(Forecast(windows=windows, horizons_us=horizons))
    last_end = found.column("window_end").to_numpy().max() if found.num_rows else 0
    ahead = found.filter(pa.array(found.column("window_end").to_numpy() == last_end))
    past = _past(history, found.to_pylist(), horizon_us)
    made = records_of(Ahead, ahead)
    return PopulationForecast(window_us, horizon_us, made, past, _skill(past), _risks(history, made, horizon_us))


def _past(history: History, rows: list[dict[str, Any]], horizon_us: int) -> tuple[PastForecast, ...]:
    times = history.frames[METRICS].timestamps()
    order = np.argsort(times, kind="stable")
    times = times[order]
    series = {name: history.column(METRICS, name)[order] for name in {row["target"] for row in rows}}
    near_us = history.spacing_us(METRICS) // 2
    found = []
    for row in rows:
        made = int(np.searchsorted(times, row["window_end"])) - 1
        if row["horizon_us"] != horizon_us or row["median"] is None:
            continue
        due_us = int(times[made]) + horizon_us
        came = int(np.searchsorted(times, due_us - near_us))
        if came >= len(times) or times[came] > due_us + near_us or not np.isfinite(series[row["target"]][came]):
            continue
        intervals = {f"{side}_{level}": row[f"{side}_{level}"] for level in LEVELS for side in ("low", "high")}
        value, median = row["value"], row["median"]
        reached = float(series[row["target"]][came])
        dated = {"made_us": int(times[made]), "for_us": int(times[came])}
        found.append(PastForecast(target=row["target"], **dated, value=value, median=median, **intervals, came=reached))
    return tuple(sorted(found, key=lambda each: (each.target, each.made_us)))


def _skill(past: Sequence[PastForecast]) -> tuple[ForecastSkill, ...]:
    found = []
    for target in dict.fromkeys(each.target for each in past):
        own = [each for each in past if each.target == target]
        shares: dict[str, float] = {}
        for level in LEVELS:
            held = sum(getattr(each, f"low_{level}") <= each.came <= getattr(each, f"high_{level}") for each in own)
            low, high = wilson_interval(held, len(own), 0.05)
            shares |= {f"held_{level}": held / len(own), f"held_{level}_low": low, f"held_{level}_high": high}
        error = float(np.mean([abs(each.median - each.came) for each in own]))
        no_change = float(np.mean([abs(each.value - each.came) for each in own]))
        skill = 1.0 - error / no_change if no_change > 0 else None
        found.append(
            ForecastSkill(
                target=target, forecasts=len(own), error=error, no_change_error=no_change, skill=skill, **shares
            )
        )
    return tuple(found)


def _risks(history: History, ahead: Sequence[Ahead], horizon_us: int) -> tuple[Risk, ...]:
    """What the forecasts, the early warnings and the energy's balance say against the population."""
    found = []
    seconds = horizon_us / 1e6
    now = {each.target: each for each in ahead if each.horizon_us == horizon_us}
    population, energy = now.get("total_population"), now.get("avg_energy")
    if population is not None and (population.limit_probability or 0.0) > 0.05:
        found.append(Risk(
            "extinction", f"probability {population.limit_probability:.2f} within {seconds:g} s",
            "more supply or reward, less difficulty or hazard",
        ))  # fmt: skip
    value, high = (None, None) if population is None else (population.value, population.high_95)
    if population is not None and value is not None and high is not None and high < value:
        found.append(Risk(
            "decline",
            f"95 % interval of the population in {seconds:g} s, {population.low_95:,.0f} to {high:,.0f}, is below the "
            f"{value:,.0f} of now",
            "more supply or reward, less difficulty or hazard",
        ))  # fmt: skip
    if energy is not None and (energy.limit_probability or 0.0) > 0.05:
        found.append(Risk(
            "energy", f"mean energy reaches 0 within {seconds:g} s with probability {energy.limit_probability:.2f}",
            "more supply or reward, or lower costs of hardware and growth",
        ))  # fmt: skip
    size_us = history.window_us(history.end_us - history.begin_us)
    statistic = EarlyWarning(windows=history.windows(size_us))
    warned = history.results(statistic).to_pylist()
    least = 1.0 / (statistic.resamples + 1)
    found += [
        Risk(
            "approaching transition",
            f"variance and autocorrelation of {row['indicator']} rise together over the run (p "
            f"{'at most ' if row['p'] < 1.5 * least else ''}{row['p']:.3f})",
            "take the last change of the settings back, and watch whether the indicators fall again",
        )
        for row in warned
        if row["warning"]
    ]
    return tuple(found)
