"""The genealogy of the living: their ancestors up to the last one that they all share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.descent import Descent
from astrocyte.agents.insight.rows import NO_ID

__all__ = ["Genealogy"]


@dataclass(frozen=True, slots=True, eq=False)
class Genealogy:
    """The living and those of the dead that are ancestors of them, ordered by id; arrays of shape [nodes].

    An individual that outlives a birth goes on as the same node. Nodes above the last common ancestor are left out, so
    that the size is bounded by the living and the generations since that ancestor.
    """

    ids: NDArray[np.int64]
    parent: NDArray[np.int64]
    """Id of the parent; `NO_ID` for a founder."""
    born_us: NDArray[np.int64]
    alive: NDArray[np.bool_]

    @classmethod
    def empty(cls) -> Self:
        """The genealogy of nobody."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, np.empty(0, np.bool_))

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The genealogy of a state; of an empty one, the genealogy of nobody."""
        return cls(state["ids"], state["parent"], state["born_us"], state["alive"]) if state else cls.empty()

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {"ids": self.ids, "parent": self.parent, "born_us": self.born_us, "alive": self.alive}

    def extended(self, descent: Descent) -> Self:
        """The genealogy after a window. ``descent`` began with the living of this one. O(n log n)."""
        fresh = ~np.isin(descent.ids, self.ids)
        above = descent.parent[fresh]
        parent = np.where(above < 0, NO_ID, descent.ids[np.maximum(above, 0)])
        ids = np.concatenate([self.ids, descent.ids[fresh]])
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        living = np.sort(descent.ids[descent.alive])
        place = np.minimum(np.searchsorted(living, ids), max(len(living) - 1, 0))
        alive = living[place] == ids if len(living) else np.zeros(len(ids), np.bool_)
        whole = type(self)(
            ids,
            np.concatenate([self.parent, parent])[order],
            np.concatenate([self.born_us, descent.born_us[fresh]])[order],
            alive,
        )
        return whole._pruned()

    def above(self) -> NDArray[np.int64]:
        """Index of each node's parent; -1 where it is not among the nodes."""
        if not len(self.ids):
            return np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(self.ids, self.parent), len(self.ids) - 1)
        return np.where(self.ids[place] == self.parent, place, -1)

    def lineages(self) -> NDArray[np.int64]:
        """Number of the living of each lineage: of those that descend from one root."""
        up = self.above()
        root = np.where(up < 0, np.arange(len(up)), up)
        while not (root[root] == root).all():
            root = root[root]
        counts = np.bincount(root[self.alive], minlength=len(up))
        return counts[counts > 0]

    def split_us(self) -> int | None:
        """When the lines of the living began to part: the first birth below the last common ancestor.

        None if they have none, or fewer than two live.
        """
        up = self.above()
        roots = np.flatnonzero(up < 0)
        if len(roots) != 1 or self.alive.sum() < 2:
            return None
        return int(self.born_us[up == roots[0]].min())

    def _pruned(self) -> Self:
        up = self.above()
        kids = np.bincount(up[up >= 0], minlength=len(up))
        kept = np.ones(len(up), np.bool_)
        leaves = np.flatnonzero(~self.alive & (kids == 0))
        while len(leaves):
            kept[leaves] = False
            parents = up[leaves]
            parents = parents[parents >= 0]
            np.subtract.at(kids, parents, 1)
            parents = np.unique(parents)
            leaves = parents[~self.alive[parents] & (kids[parents] == 0)]
        roots = np.flatnonzero(kept & (up < 0))
        if len(roots) == 1:
            below = np.full(len(up), -1)
            child = np.flatnonzero(kept & (up >= 0))
            below[up[child]] = child
            root = int(roots[0])
            while not self.alive[root] and kids[root] == 1:
                kept[root] = False
                root = int(below[root])
        return type(self)(self.ids[kept], self.parent[kept], self.born_us[kept], self.alive[kept])
