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

__all__ = ["coevolution_section", "trends_table"]

_SHOWN = 10


def coevolution_section(subject: Subject) -> Section:
    """Trends and directed relations of traits of the hardware, traits of the body, and accuracy."""
    section = Section("coevolution", "Trends and co-evolution")
    found = subject.run.analyze_evolutionary_trends()
    section.text.append(
        f"Means of the series in {found.intervals} intervals of {span(found.every_us)}. Slopes are Theil and Sen's; p "
        "of trends take the autocorrelation into account. Correlations and transfer entropies are those of what a "
        "straight line leaves, tested with surrogates; their p are for the false-discovery rate over all pairs."
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
    section.made_by = [as_python(trends_statistic(subject.history))]
    return section


def _found(found: EvolutionaryTrends) -> list[str]:
    rows = {each.series: each for each in found.series}

    def named(names: Sequence[str]) -> str:
        return joined([
            f"{trait_name(name)} ({number(rows[name].slope)} a second, 95 % interval "
            f"{interval(rows[name].slope_low, rows[name].slope_high)}, p {p_text(rows[name].trend_p)})"
            for name in names
        ])  # fmt: skip

    sentences = []
    if found.rising:
        sentences.append(f"Rising over the run: {named(found.rising)}.")
    if found.falling:
        sentences.append(f"Falling: {named(found.falling)}.")
    if not found.rising and not found.falling:
        sentences.append("No series has a trend at 5 % over the run.")
    if found.leading:
        leads = [
            f"{trait_name(each.series)} leads {trait_name(each.other)} (transfer entropy "
            f"{number(each.transfer_entropy, 2)} nats, p {p_text(each.transfer_entropy_p)})"
            for each in found.leading
        ]
        sentences.append(f"Co-evolution: {joined(leads)}.")
    else:
        sentences.append(
            f"Co-evolution: no series leads another by transfer entropy at 5 %, over {found.intervals} intervals."
        )
    return sentences


def trends_table(title: str, rows: Sequence[SeriesTrend]) -> Table:
    """Trends as a table."""
    head = ("series", "slope, 1/s", "95 %", "tau", "p (Mann-Kendall)", "p (autocorrelated)", "intervals")
    return Table(title, head, [
        (
            trait_name(each.series), number(each.slope), interval(each.slope_low, each.slope_high),
            number(each.tau, 2), p_text(each.mann_kendall_p), p_text(each.trend_p), str(each.samples),
        )
        for each in rows
    ])  # fmt: skip


def _relations(found: EvolutionaryTrends) -> Table:
    head = ("earlier", "later", "lag", "correlation", "p", "transfer entropy", "p")
    rows = sorted(found.relations, key=lambda each: min(each.correlation_p or 1.0, each.transfer_entropy_p or 1.0))
    return Table(f"The {_SHOWN} surest relations", head, [
        (
            trait_name(each.series), trait_name(each.other),
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
