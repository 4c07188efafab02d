"""Planted anomalies: known disturbances at known times, against which alert rules are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Plant", "plant_params"]

_PADDING = 8


class Plant(BaseModel):
    """One anomaly: ``kind`` is active from ``at_tick`` for ``ticks`` ticks; ``strength`` depends on the kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    at_tick: int = Field(ge=0, lt=2**31)
    ticks: int = Field(default=1, ge=1, lt=2**31)
    strength: float = Field(default=0.5, ge=0.0, le=100.0)


def plant_params(plants: Sequence[Plant], kinds: Sequence[str]) -> Mapping[str, Any]:
    """The plants as arrays for ``params``; ``ctx.planted(params["plants"], kind)`` reads them.

    Padded to a multiple of eight, so that a sweep over few plants does not recompile.
    """
    length = max(-(-len(plants) // _PADDING), 1) * _PADDING
    arrays = {
        "kind": np.full(length, -1, np.int32),
        "start": np.zeros(length, np.uint32),
        "ticks": np.zeros(length, np.uint32),
        "strength": np.zeros(length, np.float32),
    }
    for row, plant in enumerate(plants):
        arrays["kind"][row] = list(kinds).index(plant.kind)
        arrays["start"][row] = plant.at_tick
        arrays["ticks"][row] = plant.ticks
        arrays["strength"][row] = plant.strength
    return arrays
