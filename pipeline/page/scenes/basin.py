"""Kernels in their basin: where each is in eight dimensions and how it came there, seen in the two that tell the most.

The plane is that of the two first principal components of all positions of the run (Pearson 1901), from their means and
products of pairs. A component is turned so that its largest coordinate is positive, so that equal runs give equal
pictures.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.frames import Frame

__all__ = ["MOST_POSITIONS", "STREAMS", "Basin"]

STREAMS: Final = ("kernel_geometry",)
MOST_POSITIONS: Final = 200_000
"""Positions that are kept, of some 60 bytes each; beyond it fewer of each kernel."""
_MOST_WAITING: Final = 20_000
_LEAST_US: Final = 10_000
_DIMENSIONS: Final = 8
_MOST_TRAILS: Final = 400
"""Kernels of which a trail is drawn: those that moved last."""
_MOST_DOTS: Final = 3_000
_TRAIL: Final = 24
"""Positions of a trail."""
_RETIRED: Final = "retired"


class Basin:
    """Positions by kernel and step of time, of which the last in each step is kept; steps grow where there are many."""

    def __init__(self, run: str, *, most: int = MOST_POSITIONS) -> None:
        self.run = run
        self.step_us = _LEAST_US
        self._most = most
        self._count = 0
        self._sum = np.zeros(_DIMENSIONS)
        self._products = np.zeros((_DIMENSIONS, _DIMENSIONS))
        self._kernel = np.zeros(0, np.int64)
        self._time_us = np.zeros(0, np.int64)
        self._place = np.zeros((0, _DIMENSIONS), np.float32)
        self._phi = np.zeros(0, np.float32)
        self._gone = np.zeros(0, np.bool_)
        self._fresh: list[tuple[NDArray[Any], ...]] = []
        self._waiting = 0

    def add(self, frame: Frame) -> None:
        """Take the events of a frame; those whose coordinates are not eight numbers are left out."""
        if not (frame.has("basin_coordinates") and frame.has("kernel_id")):
            return
        kinds = frame.column("type").cast(pa.utf8()).to_numpy(zero_copy_only=False)
        there, places = _places(frame.column("basin_coordinates"))
        if not there.any():
            return
        wide = places.astype(np.float64)
        self._count += len(wide)
        self._sum += wide.sum(axis=0)
        self._products += wide.T @ wide
        phi = frame.column("phi").to_numpy(zero_copy_only=False) if frame.has("phi") else np.full(len(there), np.nan)
        ids = pc.cast(frame.column("kernel_id"), pa.int64()).to_numpy(zero_copy_only=False)
        gone = (kinds == _RETIRED)[there]
        self._fresh.append((ids[there], frame.timestamps()[there], places, phi[there].astype(np.float32), gone))
        self._waiting += len(places)
        if self._waiting > _MOST_WAITING:
            self._join()

    def at(self, at_us: int | None) -> dict[str, Any]:
        """The basin at an instant, by default the newest.

        Of each kernel that was not retired by then, as columns of equal length: ``id``, ``x``, ``y`` and ``phi``; of
        those that moved last also ``trails``, lists of x and y from the oldest position on. ``bounds`` are those of
        all positions of the run, and ``explained`` the shares of their variance along x and y.
        """
        if not self._count:
            return {"id": []}
        self._join()
        mean, axes, explained = self._plane()
        points = (self._place - mean) @ axes
        bounds = [*points.min(axis=0), *points.max(axis=0)]
        order = np.lexsort((self._time_us, self._kernel))
        if at_us is not None:
            order = order[self._time_us[order] <= at_us]
        kernel = self._kernel[order]
        ends = np.flatnonzero(np.append(kernel[1:] != kernel[:-1], True)) if len(kernel) else np.zeros(0, np.int64)
        begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
        alive = ~self._gone[order[ends]]
        ends, begins = ends[alive], begins[alive]
        by_time = np.argsort(-self._time_us[order[ends]], kind="stable")[:_MOST_DOTS]
        ends, begins = ends[by_time], begins[by_time]
        rows = order[ends]
        trails = [
            points[order[max(begin, end + 1 - _TRAIL) : end + 1]].ravel().tolist()
            for begin, end in zip(begins[:_MOST_TRAILS], ends[:_MOST_TRAILS], strict=True)
        ]
        return {
            "id": self._kernel[rows].astype(str).tolist(), "x": points[rows, 0], "y": points[rows, 1],
            "phi": self._phi[rows].astype(np.float64), "trails": trails, "living": int(alive.sum()),
            "bounds": [float(each) for each in bounds], "explained": [float(each) for each in explained],
        }  # fmt: skip

    def _plane(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean, the two first components as columns, and their shares of the variance."""
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        first = np.argsort(-values, kind="stable")[:2]
        axes = vectors[:, first]
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.where(axes[largest, [0, 1]] < 0, -1, 1)
        total = max(float(values.sum()), np.finfo(float).tiny)
        return mean, axes, np.maximum(values[first], 0) / total

    def _join(self) -> None:
        """Put the positions that wait to the others, and make room."""
        if not self._fresh:
            return
        kernel, time_us, place, phi, gone = (np.concatenate(parts) for parts in zip(*self._fresh, strict=True))
        self._fresh, self._waiting = [], 0
        self._kernel = np.concatenate([self._kernel, kernel])
        self._time_us = np.concatenate([self._time_us, time_us])
        self._place = np.concatenate([self._place, place])
        self._phi = np.concatenate([self._phi, phi])
        self._gone = np.concatenate([self._gone, gone])
        self._thin()
        while len(self._kernel) > self._most:
            self.step_us *= 2
            self._thin()

    def _thin(self) -> None:
        """Keep of each kernel and step the last position that came; the times within a step stay."""
        step = self._time_us // self.step_us
        order = np.lexsort((np.arange(len(step)), step, self._kernel))
        kernel, step = self._kernel[order], step[order]
        last = np.append((kernel[1:] != kernel[:-1]) | (step[1:] != step[:-1]), True)
        kept = np.sort(order[last])
        if len(kept) < len(order):
            self._kernel, self._time_us, self._place = self._kernel[kept], self._time_us[kept], self._place[kept]
            self._phi, self._gone = self._phi[kept], self._gone[kept]


def _places(column: Any) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which rows have eight finite coordinates, and these coordinates."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    there: NDArray[np.bool_] = lengths == _DIMENSIONS
    if not there.any():
        return there, np.zeros((0, _DIMENSIONS), np.float32)
    flat = pc.list_flatten(column.filter(pa.array(there))).to_numpy(zero_copy_only=False)
    places = np.asarray(flat, np.float32).reshape(-1, _DIMENSIONS)
    finite = np.isfinite(places).all(axis=1)
    there[np.flatnonzero(there)[~finite]] = False
    return there, places[finite]
