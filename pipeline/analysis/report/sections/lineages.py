"""Lineages: how many founders have descendants, effective size, and a small phylogeny of the living."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.insight import Diversity
from astrocyte.pipeline.analysis.evolution import NotEnoughData
from astrocyte.pipeline.analysis.evolution.dashboard import family_tree, lineages_of
from astrocyte.pipeline.analysis.evolution.history import EVENTS
from astrocyte.pipeline.analysis.phylogeny import Phylogeny
from astrocyte.pipeline.analysis.phylogeny.loops import add_to_ancestors, mark_ancestors, postorder
from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.sections.time_axis import log_axis
from astrocyte.pipeline.analysis.report.text import as_python, number, span
from astrocyte.pipeline.console import counted

__all__ = ["lineages_section", "sampled"]

_TIPS = 60


def lineages_section(subject: Subject) -> Section:
    """Lineages alive and effective size by window, and the tree of a sample of the living."""
    section = Section("lineages", "Phylogeny and lineages")
    history = subject.history
    history.require(EVENTS)
    rows = lineages_of(history, subject.fine_us)
    if rows.num_rows:
        section.figures += [
            Figure("founders", "Lineages alive",
                   "Founders with living descendants (since the last common ancestor of all: its lines), and their "
                   "effective number, exp of the Shannon entropy.",
                   partial(_series, subject, rows, labels={"hill_0": "alive", "hill_1": "effective number"})),
            Figure("effective_size", "Effective population size",
                   "Size of an ideal population whose pairs share an ancestor as often; a window counts as one "
                   "generation.", partial(_series, subject, rows, labels={"effective_size": "effective size"})),
        ]  # fmt: skip
        section.made_by.append(as_python(Diversity(windows=history.windows(subject.fine_us), traits=())))
    found = family_tree(history)
    if found is None:
        raise NotEnoughData("no phylogeny: the run has no births, or no one lives at its end")
    tips = sampled(found.tree)
    section.figures.append(Figure(
        "tree", f"Phylogeny of {int(tips.living.sum())} of the living",
        "Each line is a lineage from the birth of an ancestor with two or more lines to that of the next; grey until "
        "the end: the sampled cell lives. Lines that begin at the left are founders'.",
        partial(_tree, subject, tips), tall=True,
    ))  # fmt: skip
    section.made_by.append("run.phylogeny()")
    section.tables = [_summary(found)]
    section.findings += _found(subject, found, rows)
    return section


def _found(subject: Subject, found: Phylogeny, rows: pa.Table) -> list[str]:
    summary = found.summary()
    sentences = [
        (
            f"{summary['lineages']:,} of {counted(summary['founders'], 'founder')} "
            f"{'has' if summary['lineages'] == 1 else 'have'} living descendants, who are {summary['living']:,} after "
            f"{counted(summary['births'], 'birth')} and {counted(summary['deaths'], 'death')}."
        )
    ]
    if summary["mrca"] is not None:
        sentences.append(
            f"All living descend from one cell, born {span(summary['mrca']['before_end_s'] * 1e6)} before the end."
        )
    sizes = [each for each in rows.column("effective_size").to_pylist() if each]
    if sizes:
        harmonic = len(sizes) / sum(1.0 / each for each in sizes)
        sentences.append(
            f"The effective population size for a generation of {span(subject.fine_us)} (each window taken as one) is "
            f"{number(min(sizes))} to {number(max(sizes))}, its harmonic mean {number(harmonic)}; it says how fast "
            "lineages merge, and is no count of cells."
        )
    return sentences


def _summary(found: Phylogeny) -> Table:
    summary = found.summary()
    tree = summary["tree"] or {}
    mrca = summary["mrca"]
    ancestor = "none" if mrca is None else f"cell {mrca['id']}, {span(mrca['before_end_s'] * 1e6)} before the end"
    rows = [
        *((name, number(summary[name])) for name in ("births", "deaths", "living", "founders")),
        ("founders with living descendants", number(summary["lineages"])),
        ("most recent common ancestor", ancestor),
        ("Sackin's index", number(tree.get("sackin"))),
        ("Colless' index", number(tree.get("colless"))),
        ("length of all branches, s", number(tree.get("total_length"), 6)),
        ("mean distance of two tips, s", number(tree.get("mean_pair_distance"))),
    ]  # fmt: skip
    return Table("The tree of all living", ("", ""), rows)


def sampled(tree: Population, most: int = _TIPS) -> Population:
    """The living of a tree, at most ``most`` of them, and their ancestors.

    Taken evenly from the order in which a drawing shows them, so that large clades keep more of their members.
    """
    sizes = add_to_ancestors(tree.first, np.ones(len(tree), np.int64))
    place = postorder(tree.first, sizes) + sizes - 1
    living = np.flatnonzero(tree.living)
    living = living[np.argsort(place[living], kind="stable")]
    chosen = living[np.unique(np.linspace(0, len(living) - 1, min(len(living), most)).round().astype(np.int64))]
    marked = np.zeros(len(tree), np.bool_)
    marked[chosen] = True
    kept = marked.copy()
    mark_ancestors(tree.first, tree.second, kept)
    died_us = np.where(tree.living & ~marked, tree.at_us, tree.died_us)
    return replace(tree, died_us=died_us).take(kept)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Nodes that are drawn: tips, founders, and those with several lines. ``parent`` [n] is a row of these, or -1."""

    parent: NDArray[np.int64]
    origin_us: NDArray[np.int64]
    height: NDArray[np.float64]
    is_tip: NDArray[np.bool_]


def _layout(tree: Population) -> _Layout:
    n = len(tree)
    child = np.flatnonzero(tree.first >= 0)
    children = np.bincount(tree.first[child], minlength=n)
    kept = tree.living | (children > 1) | (tree.first < 0)
    above = np.full(n, -1, np.int64)  # the nearest ancestor that is drawn; parents come before their children
    for row in range(n):
        parent = tree.first[row]
        if parent >= 0:
            above[row] = parent if kept[parent] else above[parent]
    sizes = add_to_ancestors(tree.first, np.ones(n, np.int64))
    place = postorder(tree.first, sizes) + sizes - 1
    tips = np.flatnonzero(tree.living)
    height = np.full(n, np.nan)
    height[tips[np.argsort(place[tips], kind="stable")]] = np.arange(len(tips))
    low, high = height.copy(), height.copy()
    for row in range(n - 1, -1, -1):
        if above[row] >= 0 and kept[row]:
            if np.isnan(height[row]):
                height[row] = (low[row] + high[row]) / 2
            low[above[row]] = np.fmin(low[above[row]], height[row])
            high[above[row]] = np.fmax(high[above[row]], height[row])
        elif kept[row] and np.isnan(height[row]):
            height[row] = (low[row] + high[row]) / 2
    number = np.cumsum(kept) - 1
    parent = np.where(above >= 0, number[above], -1)
    return _Layout(parent[kept], tree.origin_us[kept], height[kept], tree.living[kept])


def _tree(subject: Subject, tree: Population, axes: Any, palette: Palette) -> None:
    from matplotlib.collections import LineCollection

    layout = _layout(tree)
    x = subject.axis.place(layout.origin_us)
    end = float(subject.axis.place([subject.axis.end_us])[0])
    inner, living = [], []
    for row, parent in enumerate(layout.parent):
        height = layout.height[row]
        if parent >= 0:
            inner += [
                [(x[parent], layout.height[parent]), (x[parent], height)],
                [(x[parent], height), (x[row], height)],
            ]
        if layout.is_tip[row]:
            living.append([(x[row], height), (end, height)])
    axes.add_collection(LineCollection(living, colors=palette.muted, linewidths=0.6, alpha=0.7))
    axes.add_collection(LineCollection(inner, colors=palette.blue, linewidths=1.0))
    axes.set_ylim(-1, max(float(layout.is_tip.sum()), 1))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    subject.axis.label(axes, palette)


def _series(subject: Subject, rows: pa.Table, axes: Any, palette: Palette, *, labels: Mapping[str, str]) -> None:
    times = subject.axis.place(rows.column("window_end").to_numpy())
    for (name, label), colour in zip(labels.items(), palette.series, strict=False):
        values = np.array([np.nan if each is None else each for each in rows.column(name).to_pylist()], np.float64)
        axes.plot(times, values, "-o", markersize=2.5, color=colour, label=label)
    log_axis(axes)
    if len(labels) > 1:
        axes.legend(loc="best")
    subject.axis.label(axes, palette)
