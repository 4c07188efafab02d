"""What a window on a tree shows: as many lines as it has room for, whatever the size of the tree.

A clade that is at least as high as a line has one, and what is thinner is joined into bundles of neighbours. Of a line
of mothers and daughters of which only one daughter each has a line of her own, those are left out that would be nearer
than some pixels to the one before. So the numbers of lines and bundles are bounded by the height of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import nearest_marked
from astrocyte.pipeline.analysis.phylogeny.records import Ints
from astrocyte.pipeline.page.tree.layout import Layout

__all__ = ["MOST_LINES", "Window", "shown"]

MOST_LINES: Final = 3_000
_LEAST_PX: Final = 1.5
"""Height of the thinnest clade that has a line of its own."""
_NEAR_PX: Final = 8.0
"""Distance along the time axis below which a mother and daughter may be one."""
_BUNDLE_PX: Final = 3.0


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a picture: times in microseconds since 1970, rows from the top, and its size in pixels."""

    from_us: int
    to_us: int
    top: float
    bottom: float
    width_px: int
    height_px: int

    @property
    def rows_px(self) -> float:
        """Rows in one pixel."""
        return (self.bottom - self.top) / self.height_px


def shown(layout: Layout, window: Window, values: NDArray[np.float64]) -> dict[str, Any]:
    """The ``lines`` of a window, parents before their children, and its ``bundles``, as columns of equal length.

    Of a line: ``id``, as text; ``parent``, the place of the line from which it branches off, or -1; ``birth`` and
    ``end`` in microseconds; ``row``; ``top`` and ``bottom``, the rows of its clade; ``leaves`` and ``extinct``, its
    descendants that are leaves, and those that are not drawn; ``alive``; and ``value``, that of ``values``. Of a
    bundle: ``top`` and ``bottom``, ``birth`` and ``end`` from the first to the last, ``mean_birth`` and ``mean_end``,
    the number of its ``leaves``, and the mean ``value`` of its clades' founders.
    """
    rows, least = _chosen(layout, window)
    tree = layout.tree
    parent = _parents_among(layout, rows)
    child = parent >= 0
    end_us = layout.end_us[rows]
    # Where mothers in between are left out, the line goes on to the daughter.
    np.maximum.at(end_us, parent[child], tree.origin_us[rows][child])
    lines = {
        "id": tree.ids[rows].astype(str).tolist(), "parent": parent, "birth": tree.origin_us[rows], "end": end_us,
        "row": layout.middle()[rows], "top": layout.first_row[rows],
        "bottom": layout.first_row[rows] + layout.leaves[rows], "leaves": layout.leaves[rows],
        "extinct": layout.extinct[rows], "alive": tree.living[rows], "value": values[rows],
    }  # fmt: skip
    return {"lines": lines, "bundles": _bundles(layout, window, values, least)}


def _in_rows(layout: Layout, window: Window) -> NDArray[np.bool_]:
    """Which clades have rows in the window, and still live when it begins."""
    seen = (layout.first_row < window.bottom) & (layout.first_row + layout.leaves > window.top)
    return seen & (layout.clade_end_us >= window.from_us)


def _chosen(layout: Layout, window: Window) -> tuple[Ints, float]:
    """Individuals that have a line, at most `MOST_LINES`, and the number of leaves from which a clade has one."""
    least = _LEAST_PX * window.rows_px
    seen = _in_rows(layout, window)
    while True:
        rows = np.flatnonzero(seen & (layout.leaves >= least))
        for near_px in (_NEAR_PX, 2 * _NEAR_PX, 4 * _NEAR_PX, 16 * _NEAR_PX, np.inf):
            chosen = _reaching(layout, _without_chains(layout, rows, window, near_px), window)
            if len(chosen) <= MOST_LINES:
                return chosen, least
        least = max(2 * least, 2.0)


def _parents_among(layout: Layout, rows: Ints) -> Ints:
    """Of some individuals the place of the nearest ancestor among them, -1 where none is."""
    among = np.zeros(len(layout.tree), np.bool_)
    among[rows] = True
    place = np.full(len(layout.tree) + 1, -1, np.int64)  # the last place, which -1 selects, is that of none
    place[rows] = np.arange(len(rows))
    parents: Ints = place[nearest_marked(layout.tree.first, among)[rows]]
    return parents


def _without_chains(layout: Layout, rows: Ints, window: Window, near_px: float) -> Ints:
    """The individuals without those of which only one daughter is among them, and which are near the one before."""
    parent = _parents_among(layout, rows)
    daughters = np.bincount(parent[parent >= 0], minlength=len(rows))
    kept = (daughters != 1) | (parent < 0)
    if _LEAST_PX * window.rows_px <= 1:
        kept |= layout.is_leaf[rows]
    if np.isfinite(near_px):
        near_us = max(int((window.to_us - window.from_us) / window.width_px * near_px), 1)
        # What is beyond the window on either side is one step.
        born_us = np.clip(layout.tree.origin_us[rows], window.from_us - 1, window.to_us + near_us)
        step = (born_us - window.from_us) // near_us
        kept |= step != step[parent]
    without: Ints = rows[kept]
    return without


def _reaching(layout: Layout, rows: Ints, window: Window) -> Ints:
    """The individuals whose lines reach into the window: they live on, or have daughters in it."""
    parent = _parents_among(layout, rows)
    child = parent >= 0
    leaves = layout.leaves[rows]
    last_us = np.full(len(rows), np.iinfo(np.int64).min)
    np.maximum.at(last_us, parent[child], layout.tree.origin_us[rows][child])
    # Itself, and descendants that are too thin for lines of their own, may live on after the daughters' births.
    thin = leaves > np.bincount(parent[child], leaves[child], minlength=len(rows))
    reaching: Ints = rows[(last_us >= window.from_us) | (thin & (layout.clade_end_us[rows] >= window.from_us))]
    return reaching


def _bundles(layout: Layout, window: Window, values: NDArray[np.float64], least: float) -> dict[str, Any]:
    """Clades that are too thin for a line, joined with their neighbours."""
    tree, leaves = layout.tree, layout.leaves
    thick_parent = (tree.first < 0) | (leaves[tree.first] >= least)
    rows = np.flatnonzero(_in_rows(layout, window) & (leaves < least) & thick_parent & (tree.origin_us <= window.to_us))
    rows = rows[np.argsort(layout.first_row[rows], kind="stable")]
    band = ((layout.first_row[rows] - window.top) / max(window.rows_px * _BUNDLE_PX, least)).astype(np.int64)
    starts = np.flatnonzero(np.diff(band, prepend=np.iinfo(np.int64).min))
    if not len(rows):
        return {}
    count = np.diff(starts, append=len(rows))
    birth_us, end_us, value = tree.origin_us[rows], layout.clade_end_us[rows], values[rows]
    known = np.isfinite(value)
    with np.errstate(invalid="ignore"):
        mean = np.add.reduceat(np.where(known, value, 0), starts) / np.add.reduceat(known.astype(np.int64), starts)
    return {
        "top": layout.first_row[rows][starts],
        "bottom": np.maximum.reduceat(layout.first_row[rows] + leaves[rows], starts),
        "birth": np.minimum.reduceat(birth_us, starts), "end": np.maximum.reduceat(end_us, starts),
        "mean_birth": np.add.reduceat(birth_us / count.repeat(count), starts),
        "mean_end": np.add.reduceat(end_us / count.repeat(count), starts),
        "leaves": np.add.reduceat(leaves[rows], starts), "value": mean,
    }  # fmt: skip
