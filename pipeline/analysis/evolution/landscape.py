"""Fitness landscape: traits of individuals in two dimensions, and fitness as a surface over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.insight import Selection
from astrocyte.agents.insight.statistic import Window
from astrocyte.pipeline.analysis.evolution.history import History
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData
from astrocyte.pipeline.analysis.evolution.selection_pressure import selection_statistic

__all__ = ["FitnessLandscape", "fitness_distance", "fitness_landscape"]

Floats = NDArray[np.float64]

_GRID: Final = 24
_FEWEST: Final = 30
_NEAR: Final = 10.0
"""Individuals, by weight, below which the surface is not drawn."""
_BEST: Final = 0.05
"""Share of the individuals whose mean is the peak."""


@dataclass(frozen=True, slots=True, eq=False)
class FitnessLandscape:
    """n individuals by their k standardised traits, in two principal components, with relative fitness.

    Fitness is that of `astrocyte.insight.Selection`: births and survival while followed, divided by the mean of its
    window. The surface is its kernel mean (Nadaraya 1964, Watson 1964) with Gaussian kernels of Scott's bandwidth,
    n^(-1/6) standard deviations; NaN where fewer than ten individuals weigh in.
    """

    traits: tuple[str, ...]
    fitness: Floats
    """Relative fitness, shape [n]."""
    distance: Floats
    """Of the standardised traits from the peak, see `fitness_distance`; shape [n]."""
    places: Floats
    """First and second principal component, shape [n, 2]."""
    loadings: Floats
    """Weight of each trait in both components, shape [k, 2]."""
    explained: tuple[float, float]
    """Share of the variance of the standardised traits that each component has."""
    axes: tuple[Floats, Floats]
    """Places of the surface's points along both components, shapes [g]."""
    surface: Floats
    """Mean relative fitness, shape [g, g]: rows along the second component."""
    fitness_distance: float
    """Correlation of fitness with the distance from the peak: -1 is a single hill, 0 no order."""
    fitness_distance_low: float
    """Lower end of its 95 % interval."""
    fitness_distance_high: float

    def table(self) -> pa.Table:
        """A row for each individual: ``pc1``, ``pc2``, ``fitness`` and ``distance``."""
        places = {"pc1": self.places[:, 0], "pc2": self.places[:, 1]}
        return pa.table({**places, "fitness": self.fitness, "distance": self.distance})

    def surface_table(self) -> pa.Table:
        """The surface as rows of ``pc1``, ``pc2`` and ``fitness``, null where too few individuals are near."""
        x, y = np.meshgrid(*self.axes)
        fitness = pa.array(self.surface.ravel(), mask=np.isnan(self.surface.ravel()))
        return pa.table({"pc1": x.ravel(), "pc2": y.ravel(), "fitness": fitness})

    def loadings_table(self) -> pa.Table:
        """A row for each trait: ``trait``, ``pc1``, ``pc2``."""
        return pa.table({"trait": list(self.traits), "pc1": self.loadings[:, 0], "pc2": self.loadings[:, 1]})


def fitness_landscape(history: History, time_window: str | int = "5m") -> FitnessLandscape:
    """The landscape of all cohorts of a run. Raises NotEnoughData and InvalidSettings."""
    statistic = selection_statistic(history, time_window)
    fitness, traits = _cohorts(history, statistic)
    varied = np.ptp(traits, axis=0) > 0 if len(traits) else np.zeros(traits.shape[1], np.bool_)
    if len(fitness) < _FEWEST or varied.sum() < 2 or np.ptp(fitness) == 0:
        raise NotEnoughData(
            f"a fitness landscape needs {_FEWEST} individuals or more that differ in two traits and in fitness; run "
            f"{history.run!r} has {len(fitness)} that were observed and followed, with {varied.sum()} traits that vary"
        )
    names = tuple(name for name, kept in zip(statistic.traits, varied, strict=True) if kept)
    x = traits[:, varied]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    loadings = directions[:2].T
    # The sign of a component is arbitrary: the trait that weighs most counts upwards.
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(axis=0), [0, 1]])
    places = x @ loadings
    shares = sizes**2 / (sizes**2).sum()
    axes, surface = _surface(places, fitness)
    distance, correlation, low, high = fitness_distance(x, fitness)
    return FitnessLandscape(
        names,
        fitness,
        distance,
        places,
        loadings,
        (float(shares[0]), float(shares[1])),
        axes,
        surface,
        correlation,
        low,
        high,
    )


def _cohorts(history: History, statistic: Selection) -> tuple[Floats, Floats]:
    """Relative fitness [n] and traits [n, k] of the cohorts of all windows."""
    tables = [source.read(history.frames[source.stream], {}).ordered() for source in statistic.sources]
    fitness: list[Floats] = [np.empty(0)]
    traits: list[Floats] = [np.empty((0, len(statistic.traits)))]
    size_us, end_us = statistic.windows.size_us, history.end_us
    for number in reversed(range((end_us - history.begin_us) // size_us)):
        window = Window(history.run, end_us - (number + 1) * size_us, end_us - number * size_us)
        rows = [
            table.take(slice(*np.searchsorted(table.t, [window.start_us, window.end_us]).tolist())) for table in tables
        ]
        own, values = statistic.cohort(window, rows)
        if len(own) and own.sum() > 0:
            fitness.append(own / own.mean())
            traits.append(values)
    return np.concatenate(fitness), np.concatenate(traits)


def _surface(places: Floats, fitness: Floats) -> tuple[tuple[Floats, Floats], Floats]:
    width = places.std(axis=0) * len(places) ** (-1 / 6)
    low, high = np.quantile(places, [0.005, 0.995], axis=0)
    axes = np.linspace(low, high, _GRID).T
    near = [np.exp(-0.5 * ((axes[at][:, None] - places[:, at]) / width[at]) ** 2) for at in (0, 1)]  # each [g, n]
    weight = near[1] @ near[0].T
    total = (near[1] * fitness) @ near[0].T
    surface = np.full(weight.shape, np.nan)
    enough = weight >= _NEAR
    surface[enough] = total[enough] / weight[enough]
    return (axes[0], axes[1]), surface


def fitness_distance(x: Floats, fitness: Floats) -> tuple[Floats, float, float, float]:
    """Distance [n] of traits [n, k] from the peak, its correlation with fitness [n], and the 95 % interval of that.

    As Jones and Forrest 1995 (ICGA 6:184), but the peak is not known: it is the mean of the fittest twentieth. That is
    taken from every other individual and used for the rest, and the other way round, since individuals are near a peak
    that is made of them. The interval is Fisher's (1921).
    """
    first = np.arange(len(x)) % 2 == 0
    distance = np.empty(len(x))
    for half in (first, ~first):
        fittest = np.argsort(-fitness[~half], kind="stable")[: max(round(_BEST * (~half).sum()), 1)]
        distance[half] = np.sqrt(((x[half] - x[~half][fittest].mean(axis=0)) ** 2).sum(axis=1))
    correlation = float(np.corrcoef(distance, fitness)[0, 1])
    middle, half_width = math.atanh(max(min(correlation, 0.999999), -0.999999)), 1.959964 / math.sqrt(len(x) - 3)
    return distance, correlation, math.tanh(middle - half_width), math.tanh(middle + half_width)
