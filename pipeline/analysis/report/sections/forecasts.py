"""Forecasts ahead of the run, and how such forecasts fared within it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from astrocyte.agents.insight import Forecast
from astrocyte.pipeline.analysis.evolution import PopulationForecast
from astrocyte.pipeline.analysis.evolution.forecasts import LEVELS, Ahead, ForecastSkill
from astrocyte.pipeline.analysis.evolution.history import METRICS
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.sections.time_axis import thinned
from astrocyte.pipeline.analysis.report.text import (
    NONE,
    as_python,
    interval,
    number,
    p_text,
    share,
    span,
    trait_name,
)
from astrocyte.pipeline.console import counted

__all__ = ["forecasts_section"]

_NAMES = {"total_population": "living cells", "avg_accuracy": "mean accuracy", "avg_energy": "mean energy"}


def forecasts_section(subject: Subject) -> Section:
    """A fan of each target, coverage of earlier intervals, and risks."""
    section = Section("forecasts", "Forecasts and their past skill")
    found = subject.run.predict_population_dynamics(horizon=subject.horizon)
    section.text.append(
        f"Each forecast is made from the {span(found.window_us)} before it, {span(found.horizon_us)} ahead; "
        "those within the run are compared with what came. A forecast fits only as well as its assumptions: constant "
        "drift and variance."
    )
    targets = list(dict.fromkeys(each.target for each in found.ahead))
    section.figures = [
        Figure(f"forecast_{target}", f"Forecast of {_NAMES.get(target, trait_name(target))}",
               f"Line: what came. Bars: 95 % intervals {span(found.horizon_us)} ahead, made within the run "
               "(orange where they missed). Fan: 50, 80 and 95 % intervals ahead of the run.",
               partial(_fan, subject, found, target))
        for target in targets
    ]  # fmt: skip
    if found.skill:
        section.figures.append(Figure(
            "coverage", "Coverage of past intervals",
            "Share of what came that lay in the 50, 80 and 95 % intervals, with its own 95 % interval; on the diagonal "
            "the stated levels are true.", partial(_coverage, found.skill),
        ))  # fmt: skip
        section.tables.append(_skill(found.skill))
    section.tables.insert(0, _ahead(found))
    if found.risks:
        section.tables.append(Table(
            "Risks, and what might be changed", ("risk", "evidence", "suggestion"),
            [(each.factor, each.evidence, each.suggestion) for each in found.risks], left=3,
        ))  # fmt: skip
    section.findings += _found(subject, found)
    statistic = Forecast(windows=subject.history.windows(found.window_us), horizons_us=(found.horizon_us,))
    section.made_by = [
        f"run.predict_population_dynamics(horizon={found.horizon_us}, time_window={found.window_us})",
        as_python(statistic),
    ]  # fmt: skip
    return section


def _found(subject: Subject, found: PopulationForecast) -> list[str]:
    sentences = []
    population = found.at("total_population")
    if population.median is None:
        sentences.append(f"No forecast of the population: {_why_none(subject, found, population)}.")
    else:
        risk = f"; the probability of extinction by then is {p_text(population.limit_probability)}"
        sentences.append(
            f"In {span(found.horizon_us)} the population will be {number(population.median)} (95 % interval "
            f"{interval(population.low_95, population.high_95)}){risk}."
        )
    for each in found.skill:
        if each.target == "total_population":
            held = round(each.held_95 * each.forecasts)
            sentences.append(
                f"Of {each.forecasts} earlier forecasts of the population {held} held what came in their 95 % "
                f"interval (share {share(each.held_95)}, 95 % interval {share(each.held_95_low)} to "
                f"{share(each.held_95_high)}); "
                + (
                    f"their median was {share(abs(each.skill))} {'nearer' if each.skill > 0 else 'further off'} than "
                    "saying the last value again."
                    if each.skill is not None
                    else "what came never differed from the last value."
                )
            )
    sentences += [f"Risk of {each.factor}: {each.evidence}." for each in found.risks]
    return sentences


def _why_none(subject: Subject, found: PopulationForecast, population: Ahead) -> str:
    """Why the last window has no forecast of the population."""
    history = subject.history
    statistic = Forecast(windows=history.windows(found.window_us), horizons_us=(found.horizon_us,))
    if population.samples < statistic.min_samples:
        return f"its last window has {counted(population.samples, 'snapshot')}, and {statistic.min_samples} are needed"
    living = history.column(METRICS, population.target)[
        history.frames[METRICS].timestamps() >= history.end_us - found.window_us
    ]
    living = living[np.isfinite(living)]
    if living.min() <= 0:
        return f"no one was alive at {counted(int((living <= 0).sum()), 'snapshot')} of the last {len(living)}"
    return f"its last {len(living)} snapshots, the last of them {number(population.value)}, do not vary"


def _ahead(found: PopulationForecast) -> Table:
    head = (
        "target",
        "ahead",
        "now",
        "median",
        "50 %",
        "80 %",
        "95 %",
        "probability of the limit",
        "expected time to it",
    )

    def row(each: Ahead) -> tuple[str, ...]:
        limit = NONE if each.limit_us is None else span(each.limit_us)
        if each.limit_low_us is not None:
            limit += (
                f" ({span(each.limit_low_us)} to {NONE if each.limit_high_us is None else span(each.limit_high_us)})"
            )
        return (
            _NAMES.get(each.target, each.target), span(each.horizon_us), number(each.value), number(each.median),
            interval(each.low_50, each.high_50), interval(each.low_80, each.high_80),
            interval(each.low_95, each.high_95), p_text(each.limit_probability), limit,
        )  # fmt: skip

    rows = [row(each) for each in found.ahead if each.horizon_us in (found.horizon_us, 2 * found.horizon_us)]
    return Table("Ahead of the run", head, rows)


def _skill(rows: Sequence[ForecastSkill]) -> Table:
    head = ("target", "forecasts", "in 50 %", "in 80 %", "in 95 %", "error", "error of no change", "skill")
    return Table("Forecasts within the run: shares of what came in the intervals (95 % interval of the share)", head, [
        (
            _NAMES.get(each.target, each.target), str(each.forecasts),
            *(
                f"{share(getattr(each, f'held_{level}'))} ({share(getattr(each, f'held_{level}_low'))} to "
                f"{share(getattr(each, f'held_{level}_high'))})"
                for level in LEVELS
            ),
            number(each.error), number(each.no_change_error), number(each.skill, 2),
        )
        for each in rows
    ])  # fmt: skip


def _fan(subject: Subject, found: PopulationForecast, target: str, axes: Any, palette: Palette) -> None:
    history = subject.history
    times_us = history.frames[METRICS].timestamps()
    order = np.argsort(times_us, kind="stable")
    values = history.column(METRICS, target)[order]
    chosen = thinned(len(order))
    axes.plot(subject.axis.place(times_us[order][chosen]), values[chosen], color=palette.ink, linewidth=1.1)
    for each in found.past:
        if each.target == target:
            held = each.low_95 <= each.came <= each.high_95
            colour = palette.blue if held else palette.orange
            at = subject.axis.place([each.for_us])
            axes.plot([at[0], at[0]], [each.low_95, each.high_95], color=colour, linewidth=1.6, alpha=0.8)
            axes.plot(at, [each.median], "_", color=colour, markersize=6)
    ahead = [each for each in found.ahead if each.target == target and each.median is not None]
    last_us = int(times_us.max())
    if ahead:
        at = subject.axis.place([last_us, *(last_us + each.horizon_us for each in ahead)])
        for level, alpha in zip(reversed(LEVELS), (0.18, 0.22, 0.28), strict=True):
            low, high = ([each.value for each in ahead[:1]] + [getattr(each, f"{side}_{level}") for each in ahead]
                         for side in ("low", "high"))  # fmt: skip
            axes.fill_between(at, low, high, color=palette.purple, alpha=alpha, linewidth=0)
        axes.plot(at, [ahead[0].value, *(each.median for each in ahead)], color=palette.purple)
    axes.set_ylabel(_NAMES.get(target, trait_name(target)))
    _limit(axes, values, [value for each in ahead for value in (each.low_95, each.high_95) if value is not None])
    until_us = last_us + max((each.horizon_us for each in ahead), default=0)
    subject.axis.label(axes, palette, until_us=max(until_us, subject.axis.end_us))


def _limit(axes: Any, values: Any, ahead: list[float]) -> None:
    """Keep what came visible where an interval is many times as wide."""
    known = values[np.isfinite(values)]
    if not len(known):
        return
    low, high = float(known.min()), float(known.max())
    room = max(high - low, abs(high) * 0.05, 1e-9)
    axes.set_ylim(max(min([low, *ahead]), low - 0.6 * room) - 0.05 * room,
                  min(max([high, *ahead]), high + 0.6 * room) + 0.05 * room)  # fmt: skip


def _coverage(rows: Sequence[ForecastSkill], axes: Any, palette: Palette) -> None:
    axes.plot([0, 100], [0, 100], color=palette.muted, linewidth=0.9)
    for number_, (each, colour) in enumerate(zip(rows, palette.series, strict=False)):
        at = np.array(LEVELS) + 1.6 * (number_ - (len(rows) - 1) / 2)
        held = 100 * np.array([getattr(each, f"held_{level}") for level in LEVELS])
        low = 100 * np.array([getattr(each, f"held_{level}_low") for level in LEVELS])
        high = 100 * np.array([getattr(each, f"held_{level}_high") for level in LEVELS])
        bars = np.clip([held - low, high - held], 0, None)
        axes.errorbar(at, held, bars, fmt="o", markersize=4, color=colour, label=_NAMES.get(each.target, each.target))
    axes.set_xlim(40, 104)
    axes.set_ylim(0, 104)
    axes.set_xticks(LEVELS)
    axes.set_xlabel("stated, %")
    axes.set_ylabel("held, %")
    axes.legend(loc="lower right")
    axes.grid(axis="y", linewidth=0.6)
