"""What a batch of dna's worlds is observed by (`simulator.batch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import Array

__all__ = ["dna_observed"]


def dna_observed(params: Mapping[str, Any], state: dict[str, Any], totals: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by agent: ``karma``, whether it has one (``scored``), tick of its ``snapshot``, whether that is ``due``.

    One that is due waits for a score, which it gets in the next tick unless an outage is planted.
    """
    del params, totals
    return {name: state[name] for name in ("karma", "scored", "snapshot", "due")}
