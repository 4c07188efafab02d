"""Everyone of one run whose birth is known, as arrays, while events come and within a bound of memory."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import add_to_ancestors, mark_ancestors
from astrocyte.pipeline.analysis.phylogeny.population import Population, population_of, records_of
from astrocyte.pipeline.analysis.phylogeny.records import NONE, Ints, InvalidLineage, Pedigree, Records
from astrocyte.schemas.frames import Frame

__all__ = ["MOST_INDIVIDUALS", "Forest", "alone"]

MOST_INDIVIDUALS: Final = 1_250_000
"""Individuals that are kept, of some 60 bytes each; beyond it, lines that have died out are only counted."""
_SETTLED_US: Final = 60_000_000
_SETTLED_SHARE: Final = 1 / 16
"""A line that has died out is let go this long after its last death, or after this share of the run if that is shorter:
other partitions may still tell of it."""


def alone(population: Population) -> Ints:
    """Second parents of a tree along first parents: none."""
    return np.full(len(population), NONE, np.int64)


class Forest:
    """The individuals of one run and stream. `build` joins what `add` took, so that nothing is kept twice."""

    def __init__(self, pedigree: Pedigree, run: str, *, most: int = MOST_INDIVIDUALS) -> None:
        self.pedigree = pedigree
        self.run = run
        self.population: Population | None = None
        self.extinct: Ints = np.zeros(0, np.int64)
        """By row: individuals that were let go, which descend from it and from no other row below it."""
        self.version = 0
        self.released = 0
        """Individuals that were let go, because their line had died out."""
        self.released_until_us: int | None = None
        """Before this instant lines that had died out are missing; None if none is."""
        self.problem = ""
        """Why no more is taken; empty while all is well."""
        self._most = most
        self._fresh = Records()

    @property
    def events(self) -> int:
        """Events that wait for `build`."""
        return self._fresh.events

    def add(self, frame: Frame) -> None:
        """Take the events of a frame."""
        if self.problem:
            return
        try:
            self._fresh.add_frame(self.pedigree, frame)
        except InvalidLineage as error:
            self.problem = str(error)
        if self._fresh.events >= self._most // 2:
            self.build()

    def build(self) -> None:
        """Join what was taken since the last time; births that cannot be are a `problem`, after which none is taken."""
        fresh, self._fresh = self._fresh, Records()
        if not fresh.events or self.problem:
            return
        before = self.population
        records = fresh
        if before is not None:
            records = records_of(before)
            records.extend(fresh)
        try:
            population = population_of(records, self.pedigree)
        except InvalidLineage as error:
            self.problem = str(error)
            return
        extinct = np.zeros(len(population), np.int64)
        if before is not None and self.released:
            order = np.argsort(population.ids)
            extinct[order[np.searchsorted(population.ids, before.ids, sorter=order)]] = self.extinct
        self._keep(population, extinct)

    def _keep(self, population: Population, extinct: Ints) -> None:
        if len(population) > self._most:
            population, extinct = self._without_extinct(population, extinct)
        if len(population) > self._most:
            self.problem = (
                f"more than {self._most:,} {self.pedigree.individual}s live or have living descendants; later births "
                "are not drawn"
            )
        self.population, self.extinct = population, extinct
        self.version += 1

    def _without_extinct(self, population: Population, extinct: Ints) -> tuple[Population, Ints]:
        """The individuals without the lines that died out some time ago, which their last living ancestors count."""
        span_us = population.at_us - population.first_us
        settled_us = population.at_us - min(_SETTLED_US, int(span_us * _SETTLED_SHARE))
        kept: NDArray[np.bool_] = population.died_us > settled_us
        mark_ancestors(population.first, population.second, kept)
        gone = np.where(kept, 0, 1 + extinct)
        below = add_to_ancestors(population.first, gone)
        tops = np.flatnonzero(~kept & (population.first >= 0))
        tops = tops[kept[population.first[tops]]]
        extinct = extinct.copy()
        np.add.at(extinct, population.first[tops], below[tops])
        self.released += int((~kept).sum())
        self.released_until_us = settled_us
        return population.take(kept), extinct[kept]
