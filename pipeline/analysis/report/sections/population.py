"""Population and traits over time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.analysis.evolution.bottlenecks import Bottleneck
from astrocyte.pipeline.analysis.evolution.dashboard import genomes_of, population_of
from astrocyte.pipeline.analysis.evolution.evolutionary_trends import population_trends, trends_statistic
from astrocyte.pipeline.analysis.evolution.history import METRICS
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.sections.coevolution import tested, trend_text, trends_table
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.sections.time_axis import thinned
from astrocyte.pipeline.analysis.report.text import (
    as_python,
    joined,
    number,
    p_text,
    share,
    span,
    trait_name,
)
from astrocyte.pipeline.console import counted

__all__ = ["population_section", "traits_section"]


def population_section(subject: Subject) -> Section:
    """Living, births, accuracy, diversity and energy over time, and bottlenecks."""
    section = Section("population", "Population")
    history = subject.history
    history.require(METRICS)
    table = population_of(history)
    spacing_s = history.spacing_us(METRICS) / 1e6
    section.text += _marks(subject)
    section.figures = [
        Figure("living", "Living cells", "Living cells at each snapshot.",
               partial(_lines, subject, table, ("total_population",), from_zero=True)),
        Figure("births", "Births and deaths", "Births and deaths in a second.",
               partial(_lines, subject, table, ("births", "deaths"), scale=1.0 / spacing_s, from_zero=True)),
        Figure("accuracy", "Mean accuracy", "Mean accuracy of all attempts since the snapshot before.",
               partial(_lines, subject, table, ("avg_accuracy",))),
        Figure("diversity", "Diversity of genomes", "Mean Shannon entropy of metabolism and cores, in nats.",
               partial(_lines, subject, table, ("genome_diversity",))),
        Figure("energy", "Mean energy", "Mean energy of the living.",
               partial(_lines, subject, table, ("avg_energy",))),
        Figure("efficiency", "Energy earned / spent",
               "Energy earned divided by energy spent since the snapshot before; 1 is balance.",
               partial(_lines, subject, table, ("energy_efficiency",), level=1.0)),
    ]  # fmt: skip
    section.figures = [each for each in section.figures if _has_values(table, each)]
    living = [each for each in table.column("total_population").to_pylist() if each is not None]
    found = subject.bottlenecks
    section.findings.append(
        f"The population went from {number(living[0])} to {number(living[-1])} cells (least {number(min(living))}, "
        f"most {number(max(living))}; harmonic mean {number(found.harmonic_mean_population)})."
    )
    _add_trends(subject, table, section)
    for each in found.found:
        end = (
            "without recovery"
            if each.recovered_us is None
            else (f"recovered {span(each.recovered_us - each.low_us)} after the low")
        )
        kept = (
            f"; {number(each.lineages_after)} of {counted(each.lineages_before, 'lineage')} "
            f"{'was' if each.lineages_after == 1 else 'were'} left at the low"
            if each.lineages_before is not None and each.lineages_after is not None
            else ""
        )
        what = "population" if each.of == "population" else "effective number of trait classes"
        section.findings.append(
            f"{_between(subject, each)} the {what} fell by {share(each.lost)}, from {_amount(each, each.before)} to "
            f"{_amount(each, each.low)} (p {p_text(each.p)} by ordinary changes), {end}{kept}."
        )
    section.tables += [_bottlenecks(subject)] if found.found else []
    if not found.found:
        section.text.append(
            f"No bottleneck: no fall of the population by {share(found.depth)} or of diversity by "
            f"{share(found.diversity_depth)} that chance does not explain (p above {found.level:g})."
        )
    section.made_by += [f"run.detect_evolutionary_bottlenecks(time_window={subject.fine_us})"]
    return section


def _between(subject: Subject, each: Bottleneck) -> str:
    start, low = (span(time_us - subject.axis.begin_us) for time_us in (each.start_us, each.low_us))
    return f"From {start} to {low} after the start"


def _amount(each: Bottleneck, value: float) -> str:
    return number(round(value) if each.of == "population" else value)


def _marks(subject: Subject) -> list[str]:
    marks = ["dashed lines are alerts"] if subject.axis.alerts_us else []
    marks += ["bands are planted anomalies"] if subject.axis.planted_us else []
    return [f"On axes of time {joined(marks)}."] if marks else []


def _add_trends(subject: Subject, table: pa.Table, section: Section) -> None:
    try:
        rows = population_trends(subject.history)
    except NotEnoughData as error:
        section.missing.append(str(error))
        return
    section.tables.append(trends_table("Trends of the population", rows))
    section.made_by.append(as_python(trends_statistic(subject.history, [(METRICS, each.series) for each in rows])))
    accuracy = {each.series: each for each in rows}["avg_accuracy"]
    values = np.array([each for each in table.column("avg_accuracy").to_pylist() if each is not None])
    if accuracy.slope is not None:
        first, last = values[: len(values) // 4].mean(), values[-(len(values) // 4) :].mean()
        section.findings.append(
            f"The mean accuracy of the population was {number(first)} in the first quarter of the run and "
            f"{number(last)} in the last; its trend is {trend_text(accuracy)} (p corrected for {tested(rows)} series)."
        )


def _bottlenecks(subject: Subject) -> Table:
    rows = [
        (
            each.of,
            number(float(subject.axis.place([each.start_us])[0]), 4),
            number(float(subject.axis.place([each.low_us])[0]), 4),
            "–" if each.recovered_us is None else number(float(subject.axis.place([each.recovered_us])[0]), 4),
            _amount(each, each.before), _amount(each, each.low), share(each.lost), p_text(each.p),
            number(each.effective_size),
            number(each.lineages_before), number(each.lineages_after),
        )
        for each in subject.bottlenecks.found
    ]  # fmt: skip
    head = ("of", "start", "low at", "recovered", "before", "low", "lost", "p", "effective size", "lineages before",
            "after")  # fmt: skip
    return Table(
        f"Bottlenecks; effective size for a generation of {span(subject.fine_us)}, lineages at start and low",
        head,
        rows,
    )


def _has_values(table: pa.Table, figure: Figure) -> bool:
    names = figure.draw.args[2]  # type: ignore[attr-defined]
    return all(name in table.column_names and table.column(name).null_count < table.num_rows for name in names)


def _lines(
    subject: Subject, table: pa.Table, names: tuple[str, ...], axes: Any, palette: Palette, *, scale: float = 1.0,
    from_zero: bool = False, level: float | None = None,
) -> None:  # fmt: skip
    chosen = thinned(table.num_rows)
    times = subject.axis.place(table.column("timestamp").to_numpy()[chosen])
    if level is not None:
        axes.axhline(level, color=palette.muted, linewidth=0.9)
    for name, colour in zip(names, palette.series, strict=False):
        values = np.asarray(table.column(name).to_numpy(zero_copy_only=False), np.float64)[chosen] * scale
        axes.plot(times, values, color=colour, label=trait_name(name))
    if from_zero:
        axes.set_ylim(bottom=0)
    if len(names) > 1:
        axes.legend(loc="best")
    subject.axis.label(axes, palette)


def traits_section(subject: Subject) -> Section:
    """How the traits of genomes are distributed over time, and the types of genomes."""
    section = Section("traits", "Traits")
    history = subject.history
    history.require("genome_data")
    genomes = genomes_of(history, subject.fine_us)
    traits = list(dict.fromkeys(genomes.column("trait").to_pylist()))
    section.figures = [
        Figure(f"trait_{trait}", f"Distribution of {trait_name(trait)}",
               "Individuals observed in each window by class; the line is their mean.",
               partial(_heat_map, subject, genomes, trait))
        for trait in traits
    ]  # fmt: skip
    section.text.append(
        f"Each column is a window of {span(subject.fine_us)}: shares of the observed individuals by class of the trait."
    )
    try:
        types = subject.run.dominance(subject.fine_us)
        section.figures.append(Figure(
            "genome_types", "Types of genomes", "Share of each type among the individuals observed in a window.",
            partial(_type_shares, subject, types.table()),
        ))  # fmt: skip
        held, count = types.overall.steps, len({each.window_end for each in types.shares})
        final = types.overall.final
        if final is not None:
            section.findings.append(
                f"Genomes of type {final} dominated last, and {held[final]} of {count} windows of "
                f"{span(subject.fine_us)} (mean share {share(types.overall.mean_share[final])})."
            )
        section.made_by.append(f"run.dominance({subject.fine_us})")
    except NotEnoughData as error:
        section.missing.append(str(error))
    return section


def _heat_map(subject: Subject, genomes: pa.Table, trait: str, axes: Any, palette: Palette) -> None:
    rows = genomes.filter(pa.array([each == trait for each in genomes.column("trait").to_pylist()]))
    ends = np.unique(rows.column("window_end").to_numpy())
    counts = rows.column("individuals").to_numpy().reshape(len(ends), -1).T.astype(np.float64)
    classes = len(counts)
    low, high = rows.column("low").to_numpy()[:classes], rows.column("high").to_numpy()[:classes]
    total = counts.sum(axis=0)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    edges = subject.axis.place(np.r_[ends[0] - (ends[1] - ends[0] if len(ends) > 1 else subject.fine_us), ends])
    shares[shares == 0] = np.nan
    axes.pcolormesh(edges, np.r_[low, high[-1]], shares, cmap="viridis", vmin=0, rasterized=True)
    middle = (low + high) / 2
    with np.errstate(invalid="ignore"):
        mean = np.where(total > 0, (counts * middle[:, None]).sum(axis=0) / total, np.nan)
    axes.plot((edges[:-1] + edges[1:]) / 2, mean, color=palette.red, linewidth=1.6)
    axes.set_ylabel(trait_name(trait))
    subject.axis.label(axes, palette, marks=False)
    axes.grid(visible=False)


def _type_shares(subject: Subject, shares: pa.Table, axes: Any, palette: Palette) -> None:
    names = sorted(set(shares.column("genome_type").to_pylist()))
    ends = np.unique(shares.column("window_end").to_numpy())
    values = shares.column("share").to_numpy().reshape(len(ends), len(names)).T
    axes.stackplot(subject.axis.place(ends), values, colors=palette.series[: len(names)], labels=names, alpha=0.75)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=len(names))
    subject.axis.label(axes, palette, marks=False)
