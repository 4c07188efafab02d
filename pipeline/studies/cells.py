"""Worlds of cells as studies need them: many generations in few ticks, and founders that differ only as planned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from astrocyte.simulator.batch import BatchWorld
from astrocyte.simulator.scenarios.cells.batch import cells_founders, cells_observed
from astrocyte.simulator.scenarios.cells.config import TRAITS, WEIGHTS

__all__ = ["BASE", "FOUNDERS_TEXT", "NEVER", "TRAIT", "WEIGHTS", "cells_founders", "cells_observed", "founded"]

NEVER: Final = 1_000_000
BASE: Final[Mapping[str, Any]] = {
    "size": 256, "hazard": 0.02, "ageing": 0.0, "supply": 0.6, "sharpness": 12.0, "reward": 8.0,
    "division_energy": 8.0, "routine_every": NEVER, "metrics_every": NEVER,
}  # fmt: skip
"""Settings that all studies start from: energy limits the population, and a generation takes about 50 ticks."""
TRAIT: Final = {trait: number for number, trait in enumerate(TRAITS)}
_BIOLOGY: Final = {"metabolism": 0.4, "growth_rate": 0.1, "division_size": 2.0}
FOUNDERS_TEXT: Final = (
    "Founders share one biology (metabolism 0.4, growth rate 0.1, division size 2), so that differences between worlds "
    "come from what is studied."
)


def founded(
    config: Any, seed: int, *, change: tuple[int, int] = (0, 0), then: Any = None, **traits: float
) -> BatchWorld:
    """A world whose founders share one biology and the given traits."""
    values = dict.fromkeys(TRAITS, math.nan) | _BIOLOGY | traits
    return BatchWorld(config, seed, values, then=then, change=change)
