"""One individual of a tree: its birth and death, its ancestors, and its children."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from astrocyte.pipeline.analysis.phylogeny.population import NEVER_US, Population
from astrocyte.pipeline.page.tree.forest import Forest
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["line_of", "relatives"]

_MOST_ANCESTORS: Final = 200
_MOST_CHILDREN: Final = 50


def relatives(forest: Forest | None, number: int, at_us: int | None) -> dict[str, Any]:
    """What the births tell of the individual with this id.

    ``individual``, ``ancestors`` from its mother to the founder, and ``children`` in the order of their births. Of long
    lists the nearest are given, and ``more_ancestors`` and ``more_children`` count the others. Raises InvalidSettings
    for an id that is not in the tree, such as one of a line that died out and was let go.
    """
    individual, population, (row, *above) = _line(forest, number)
    until_us = population.at_us if at_us is None else at_us
    children = np.flatnonzero((population.first == row) & (population.origin_us <= until_us))
    second = int(population.second[row])
    return {
        "kind": individual,
        "individual": _about(population, row),
        "second_parent": None if second < 0 else str(population.ids[second]),
        "ancestors": [_about(population, each) for each in above[:_MOST_ANCESTORS]],
        "more_ancestors": max(len(above) - _MOST_ANCESTORS, 0),
        "children": [_about(population, int(each)) for each in children[:_MOST_CHILDREN]],
        "more_children": max(len(children) - _MOST_CHILDREN, 0),
    }


def line_of(forest: Forest | None, number: int) -> tuple[str, list[int]]:
    """What an individual is, and its id and those of its ancestors along first parents, the nearest first.

    Raises InvalidSettings for an id that is not in the tree.
    """
    individual, population, rows = _line(forest, number)
    return individual, [int(population.ids[row]) for row in rows]


def _line(forest: Forest | None, number: int) -> tuple[str, Population, list[int]]:
    """What it is, the population, and the rows of the individual and its ancestors."""
    population = None if forest is None else forest.population
    place = np.zeros(0, np.int64) if population is None else np.flatnonzero(population.ids == number)
    if population is None or forest is None or not len(place):
        raise InvalidSettings(f"{number} is not among the individuals whose births were read")
    rows = [int(place[0])]
    while (above := int(population.first[rows[-1]])) >= 0:
        rows.append(above)
    return forest.pedigree.individual, population, rows


def _about(population: Population, row: int) -> dict[str, Any]:
    died_us, generation = int(population.died_us[row]), int(population.generation[row])
    traits = {name: float(values[row]) for name, values in population.traits.items()}
    return {
        "id": str(population.ids[row]),
        "born": int(population.origin_us[row]) if population.born[row] else None,
        "seen": int(population.origin_us[row]),
        "died": None if died_us == NEVER_US else died_us,
        "generation": None if generation < 0 else generation,
        "traits": {name: value for name, value in traits.items() if np.isfinite(value)},
    }
