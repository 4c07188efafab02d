"""The newest sampled genome of each individual of a run, for the colours of its tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import nearest_marked
from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.analysis.phylogeny.records import Ints
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.frames import Frame

__all__ = ["GENOMES", "MOST_GENOMES", "Genomes", "Sampled", "genome_traits"]

GENOMES: Final = {"evolutionary_events": "genome_data"}
"""By stream of births: the stream of samples of genomes, which name the individual as the births do."""
MOST_GENOMES: Final = 1_000_000
"""Individuals whose genome is kept, of some 40 bytes each; beyond it, those of others are not taken."""
_ID: Final = "cell_id"
_TRAITS: Final = tuple(name for name, kind in CATALOG["genome_data"].fields.items() if kind == "float32")
_JOINED: Final = 65_536
"""Samples that wait to be joined."""


def genome_traits(births: str) -> tuple[str, ...]:
    """Numbers in the genomes of those whose births are in a stream; none where genomes are not sampled."""
    return _TRAITS if births in GENOMES else ()


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """One trait of those whose genome was sampled: their ids in order, and its values."""

    ids: Ints
    values: NDArray[np.float32]

    def of(self, population: Population) -> NDArray[np.float64]:
        """The trait of each individual: its own, or that of the nearest ancestor along first parents; else NaN."""
        own = np.full(len(population), np.nan)
        if len(self.ids):
            place = np.minimum(np.searchsorted(self.ids, population.ids), len(self.ids) - 1)
            own = np.where(self.ids[place] == population.ids, self.values[place].astype(np.float64), np.nan)
        known = np.isfinite(own)
        near = nearest_marked(population.first, known)
        return np.where(known | (near < 0), own, own[near])


class Genomes:
    """Samples of one run, of which `newest` gives a trait."""

    def __init__(self, run: str, *, most: int = MOST_GENOMES) -> None:
        self.run = run
        self.left_out = 0
        """Samples that were not taken, because so many others are kept."""
        self._most = most
        self._ids: Ints = np.zeros(0, np.int64)
        self._values: NDArray[np.float32] = np.zeros((0, len(_TRAITS)), np.float32)
        self._fresh: list[tuple[Ints, NDArray[np.float32]]] = []
        self._waiting = 0

    def add(self, frame: Frame) -> None:
        """Take the samples of a frame."""
        if not frame.num_rows or not frame.has(_ID):
            return
        values = np.full((frame.num_rows, len(_TRAITS)), np.nan, np.float32)
        for place, name in enumerate(_TRAITS):
            if frame.has(name):
                values[:, place] = frame.column(name).to_numpy(zero_copy_only=False)
        ids = frame.column(_ID)
        named = np.asarray(ids.is_valid())
        self._fresh.append((ids.fill_null(0).to_numpy(zero_copy_only=False)[named].astype(np.int64), values[named]))
        self._waiting += len(values)
        if self._waiting >= _JOINED:
            self._join()

    def newest(self, trait: str) -> Sampled:
        """A trait of everyone who was sampled, by the newest sample of each."""
        self._join()
        return Sampled(self._ids, self._values[:, _TRAITS.index(trait)].copy())

    def _join(self) -> None:
        if not self._fresh:
            return
        ids = np.concatenate([self._ids, *(ids for ids, _ in self._fresh)])
        values = np.concatenate([self._values, *(values for _, values in self._fresh)])
        self._fresh, self._waiting = [], 0
        order = np.argsort(ids, kind="stable")
        last = np.append(ids[order][1:] != ids[order][:-1], True)
        newest = order[last]
        if len(newest) > self._most:
            # Those who are kept stay, so that no colour comes and goes.
            known = np.isin(ids[newest], self._ids)
            room = self._most - int(known.sum())
            taken = known | (np.cumsum(~known) <= room)
            self.left_out += int((~taken).sum())
            newest = newest[taken]
        self._ids, self._values = ids[newest], values[newest]
