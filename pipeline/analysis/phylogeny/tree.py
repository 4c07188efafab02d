"""The phylogeny of one run: pruned, summarised, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import add_to_ancestors, mark_ancestors
from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.analysis.phylogeny.records import NONE, Ints, InvalidLineage, Pedigree
from astrocyte.pipeline.analysis.phylogeny.write import LENGTHS, Length, csv_blocks, form_of, newick_blocks, write_file
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.times import iso_from_us

__all__ = ["Mrca", "Phylogeny", "Statistics"]


@dataclass(frozen=True, slots=True)
class Mrca:
    """The most recent common ancestor of all who live."""

    id: int
    depth: int
    """Births between it and its founder."""
    generation: int | None
    origin_us: int
    """Time of its birth, in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Shape of the tree of those who live and their ancestors, whose tips have no living descendant."""

    tips: int
    sackin: int
    """Sum over the tips of their branching ancestors (those with two children or more in the tree)."""
    colless: int | None
    """Sum over the branching ancestors of the difference of the tips on both sides; None if one has more than two."""
    total_length: float
    """Sum of the lengths of all branches (Faith's phylogenetic diversity)."""
    mean_pair_distance: float | None
    """Mean length of the way between two tips; None with fewer than two tips, or with several founders."""


@dataclass(frozen=True)
class Phylogeny:
    """Who descends from whom in one run of one stream, as `pipeline.analysis.phylogeny.phylogeny` reads it."""

    pedigree: Pedigree
    run: str
    everyone: Population
    """All who were born by the instant of the tree."""
    pruned: bool
    """Whether the tree holds only those who live and their ancestors."""
    notes: tuple[str, ...] = ()
    """What the source lacks, a sentence each."""

    @cached_property
    def tree(self) -> Population:
        """The individuals of the tree, parents before their children. Raises InvalidLineage for an empty one."""
        return self._of_living if self.pruned else self.everyone

    @cached_property
    def _of_living(self) -> Population:
        marked = self.everyone.living
        if not marked.any():
            raise InvalidLineage(
                f"no {self.pedigree.individual} of run {self.run!r} lives at {iso_from_us(self.everyone.at_us)}: "
                "nothing is left of the pruned tree; choose an earlier instant (--at), or the whole tree (--all)"
            )
        mark_ancestors(self.everyone.first, self.everyone.second, marked)
        return self.everyone.take(marked)

    def with_first_parents(self) -> Phylogeny:
        """The same with the first parent of each only."""
        alone = replace(self.everyone, second=np.full(len(self.everyone), NONE, np.int64))
        return replace(self, everyone=alone)

    def table(self) -> pa.Table:
        """The tree as a table of the ALife data standard, parents before their children.

        ``id`` (int64), ``ancestor_list`` (list of int64, empty for founders), ``origin_time`` and ``destruction_time``
        (int64, event time in microseconds since 1970; the latter null for the living), ``generation`` (int32),
        the traits of the birth (float32) and ``simulation_id``.
        """
        tree = self.tree
        both = np.stack([tree.first, tree.second], axis=1)
        named = both >= 0
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(named.sum(axis=1), dtype=np.int32)])
        columns: dict[str, Any] = {
            "id": pa.array(tree.ids),
            "ancestor_list": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tree.ids[both[named]])),
            "origin_time": pa.array(tree.origin_us),
            "destruction_time": pa.array(tree.died_us, mask=tree.living),
            "generation": pa.array(tree.generation, mask=tree.generation < 0),
        }
        columns |= {name: pa.array(values, mask=np.isnan(values)) for name, values in tree.traits.items()}
        run = pa.array([self.run], pa.utf8())
        columns["simulation_id"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(tree), np.int32)), run)
        return pa.table(columns)

    def newick(self, length: Length = "time") -> Iterator[bytes]:
        """The tree as Newick text, block by block: a tree a line for each founder, every individual with its id.

        The length of a branch is that from the parent's birth to the child's: in seconds, or in generations. Raises
        InvalidLineage if individuals have two parents.
        """
        tree = self.tree
        two = np.flatnonzero(tree.second >= 0)
        if len(two):
            row = two[0]
            raise InvalidLineage(
                f"{len(two):,} {self.pedigree.individual}s have two parents, such as {tree.ids[row]} with "
                f"{tree.ids[tree.first[row]]} and {tree.ids[tree.second[row]]}, and Newick holds trees only; write "
                "CSV, which holds both, or keep the first parent of each (--first-parent)"
            )
        return newick_blocks(tree.ids, tree.first, _lengths(tree, length), length)

    def write(self, path: str | Path, *, length: Length = "time") -> None:
        """Write the tree as the file's suffix says: ``.csv``, ``.nwk`` or ``.newick``, ``.parquet``, ``.arrow``.

        A file of that name is replaced. ``length`` is the unit of branches in Newick. Raises InvalidSettings, and
        InvalidLineage where Newick cannot hold the tree.
        """
        form = form_of(Path(path))
        if form == "newick":
            write_file(Path(path), self.newick(length))
        else:
            table = self.table()
            write_file(Path(path), csv_blocks(table) if form == "csv" else table)

    @cached_property
    def mrca(self) -> Mrca | None:
        """The most recent common ancestor of the living: None with several founders, and with two parents."""
        tree = self._of_living
        if (tree.first < 0).sum() != 1 or (tree.second >= 0).any():
            return None
        living = add_to_ancestors(tree.first, tree.living.astype(np.int64))
        row = int(np.flatnonzero(living == living[0])[-1])  # the last of a chain that begins with the founder
        generation = int(tree.generation[row])
        return Mrca(
            int(tree.ids[row]), int(tree.depth[row]), None if generation < 0 else generation, int(tree.origin_us[row])
        )

    def statistics(self, length: Length = "time") -> Statistics | None:
        """Shape of the pruned tree, with lengths in seconds or generations; None with two parents, or if all died."""
        if not self.everyone.living.any() or (self._of_living.second >= 0).any():
            return None
        tree = self._of_living
        n, child = len(tree), np.flatnonzero(tree.first >= 0)
        children = np.bincount(tree.first[child], minlength=n)
        tips = add_to_ancestors(tree.first, (children == 0).astype(np.int64))
        branching = children >= 2
        colless = None
        if not (children > 2).any():
            one_side = np.zeros(n, np.int64)
            one_side[tree.first[child]] = tips[child]
            colless = int(np.abs(tips - 2 * one_side)[branching].sum())
        unit = 1e-6 if length == "time" else 1.0
        lengths = _lengths(tree, length).astype(np.float64) * unit
        count = int((children == 0).sum())
        distance = None
        if count > 1 and n - len(child) == 1:
            below = tips.astype(np.float64)
            distance = float((lengths * below * (count - below)).sum() * 2 / (count * (count - 1)))
        return Statistics(count, int(tips[branching].sum()), colless, float(lengths.sum()), distance)

    def summary(self, length: Length = "time") -> dict[str, Any]:
        """Counts, the most recent common ancestor and the statistics, as JSON values."""
        everyone, living = self.everyone, self.everyone.living
        alive = int(living.sum())
        founders = everyone.first < 0
        mrca, shape = (self.mrca if alive else None), self.statistics(length)
        return {
            "stream": self.pedigree.stream,
            "run": self.run,
            "from": iso_from_us(everyone.first_us),
            "at": iso_from_us(everyone.at_us),
            "births": int(everyone.born.sum()),
            "founders": int(founders.sum()),
            "founders_without_birth": int((founders & ~everyone.born & (everyone.generation != 0)).sum()),
            "deaths": len(everyone) - alive,
            "living": alive,
            "lineages": int((self._of_living.first < 0).sum()) if alive else 0,
            "written": len(self.tree),
            "mrca": None
            if mrca is None
            else {
                "id": mrca.id,
                "depth": mrca.depth,
                "generation": mrca.generation,
                "origin_time": iso_from_us(mrca.origin_us),
                "before_end_s": (everyone.at_us - mrca.origin_us) / 1e6,
            },
            "tree": None if shape is None else _named(shape, length),
            "notes": list(self.notes),
        }


def _named(shape: Statistics, length: Length) -> Mapping[str, Any]:
    return {
        "tips": shape.tips,
        "sackin": shape.sackin,
        "colless": shape.colless,
        "length_in": "seconds" if length == "time" else "generations",
        "total_length": shape.total_length,
        "mean_pair_distance": shape.mean_pair_distance,
    }


def _lengths(tree: Population, length: Length) -> Ints:
    if length not in LENGTHS:
        raise InvalidSettings(f"length: expected {' or '.join(LENGTHS)}, got {length!r}")
    child = tree.first >= 0
    lengths = np.zeros(len(tree), np.int64)
    if length == "time":
        lengths[child] = tree.origin_us[child] - tree.origin_us[tree.first[child]]
        return lengths
    own: NDArray[np.int64] = tree.generation[child].astype(np.int64)
    before = tree.generation[tree.first[child]].astype(np.int64)
    lengths[child] = np.where((own >= 0) & (before >= 0), own - before, 1)
    if (lengths < 0).any():
        row = int(np.flatnonzero(lengths < 0)[0])
        raise InvalidLineage(
            f"{tree.ids[row]} has generation {tree.generation[row]}, its parent {tree.ids[tree.first[row]]} "
            f"{tree.generation[tree.first[row]]}; expected no fall of the generation from parent to child"
        )
    return lengths
