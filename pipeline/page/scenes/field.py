"""The map of the ecology: resources on the tiles and agents, from the samples of both, in squares of a fixed number.

Squares are as wide as the least power of two of tiles with which `SQUARES` of them cover all positions, so that the map
depends on the positions alone, not on the order in which they came.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.axis import EMPTY, Axis
from astrocyte.pipeline.page.aggregates.grid import Grid, add, moved
from astrocyte.schemas.frames import Frame

__all__ = ["SQUARES", "STREAMS", "Field"]

SQUARES: Final = 24
"""Squares along each side of a map, at most."""
STREAMS: Final = ("resource_states", "agent_states")
_MOST_TILES: Final = 1 << 24


class Field:
    """Sums by square and bucket of time, of a size that does not depend on the events."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.tiles = 1
        """Width of a square, tiles."""
        self.sides = (0, 0)
        """Squares along x and y that hold any position."""
        self.axis: Axis = EMPTY
        self._resources = Grid.of(SQUARES * SQUARES)
        self._agents = Grid.of(SQUARES * SQUARES)

    def add(self, frame: Frame) -> None:
        """Take the events of a frame; those without a position on a map are left out."""
        x, y = (_numbers(frame, name) for name in ("position_x", "position_y"))
        there = (x >= 0) & (y >= 0) & (np.maximum(x, y) < _MOST_TILES)
        if not there.any():
            return
        x, y, times_us = x[there], y[there], frame.timestamps()[there]
        self._cover(float(x.max()), float(y.max()))
        axis = self.axis.covering(int(times_us.min()), int(times_us.max()))
        if (axis.width_us, axis.first) != (self.axis.width_us, self.axis.first):
            self._resources, self._agents = (moved(each, self.axis, axis) for each in (self._resources, self._agents))
        self.axis = axis
        squares = (y // self.tiles).astype(np.int64) * SQUARES + (x // self.tiles).astype(np.int64)
        places = axis.positions(times_us)
        if frame.stream == STREAMS[0]:
            self._resources = add(self._resources, places, squares, _numbers(frame, "amount")[there])
        else:
            self._agents = add(self._agents, places, squares, _numbers(frame, "resource_level")[there])

    def at(self, at_us: int | None) -> dict[str, Any]:
        """The map at an instant, by default the newest.

        ``columns`` and ``rows`` of squares, each ``tiles`` wide; by square, row by row from y = 0: ``resources``, the
        newest mean of its tiles in the sample (null where it has none yet), and ``agents``, the share of the sampled
        agents that were in it about then; ``most``, the greatest mean of any time, for a scale that stays.
        """
        columns, rows = self.sides
        if self.axis.is_empty:
            return {"columns": 0, "rows": 0}
        last = self.axis.newest_us if at_us is None else min(max(at_us, self.axis.oldest_us), self.axis.newest_us)
        end = int(self.axis.positions(np.array([last]))[0]) + 1
        means = self._resources.means()
        newest = _newest(means[:, :end])
        counted = self._agents.counts[:, :end].any(axis=0)
        # A bucket may lie between two samples: the newest that holds one.
        filled = np.flatnonzero(counted)
        agents = self._agents.counts[:, filled[-1]] if len(filled) else np.zeros(SQUARES * SQUARES, np.int64)
        most = means[np.isfinite(means)]
        return {
            "columns": columns, "rows": rows, "tiles": self.tiles, "at": last,
            "resources": self._cut(newest), "agents": self._cut(agents / max(int(agents.sum()), 1)),
            "most": float(np.percentile(most, 99)) if len(most) else 0.0,
        }  # fmt: skip

    def _cut(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        columns, rows = self.sides
        return np.ascontiguousarray(values.reshape(SQUARES, SQUARES)[:rows, :columns]).ravel()

    def _cover(self, x: float, y: float) -> None:
        """Widen the squares until they cover a position."""
        while max(x, y) >= SQUARES * self.tiles:
            self.tiles *= 2
            self._resources, self._agents = (_halved(each) for each in (self._resources, self._agents))
            self.sides = ((self.sides[0] + 1) // 2, (self.sides[1] + 1) // 2)
        self.sides = (max(self.sides[0], int(x // self.tiles) + 1), max(self.sides[1], int(y // self.tiles) + 1))


def _numbers(frame: Frame, name: str) -> NDArray[np.float64]:
    if not frame.has(name):
        return np.full(frame.num_rows, np.nan)
    return np.asarray(frame.column(name).to_numpy(zero_copy_only=False), np.float64)


def _halved(grid: Grid) -> Grid:
    """Squares joined two by two in both directions."""

    def joined(values: NDArray[Any]) -> NDArray[Any]:
        square = values.reshape(SQUARES // 2, 2, SQUARES // 2, 2, -1).sum(axis=(1, 3))
        whole = np.zeros((SQUARES, SQUARES, square.shape[-1]), values.dtype)
        whole[: SQUARES // 2, : SQUARES // 2] = square
        return whole.reshape(values.shape)

    return Grid(joined(grid.counts), joined(grid.totals))


def _newest(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last value of each row that is one; NaN where there is none."""
    known = np.isfinite(means)
    last = means.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), means[np.arange(len(means)), last], np.nan)
