"""The values by which the lines of a tree can be coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.page.tree.genomes import Sampled

__all__ = ["GENERATION", "colours_of", "range_of", "values_of"]

GENERATION: Final = "generation"
_EXTREMES: Final = (1.0, 99.0)
"""Percentiles between which colours change: a few extreme values would leave one colour for all others."""


def colours_of(population: Population, genome: Sequence[str] = ()) -> list[str]:
    """Names of the values: the generation, the traits that the births have, and those of genomes."""
    born = (name for name, values in population.traits.items() if np.isfinite(values).any())
    return [GENERATION, *born, *genome]


def values_of(population: Population, name: str, sampled: Sampled | None = None) -> NDArray[np.float64]:
    """A value of each individual, by default its generation; NaN where it is not known.

    ``sampled`` is the value by that name in genomes.
    """
    if sampled is not None:
        return sampled.of(population)
    if name in population.traits:
        return population.traits[name].astype(np.float64)
    known = np.where(population.generation >= 0, population.generation, population.depth)
    return known.astype(np.float64)


def range_of(values: NDArray[Any]) -> tuple[float, float] | None:
    """Values of the lowest and highest colour, whole ones where all are whole; None without values."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, _EXTREMES)
    if (known == np.rint(known)).all():
        low, high = np.floor(low), np.ceil(high)
    return float(low), float(high)
