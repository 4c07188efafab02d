"""Trends of traits and accuracy, and what leads what: correlations at lags and transfer entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from astrocyte.pipeline.analysis.evolution import EvolutionaryTrends
from astrocyte.pipeline.analysis.evolution.evolutionary_trends import (
    Relation,
    SeriesTrend,
    interval_means,
    trends_statistic,
)
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import DOT, Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.text import as_python, interval, joined, number, p_text, span, trait_name

__all__ = ["coevolution_section", "tested", "trend_text", "trends_table"]

_SHOWN = 10
_SERIES = {"accuracy": "accuracy of attempts", "avg_accuracy": "mean accuracy of the population"}


def coevolution_section(subject: Subject) -> Section:
    """Trends and directed relations of traits of the hardware, traits of the body, and accuracy."""
    section = Section("coevolution", "Trends and co-evolution")
    statistic = trends_statistic(subject.history)
    found = subject.run.analyze_evolutionary_trends()
    section.text.append(
        f"Means of the series in {found.intervals} intervals of {span(found.every_us)}. Slopes are Theil and Sen's; "
        "their intervals take the values as independent, and are too narrow where they are not. The p of a trend takes "
        "the autocorrelation into account, so one may speak for a trend and the other against it; whether a series "
        f"rises or falls is decided by p, corrected for the {tested(found.series)} series (Holm). Accuracy of attempts "
        "is that of problem_solving, which may be a sample; the mean accuracy of the population is that of "
        "population_metrics. Correlations and transfer entropies are those of what a straight line leaves, tested with "
        f"{statistic.resamples} surrogates, so that no p is below {number(1.0 / (statistic.resamples + 1), 1)}; their "
        "p are for the false-discovery rate over all pairs."
    )
    section.figures = [
        Figure("courses", "Series over time",
               "Mean of each series by interval, less its mean over the run, in its standard deviations.",
               partial(_courses, subject)),
        Figure("correlations", "Correlation, later after earlier",
               "Strongest correlation of the row's series with the column's 0 to 5 intervals later. A dot: beyond "
               "chance at 5 %.",
               partial(_matrix, found, value_of=lambda each: each.correlation, p_of=lambda each: each.correlation_p,
                       label="correlation")),
        Figure("transfer_entropy", "Transfer entropy",
               "Information from the row's series to the column's next value, in nats, less that without relation. A "
               "dot: beyond chance at 5 %.",
               partial(_matrix, found, value_of=lambda each: each.transfer_entropy,
                       p_of=lambda each: each.transfer_entropy_p, label="nats")),
    ]  # fmt: skip
    section.tables = [trends_table("Trends", found.series), _relations(found)]
    section.findings += _found(found)
    section.made_by = [as_python(statistic)]
    return section


def _found(found: EvolutionaryTrends) -> list[str]:
    rows = {each.series: each for each in found.series}

    def named(names: Sequence[str]) -> str:
        return joined([
            f"{series_name(name)} ({trend_text(rows[name])})" for name in names
        ])  # fmt: skip

    sentences = []
    if found.rising:
        sentences.append(f"Rising over the run: {named(found.rising)}.")
    if found.falling:
        sentences.append(f"Falling over the run: {named(found.falling)}.")
    if found.rising or found.falling:
        sentences.append(f"The p of trends are corrected for the {tested(found.series)} series (Holm).")
    if not found.rising and not found.falling:
        sentences.append("No series has a trend at 5 % over the run.")
    if found.leading:
        leads = [
            f"{series_name(each.series)} leads {series_name(each.other)} (transfer entropy "
            f"{number(each.transfer_entropy, 2)} nats, p {p_text(each.transfer_entropy_p)})"
            for each in found.leading
        ]
        sentences.append(f"Co-evolution: {joined(leads)}.")
    else:
        sentences.append(
            f"Co-evolution: no series leads another by transfer entropy at 5 %, over {found.intervals} intervals."
        )
    return sentences


def series_name(name: str) -> str:
    """A series for a reader: accuracy is measured twice."""
    return _SERIES.get(name, trait_name(name))


def trend_text(each: SeriesTrend) -> str:
    """A slope with its p, and its interval with what that takes for granted."""
    return (
        f"{number(each.slope)} a second, p {p_text(each.holm_p, least=each.trend_p_is_least)} with the "
        f"autocorrelation; were values independent, 95 % interval {interval(each.slope_low, each.slope_high)}"
    )


def tested(rows: Sequence[SeriesTrend]) -> int:
    """Number of series that have a p: for so many it is corrected."""
    return sum(each.trend_p is not None for each in rows)


def trends_table(title: str, rows: Sequence[SeriesTrend]) -> Table:
    """Trends as a table."""
    head = ("series", "slope, 1/s", "95 % if independent", "tau", "p if independent (Mann-Kendall)",
            "p (autocorrelated)", "the same, Holm", "intervals")  # fmt: skip
    return Table(title, head, [
        (
            series_name(each.series), number(each.slope), interval(each.slope_low, each.slope_high),
            number(each.tau, 2), p_text(each.mann_kendall_p), p_text(each.trend_p, least=each.trend_p_is_least),
            p_text(each.holm_p, least=each.trend_p_is_least), str(each.samples),
        )
        for each in rows
    ])  # fmt: skip


def _relations(found: EvolutionaryTrends) -> Table:
    head = ("earlier", "later", "lag", "correlation", "p", "transfer entropy", "p")
    rows = sorted(found.relations, key=lambda each: min(each.correlation_p or 1.0, each.transfer_entropy_p or 1.0))
    return Table(f"The {_SHOWN} surest relations", head, [
        (
            series_name(each.series), series_name(each.other),
            "–" if each.lag is None else span(each.lag * found.every_us) if each.lag else "0",
            number(each.correlation, 2), p_text(each.correlation_p), number(each.transfer_entropy, 2),
            p_text(each.transfer_entropy_p),
        )
        for each in rows[:_SHOWN]
    ], left=2)  # fmt: skip


def _courses(subject: Subject, axes: Any, palette: Palette) -> None:
    statistic = trends_statistic(subject.history)
    times_us, means = interval_means(subject.history, statistic)
    times = subject.axis.place(times_us)
    for (name, values), colour in zip(means.items(), palette.series, strict=False):
        sd = np.nanstd(values)
        if sd > 0:
            axes.plot(times, (values - np.nanmean(values)) / sd, color=colour, linewidth=1.0, label=trait_name(name))
    axes.set_ylabel("standard deviations")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=3, handlelength=1.2, columnspacing=1.0)
    subject.axis.label(axes, palette)


def _matrix(
    found: EvolutionaryTrends,
    axes: Any,
    palette: Palette,
    *,
    value_of: Callable[[Relation], float | None],
    p_of: Callable[[Relation], float | None],
    label: str,
) -> None:
    names = [each.series for each in found.series]
    values = np.full((len(names), len(names)), np.nan)
    sure = []
    for each in found.relations:
        row, column = len(names) - 1 - names.index(each.series), names.index(each.other)
        value, p = value_of(each), p_of(each)
        values[row, column] = np.nan if value is None else value
        if p is not None and p <= found.level:
            sure.append((column, row))
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    mesh = axes.pcolormesh(values, cmap="RdBu_r", vmin=-most, vmax=most, edgecolors=palette.grid, linewidth=0.4)
    for column, row in sure:
        axes.plot([column + 0.5], [row + 0.5], "o", **DOT)
    places = np.arange(len(names)) + 0.5
    axes.set_yticks(places, [trait_name(name) for name in reversed(names)])
    axes.set_xticks(places, [trait_name(name) for name in names], rotation=35, ha="right")
    axes.figure.colorbar(mesh, ax=axes, label=label, pad=0.02, shrink=0.9)
