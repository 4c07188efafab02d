"""A tree laid out: a line for each individual, from birth to death, above each other in the order of their clades.

Rows of the picture are counted from the top in leaves. A leaf is who lives at the instant of the tree; where lines that
died out are shown too, also who left no children. The clade of an individual (itself and its descendants) has one row
for each of its leaves, its own the last, and the line of who is no leaf is in the middle of its clade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import add_to_ancestors, latest_below, mark_ancestors, postorder
from astrocyte.pipeline.analysis.phylogeny.population import NEVER_US, Population
from astrocyte.pipeline.analysis.phylogeny.records import Ints
from astrocyte.pipeline.page.tree.forest import alone

__all__ = ["Layout", "lay_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Individuals of a tree as arrays, parents before their children."""

    tree: Population
    """The individuals that are drawn."""
    is_leaf: NDArray[np.bool_]
    first_row: Ints
    """Topmost row of the clade."""
    leaves: Ints
    """Rows of the clade."""
    end_us: Ints
    """Death, or the instant of the tree."""
    clade_end_us: Ints
    """The last instant at which anyone of the clade lives."""
    extinct: Ints
    """Descendants that are not drawn, because their lines died out."""

    @property
    def rows(self) -> int:
        """Rows of the picture."""
        return int(self.is_leaf.sum())

    @property
    def at_us(self) -> int:
        """The instant of the tree."""
        return self.tree.at_us

    def middle(self) -> NDArray[np.float64]:
        """Row of the line of each individual, in the middle of a row where that is its own."""
        own = self.first_row + self.leaves - 0.5
        return np.where(self.is_leaf, own, self.first_row + self.leaves / 2)


def lay_out(population: Population, extinct: Ints, at_us: int | None = None, *, with_extinct: bool = False) -> Layout:
    """The tree at an instant, by default the last one, along first parents.

    ``extinct`` counts, by row, individuals that are not in the population. Without ``with_extinct`` the tree is that
    of the living and their ancestors; it has no rows while nobody lives.
    """
    if at_us is not None and at_us < population.at_us:
        there = population.origin_us <= at_us
        population, extinct = population.at(at_us), extinct[there]
    drawn = population.living.copy()
    mark_ancestors(population.first, alone(population), drawn)
    if with_extinct:
        drawn[:] = True
    everyone = add_to_ancestors(population.first, 1 + extinct)
    tree = population.take(drawn)
    shown = add_to_ancestors(tree.first, np.ones(len(tree), np.int64))
    is_leaf = tree.living
    if with_extinct:
        children = np.bincount(tree.first[tree.first >= 0], minlength=len(tree))
        is_leaf = is_leaf | (children == 0)
    leaves = add_to_ancestors(tree.first, is_leaf.astype(np.int64))
    end_us = np.where(tree.died_us == NEVER_US, population.at_us, np.minimum(tree.died_us, population.at_us))
    return Layout(
        tree, is_leaf, postorder(tree.first, leaves), leaves, end_us, latest_below(tree.first, end_us),
        everyone[drawn] - shown,
    )  # fmt: skip
