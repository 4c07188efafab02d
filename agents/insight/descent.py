"""Descent within one window: which individuals lived, who descends from whom, and what was inherited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import NO_ID, Rows, Source, one_of_each

__all__ = ["Descent", "LineageEvents", "descend"]

_ROUNDS: Final = 64
"""Doublings of a path, enough for 2**64 generations in a window: only a circle of parents is longer."""


@dataclass(frozen=True, slots=True)
class LineageEvents:
    """Where births and deaths stand, and the fields of a birth that are changes of traits from parent to child."""

    stream: str = "evolutionary_events"
    child: str = "cell_id"
    parent: str = "parent_id"
    birth: str = "birth"
    death: str = "death"
    changes: tuple[str, ...] = ("fitness_delta", "generation_gap")

    def source(self) -> Source:
        """What is read: births have kind 0, deaths 1."""
        return Source(self.stream, (self.child, self.parent), self.changes, (self.birth, self.death))


@dataclass(frozen=True, slots=True)
class Descent:
    """Individuals that lived in one window: first those of its start, shape [start], then those born in it.

    Ids of both parts ascend. ``ancestor`` [n] is the index of the individual of the start from which each descends
    (itself, at the start), ``parent`` [n] that of the parent (-1 at the start). ``value`` [n, k] are the traits,
    ``alive`` [n] who lives at the end. ``founders`` of those at the start were not known before: they were parents or
    died, and their birth had not been seen; their traits are 0. ``refused`` births have no child or parent, are of a
    child that is known already, or make a circle.
    """

    ids: NDArray[np.int64]
    start: int
    ancestor: NDArray[np.int64]
    parent: NDArray[np.int64]
    born_us: NDArray[np.int64]
    value: NDArray[np.float64]
    alive: NDArray[np.bool_]
    founders: int
    refused: int

    @property
    def fitness(self) -> NDArray[np.float64]:
        """Number of living descendants of each individual of the start, itself among them; shape [start]."""
        return np.bincount(self.ancestor[self.alive], minlength=self.start).astype(np.float64)


def descend(ids: NDArray[np.int64], value: NDArray[np.float64], events: LineageEvents, rows: Rows) -> Descent:
    """Descent in one window from the living of its start, ``ids`` [n] ascending and ``value`` [n, k], and its events.

    A birth may precede that of its parent. O(m log m) in the events and the living.
    """
    births, deaths = rows.take(rows.kind == 0), rows.take(rows.kind == 1)
    born, refused = _usable_births(ids, births, events)
    child, parent = born[events.child], born[events.parent]
    dead = deaths[events.child]
    dead = dead[dead != NO_ID]
    named = np.unique(np.concatenate([parent, dead]))
    fresh = named[~_within(named, ids) & ~_within(named, child)]
    start_ids = np.concatenate([ids, fresh])
    start_value = np.concatenate([value, np.zeros((len(fresh), value.shape[1]))])
    order = np.argsort(start_ids, kind="stable")
    start_ids, start_value = start_ids[order], start_value[order]
    start = len(start_ids)
    change = np.stack([born[name] for name in events.changes], axis=1) if events.changes else np.zeros((len(child), 0))
    change = np.where(np.isfinite(change), change, 0.0)
    up = np.concatenate([np.arange(start), _index(start_ids, child, parent)])
    above = np.concatenate([np.full(start, -1), up[start:]])
    total = np.concatenate([np.zeros_like(start_value), change])
    for _ in range(_ROUNDS):
        if (up < start).all():
            break
        # Each individual points two steps further up, with the changes on the way added.
        total, up = total + np.where((up >= start)[:, None], total[up], 0.0), up[up]
    in_circle = up >= start
    if in_circle.any():  # its parents are its own descendants: nothing can be said of it
        keep = np.flatnonzero(~in_circle[start:])
        refused += int(in_circle.sum())
        trimmed = descend(start_ids, start_value, events, Rows.concat([born.take(keep), deaths]))
        return Descent(trimmed.ids, trimmed.start, trimmed.ancestor, trimmed.parent, trimmed.born_us, trimmed.value,
                       trimmed.alive, len(fresh) + trimmed.founders, refused + trimmed.refused)  # fmt: skip
    everyone = np.concatenate([start_ids, child])
    return Descent(
        everyone,
        start,
        up,
        above,
        np.concatenate([np.full(start, NO_ID), born.t]),
        start_value[up] + total,
        ~_within(everyone, np.sort(dead)),
        len(fresh),
        refused,
    )


def _usable_births(ids: NDArray[np.int64], births: Rows, events: LineageEvents) -> tuple[Rows, int]:
    """Births by ascending child, each child once, and how many rows were left out."""
    child, parent = births[events.child], births[events.parent]
    usable = (child != NO_ID) & (parent != NO_ID) & (child != parent) & ~_within(child, ids)
    chosen = np.flatnonzero(usable)
    chosen = chosen[one_of_each(child[chosen])]
    return births.take(chosen), len(births) - len(chosen)


def _within(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each value is among the others, which ascend."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[place] == values
    return found


def _index(start: NDArray[np.int64], child: NDArray[np.int64], parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each parent among those of the start and, after these, the children."""
    born = _within(parent, child)
    place = np.searchsorted(child, parent) + len(start)
    return np.where(born, place, np.searchsorted(start, parent)).astype(np.int64)
