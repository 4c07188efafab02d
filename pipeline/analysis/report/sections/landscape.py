"""Fitness landscape: the surface over two components of the traits, the traits' weights, and fitness by distance."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from astrocyte.pipeline.analysis.evolution import FitnessLandscape
from astrocyte.pipeline.analysis.evolution.selection_pressure import selection_statistic
from astrocyte.pipeline.analysis.report.content import Figure, Section
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.text import as_python, interval, number, share, trait_name

__all__ = ["landscape_section"]

_POINTS = 500


def landscape_section(subject: Subject) -> Section:
    """Two components of the traits with fitness as a surface, and its fitness-distance correlation."""
    section = Section("landscape", "Fitness landscape")
    found = subject.run.fitness_landscape(subject.window_us)
    one, two = (share(each) for each in found.explained)
    section.text.append(
        f"The {len(found.traits)} standardised traits of {len(found.fitness):,} individuals, in their first two "
        f"principal components, which have {one} and {two} of the variance. The surface is the mean relative fitness "
        "of those near (Gaussian kernel); where fewer than ten are near nothing is drawn."
    )
    section.figures = [
        Figure("surface", "Fitness over two components",
               f"Colour: mean relative fitness. Points: individuals (at most {_POINTS}).", partial(_surface, found)),
        Figure("loadings", "Weight of each trait in the components",
               "The larger a bar, the more the component moves with the trait.", partial(_loadings, found)),
        Figure("fitness_distance", "Fitness by distance from the peak",
               "Mean relative fitness of tenths of the individuals, by their distance from the other half's fittest "
               "twentieth, with 95 % intervals.", partial(_distance, found)),
    ]  # fmt: skip
    low, high = found.fitness_distance_low, found.fitness_distance_high
    said = "falls with" if high < 0 else "rises with" if low > 0 else "does not change with"
    section.findings.append(
        f"Fitness {said} the distance from the fitness peak: fitness-distance correlation "
        f"{number(found.fitness_distance, 2)} (95 % interval {interval(low, high, 2)}, {len(found.fitness):,} "
        "individuals)."
    )
    section.made_by = [
        f"run.fitness_landscape({subject.window_us})",
        as_python(selection_statistic(subject.history, subject.window_us))
    ]  # fmt: skip
    return section


def _surface(found: FitnessLandscape, axes: Any, palette: Palette) -> None:
    x, y = found.axes
    mesh = axes.pcolormesh(
        x, y, np.ma.masked_invalid(found.surface), cmap="viridis", shading="nearest", rasterized=True
    )
    chosen = np.linspace(0, len(found.places) - 1, min(len(found.places), _POINTS)).astype(np.int64)
    axes.plot(found.places[chosen, 0], found.places[chosen, 1], ".", markersize=2, color=palette.ink, alpha=0.45,
              rasterized=True)  # fmt: skip
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_xlabel(f"component 1 ({share(found.explained[0])})")
    axes.set_ylabel(f"component 2 ({share(found.explained[1])})")
    axes.figure.colorbar(mesh, ax=axes, label="relative fitness", pad=0.02)


def _loadings(found: FitnessLandscape, axes: Any, palette: Palette) -> None:
    places = np.arange(len(found.traits))[::-1]
    for component, shift, colour in ((0, 0.19, palette.blue), (1, -0.19, palette.orange)):
        axes.barh(places + shift, found.loadings[:, component], 0.36, color=colour, label=f"component {component + 1}")
    axes.axvline(0, color=palette.muted, linewidth=0.9)
    axes.set_yticks(places, [trait_name(each) for each in found.traits])
    axes.set_xlabel("weight")
    axes.legend(loc="best")


def _distance(found: FitnessLandscape, axes: Any, palette: Palette) -> None:
    order = np.argsort(found.distance, kind="stable")
    groups = np.array_split(order, 10)
    middle = [float(found.distance[each].mean()) for each in groups]
    mean = [float(found.fitness[each].mean()) for each in groups]
    half = [1.959964 * float(found.fitness[each].std(ddof=1)) / len(each) ** 0.5 for each in groups]
    axes.axhline(1.0, color=palette.muted, linewidth=0.9)
    axes.errorbar(middle, mean, half, color=palette.blue, marker="o", markersize=4, linestyle="none")
    axes.set_xlabel("distance, standard deviations of the traits")
    axes.set_ylabel("relative fitness")
    axes.grid(axis="y", linewidth=0.6)
