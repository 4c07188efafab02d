"""Selection over time, Price's equation, the advantage of types, and effects of mutations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from astrocyte.agents.insight import Price
from astrocyte.pipeline.analysis.evolution import NotEnoughData, SelectionPressure
from astrocyte.pipeline.analysis.evolution.evolutionary_trends import MutationEffect, mutation_effects
from astrocyte.pipeline.analysis.evolution.selection_pressure import (
    TraitSelection,
    selection_pressure,
    selection_statistic,
)
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import DOT, Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.text import (
    NONE,
    as_python,
    joined,
    number,
    p_text,
    plus_minus,
    share,
    span,
    trait_name,
)

__all__ = ["selection_section"]


def selection_section(subject: Subject) -> Section:
    """Gradients of the whole run and by window, for traits and performance; Price; types; mutations."""
    section = Section("selection", "Selection")
    history = subject.history
    length_us = history.end_us - history.begin_us
    whole = subject.run.calculate_selection_pressure(length_us)
    windows = subject.run.calculate_selection_pressure(subject.window_us)
    section.text.append(
        "beta is the change of relative fitness by one standard deviation of a trait with all others held still; "
        "fitness counts offspring and survival while an individual is followed, for half a window. Bars are 95 % "
        "intervals; p are corrected for the number of traits (Holm)."
    )
    section.figures = [
        Figure("beta_run", "Selection over the whole run",
               "beta of each trait with its 95 % interval; filled: distinct from 0 at 5 %.",
               partial(_forest, whole.traits)),
        Figure("beta_windows", f"Selection by windows of {span(windows.time_window_us)}",
               "beta of each trait by window: red for larger, blue for smaller values. A dot: distinct from 0 at 5 %.",
               partial(_beta_map, subject, windows)),
    ]  # fmt: skip
    section.tables = [_table("Selection over the whole run", whole.traits)]
    section.made_by = [as_python(selection_statistic(history, size)) for size in (length_us, subject.window_us)]
    section.findings += _found(whole)
    try:
        performance = selection_pressure(history, length_us, performance=True)
        section.figures.append(Figure(
            "beta_performance", "Selection on performance",
            "beta of accuracy and use of the hardware at one attempt, with 95 % intervals.",
            partial(_forest, performance.traits),
        ))  # fmt: skip
        section.tables.append(_table("Selection on performance", performance.traits))
        section.made_by.append(as_python(selection_statistic(history, length_us, performance=True)))
    except NotEnoughData as error:
        section.missing.append(str(error))
    _add_price(subject, section)
    _add_types(subject, section)
    _add_mutations(subject, section)
    return section


def _found(whole: SelectionPressure) -> list[str]:
    rows = {each.trait: each for each in whole.traits}
    signed = sorted((*whole.positive, *whole.negative), key=lambda name: -abs(rows[name].beta or 0.0))
    if not signed:
        return [
            f"No trait is under directional selection at 5 % ({whole.traits[0].individuals:,} individuals followed)."
        ]
    parts = [
        f"{'larger' if name in whole.positive else 'smaller'} {trait_name(name)} "
        f"(beta {plus_minus(rows[name].beta, rows[name].beta_se)}, p {p_text(rows[name].beta_p)})"
        for name in signed
    ]
    return [f"Selection favours {joined(parts)}, in {whole.traits[0].individuals:,} individuals that were followed."]


def _table(title: str, rows: Sequence[TraitSelection]) -> Table:
    head = ("trait", "mean", "sd", "S ± 95 %", "beta ± 95 %", "p", "gamma ± 95 %", "p", "s, upper half", "individuals")
    return Table(title, head, [
        (
            trait_name(each.trait), number(each.mean), number(each.sd),
            plus_minus(each.differential, each.differential_se), plus_minus(each.beta, each.beta_se),
            p_text(each.beta_p), plus_minus(each.gamma, each.gamma_se), p_text(each.gamma_p),
            plus_minus(each.coefficient, each.coefficient_se), f"{each.individuals:,}",
        )
        for each in rows
    ])  # fmt: skip


def _forest(rows: Sequence[TraitSelection], axes: Any, palette: Palette) -> None:
    names = [trait_name(each.trait) for each in rows]
    axes.axvline(0, color=palette.muted, linewidth=0.9)
    for place, each in enumerate(reversed(rows)):
        if each.beta is None or each.beta_se is None:
            continue
        colour = {"positive": palette.red, "negative": palette.blue}.get(each.sign, palette.muted)
        half = 1.959964 * each.beta_se
        axes.plot([each.beta - half, each.beta + half], [place, place], color=colour)
        filled = colour if each.sign != "none" else "none"
        axes.plot([each.beta], [place], "o", markersize=5, markeredgecolor=colour, markerfacecolor=filled)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("beta, 1/sd")
    axes.grid(axis="x", linewidth=0.6)


def _beta_map(subject: Subject, found: SelectionPressure, axes: Any, palette: Palette) -> None:
    names = [each.trait for each in found.traits]
    ends = sorted({each.window_end for each in found.windows})
    beta = np.full((len(names), len(ends)), np.nan)
    for each in found.windows:
        row, column = len(names) - 1 - names.index(each.trait), ends.index(each.window_end)
        beta[row, column] = np.nan if each.beta is None else each.beta
    most = float(np.nanmax(np.abs(beta))) if np.isfinite(beta).any() else 1.0
    edges = subject.axis.place([ends[0] - found.time_window_us, *ends])
    mesh = axes.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, beta, cmap="RdBu_r", vmin=-most, vmax=most)
    middle = (edges[:-1] + edges[1:]) / 2
    for each in found.windows:
        if each.sign != "none":
            place = len(names) - 1 - names.index(each.trait)
            axes.plot([middle[ends.index(each.window_end)]], [place], "o", **DOT)
    axes.set_yticks(range(len(names)), [trait_name(name) for name in reversed(names)])
    axes.figure.colorbar(mesh, ax=axes, label="beta", pad=0.02, shrink=0.9)
    subject.axis.label(axes, palette, marks=False)
    axes.grid(visible=False)


def _add_price(subject: Subject, section: Section) -> None:
    history = subject.history
    statistic = Price(windows=history.windows(subject.window_us))
    rows = [row for row in history.results(statistic).to_pylist() if row["trait"] == "fitness_delta"]
    rows = [row for row in rows if row["change"] is not None]
    if not rows:
        section.missing.append("Price's equation: the run has no births")
        return
    section.figures.append(Figure(
        "price", "Price's equation: weights' improvement",
        "Change of the mean sum of fitness_delta since the founders in each window, as selection plus transmission.",
        partial(_price, subject, rows),
    ))  # fmt: skip
    selection, transmission = (sum(row[name] for row in rows) for name in ("selection", "transmission"))
    section.made_by.append(as_python(statistic))
    section.findings.append(
        f"Of the change of the weights' mean improvement over the windows, {number(selection + transmission)} squared "
        f"weight, selection made {number(selection)} and transmission (mutation) {number(transmission)}; by Price's "
        "equation the two add up exactly."
    )


def _price(subject: Subject, rows: Sequence[dict[str, Any]], axes: Any, palette: Palette) -> None:
    ends = subject.axis.place([row["window_end"] for row in rows])
    width = float(subject.axis.place([rows[0]["window_end"]])[0] - subject.axis.place([rows[0]["window_start"]])[0])
    for shift, name, colour in ((-0.7, "selection", palette.green), (-0.3, "transmission", palette.orange)):
        axes.bar(ends + shift * width, [row[name] for row in rows], 0.36 * width, color=colour, label=name)
    axes.plot(ends - width / 2, [row["change"] for row in rows], "o-", color=palette.ink, markersize=3, label="change")
    axes.axhline(0, color=palette.muted, linewidth=0.9)
    axes.legend(loc="best")
    subject.axis.label(axes, palette, marks=False)


def _add_types(subject: Subject, section: Section) -> None:
    rows = subject.run.advantage()
    section.made_by.append("run.advantage()")
    section.tables.append(Table(
        "Relative fitness of types of genomes beside all others; p of each type alone",
        ("type", "share of the followed", "advantage ± 95 %", "p"),
        [(each.genome_type, share(each.share), plus_minus(each.advantage, each.advantage_se), p_text(each.p))
         for each in rows],
    ))  # fmt: skip


def _add_mutations(subject: Subject, section: Section) -> None:
    effects = mutation_effects(subject.history)
    if not effects:
        section.missing.append("effects of mutations: the run has no births")
        return
    own = effects[0]
    if own.beneficial is not None:
        section.findings.append(
            f"Of {own.mutations:,} mutations {share(own.beneficial)} (95 % interval {share(own.beneficial_low)} to "
            f"{share(own.beneficial_high)}) brought the weights nearer to the optimum; mutants' fitness differs from "
            f"that of other newborns by {plus_minus(own.cost, own.cost_se)} (p {p_text(own.cost_p)})."
        )
    section.tables.append(_mutations(effects))
    section.made_by.append("run.analyze_evolutionary_trends().mutations")


def _beneficial(each: MutationEffect) -> str:
    if each.beneficial is None:
        return NONE
    return f"{share(each.beneficial)} ({share(each.beneficial_low)} to {share(each.beneficial_high)})"


def _mutations(effects: Sequence[MutationEffect]) -> Table:
    head = ("effect", "mutations", "mean ± 95 %", "p", "beneficial, 95 %", "fitness by effect ± 95 %", "p")
    return Table("Effects of mutations; p for the false-discovery rate", head, [
        (
            trait_name(each.effect), f"{each.mutations:,}", plus_minus(each.mean, each.mean_se), p_text(each.mean_p),
            _beneficial(each),
            plus_minus(each.beta, each.beta_se), p_text(each.beta_p),
        )
        for each in effects
    ])  # fmt: skip
