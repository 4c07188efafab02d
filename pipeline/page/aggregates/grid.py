"""Counts and sums of events by group and bucket of time: the one form of everything that a chart shows.

A line is a grid of one group, a stacked chart has a group for each type, a heat map one for each class of values. The
size of a grid does not depend on how many events went into it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.axis import BUCKETS, EMPTY, Axis

__all__ = ["Classes", "Grid", "add", "moved"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Number of values and their sums, each of shape [groups, BUCKETS]."""

    counts: NDArray[np.int64]
    totals: NDArray[np.float64]

    @classmethod
    def of(cls, groups: int) -> Self:
        """A grid without events."""
        return cls(np.zeros((groups, BUCKETS), np.int64), np.zeros((groups, BUCKETS)))

    def means(self) -> NDArray[np.float64]:
        """Mean by group and bucket; NaN without values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.totals / np.where(self.counts, self.counts, np.nan)


def add(
    grid: Grid, positions: NDArray[np.int64], groups: NDArray[np.int64] | None, values: NDArray[np.float64] | None
) -> Grid:
    """The grid with more events: their buckets, groups (negative: none, left out), and values.

    Without ``groups`` all are of the first; without ``values`` events are only counted. An event whose value is NaN
    or infinite is left out.
    """
    kept = np.ones(len(positions), bool) if groups is None else groups >= 0
    if values is not None:
        kept &= np.isfinite(values)
    if not kept.all():
        positions = positions[kept]
        groups = None if groups is None else groups[kept]
        values = None if values is None else values[kept]
    flat = positions if groups is None else groups * BUCKETS + positions
    shape = grid.counts.shape
    size = shape[0] * BUCKETS
    counts = grid.counts + np.bincount(flat, minlength=size).reshape(shape)
    if values is None:
        return replace(grid, counts=counts)
    return Grid(counts, grid.totals + np.bincount(flat, values, minlength=size).reshape(shape))


def moved(grid: Grid, axis: Axis, to: Axis) -> Grid:
    """The grid by the buckets of another axis, which covers all of the first."""
    if axis is EMPTY:
        return grid
    return Grid(axis.moved(grid.counts, to), axis.moved(grid.totals, to))


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes of values between two bounds, of equal ratio or of equal width. Of equal ratio both are above 0."""

    low: float
    high: float
    by_ratio: bool = False
    number: int = 24

    def bounds(self) -> list[float]:
        """The ``number + 1`` bounds of the classes."""
        make = np.geomspace if self.by_ratio else np.linspace
        return [float(each) for each in make(self.low, self.high, self.number + 1)]

    def of(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Class of each value; those beyond the bounds are in the first or the last, NaN in none (-1)."""
        inner = np.asarray(self.bounds()[1:-1])
        return np.where(np.isnan(values), -1, np.searchsorted(inner, values, side="right"))
