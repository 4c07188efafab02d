"""How far the events of matches have come through junctions, and what damping has left of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.event_time.event_store import Located
from astrocyte.agents.rules.junctions import HOPS, STRENGTH
from astrocyte.schemas.frames import Frame

__all__ = ["hops_of", "inherited"]


def hops_of(frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Hops and strength of each row: 0 and 1 for events that came through no junction."""
    if not (frame.has(HOPS) and frame.has(STRENGTH)):
        return np.zeros(frame.num_rows, np.int64), np.ones(frame.num_rows)
    hops = frame.column(HOPS).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return hops, frame.column(STRENGTH).fill_null(1.0).to_numpy(zero_copy_only=False).astype(np.float64)


def inherited(events: Located, offsets: NDArray[np.int64], carriers: Collection[str]) -> Mapping[str, NDArray[Any]]:
    """Columns ``hops`` and ``strength`` of matches, of which i has the events ``offsets[i]`` to ``offsets[i + 1]``.

    The most hops and the greatest strength among the events of the streams ``carriers`` that came through a junction;
    0 and 1 where there are none.
    """
    hops, strength = np.zeros(len(events), np.int64), np.zeros(len(events))
    for block, positions, rows in events.parts():
        if block.frame.stream in carriers:
            far, strong = hops_of(block.frame)
            hops[positions], strength[positions] = far[rows], np.where(far[rows] > 0, strong[rows], 0.0)
    most = np.maximum.reduceat(hops, offsets[:-1]) if len(offsets) > 1 else hops
    left = np.maximum.reduceat(strength, offsets[:-1]) if len(offsets) > 1 else strength
    return {HOPS: most, STRENGTH: np.where(most > 0, left, 1.0)}
