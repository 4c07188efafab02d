"""What a batch of dna's worlds is observed by (`simulator.batch`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import Array

__all__ = ["dna_observed"]


def dna_observed(params: Mapping[str, Any], state: dict[str, Any], totals: Mapping[str, Array]) -> dict[str, Array]:
    """Of each agent: its karma, whether it has one (``scored``), its snapshot's tick, and whether that waits for a
    score (``due``), which it gets in the next tick unless evaluation is out."""
    return {name: state[name] for name in ("karma", "scored", "snapshot", "due")}
