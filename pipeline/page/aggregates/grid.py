"""Counts and sums of events by group and bucket of time: the one form of everything that a chart shows.

A line is a grid of one group, a stacked chart has a group for each type, a heat map one for each class of values. The
size of a grid does not depend on how many events went into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.axis import BUCKETS, EMPTY, Axis
from astrocyte.pipeline.page.aggregates.spread import Spread

__all__ = ["Classes", "Grid", "add", "moved"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Number of values and their sums, each of shape [groups, BUCKETS]; the lowest, highest and last where kept."""

    counts: NDArray[np.int64]
    totals: NDArray[np.float64]
    spread: Spread | None = None

    @classmethod
    def of(cls, groups: int) -> Self:
        """A grid without events."""
        return cls(np.zeros((groups, BUCKETS), np.int64), np.zeros((groups, BUCKETS)))

    def means(self) -> NDArray[np.float64]:
        """Mean by group and bucket; NaN without values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.totals / np.where(self.counts, self.counts, np.nan)


def add(
    grid: Grid,
    positions: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    values: NDArray[np.float64] | None,
    times_us: NDArray[np.int64] | None = None,
) -> Grid:
    """The grid with more events: their buckets, groups (negative: none, left out), and values.

    Without ``groups`` all are of the first; without ``values`` events are only counted. An event whose value is NaN
    or infinite is left out. With ``times_us``, the time of each event, the lowest, highest and last values are kept.
    """
    kept = np.ones(len(positions), bool) if groups is None else groups >= 0
    if values is not None:
        kept &= np.isfinite(values)
    if not kept.all():
        positions = positions[kept]
        groups = None if groups is None else groups[kept]
        values = None if values is None else values[kept]
        times_us = None if times_us is None else times_us[kept]
    flat = positions if groups is None else groups * BUCKETS + positions
    shape = grid.counts.shape
    size = shape[0] * BUCKETS
    counts = grid.counts + np.bincount(flat, minlength=size).reshape(shape)
    if values is None:
        return Grid(counts, grid.totals, grid.spread)
    totals = grid.totals + np.bincount(flat, values, minlength=size).reshape(shape)
    spread = grid.spread
    if times_us is not None:
        spread = (spread or Spread.of(shape[0])).added(flat, values, times_us)
    return Grid(counts, totals, spread)


def moved(grid: Grid, axis: Axis, to: Axis) -> Grid:
    """The grid by the buckets of another axis, which covers all of the first."""
    if axis is EMPTY:
        return grid
    spread = None if grid.spread is None else grid.spread.moved(axis, to)
    return Grid(axis.moved(grid.counts, to), axis.moved(grid.totals, to), spread)


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
