"""Settings of the kernels scenario, and the labels of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from astrocyte.simulator.anomalies import PlantKind, plant_params
from astrocyte.simulator.config import ScenarioConfig

__all__ = [
    "BASIN",
    "DOMAINS",
    "ELEMENTS",
    "GODS",
    "KAPPA_STAR",
    "MODES",
    "NICHES",
    "OUTCOMES",
    "PLANT_KINDS",
    "REGIMES",
    "ROOTS",
    "TARGETS",
    "KernelsConfig",
    "KernelsStatic",
    "e8_roots",
    "kernels_params",
]

BASIN = 8
"""Coordinates of a basin."""
ROOTS = 240
"""Roots of E8, which are the attractors of basins."""
KAPPA_STAR = 64.0
"""Coupling to which the kernels return."""
REGIMES = ("linear", "geometric", "breakdown")
"""Regimes of a coupling below 40, below 80, and above."""
GODS = ("zeus", "hera", "poseidon", "demeter", "athena", "apollo", "artemis", "ares", "aphrodite", "hephaestus",
        "hermes", "dionysus")  # fmt: skip
DOMAINS = ("strategy", "memory", "pattern", "language", "perception", "planning", "synthesis", "defence")
ELEMENTS = ("alkali", "alkaline", "transition", "metalloid", "nonmetal", "halogen", "noble")
NICHES = ("producer", "consumer", "predator", "decomposer", "symbiont")
TARGETS = ("recall", "search", "compression", "prediction", "coordination", "exploration")
MODES = ("blitzkrieg", "siege", "hunt")
OUTCOMES = ("attacker_won", "defender_won", "stalemate")
PLANT_KINDS: Mapping[str, PlantKind] = {
    "breakdown": PlantKind(("regime_breakdown",), strength=0.4, rest=50),
    "upset": PlantKind(("upset",), strength=1.0, rest=30),
    "war": PlantKind(("winning_streak",), strength=0.4, ticks=20, rest=150),
    "neglect": PlantKind(("training_stops",), strength=1.0, ticks=50, rest=40),
}


class KernelsConfig(ScenarioConfig):
    """Settings of the kernels scenario; rates are probabilities per kernel and tick."""

    plant_kinds: ClassVar[Mapping[str, PlantKind]] = PLANT_KINDS

    tick_us: int = Field(default=100_000, ge=1, le=3_600_000_000, description="simulated time of one tick")
    size: int = Field(default=256, ge=8, le=4_096, description="slots for kernels")
    initial: float = Field(default=0.25, gt=0.0, le=1.0, description="share of the slots with founders")
    train: float = Field(default=0.05, ge=0.0, le=1.0, description="rate of training steps")
    spawn: float = Field(default=0.002, ge=0.0, le=1.0, description="rate of children of one parent, times phi")
    breed: float = Field(default=0.002, ge=0.0, le=1.0, description="rate of breeding with the wanted element")
    war: float = Field(default=0.002, ge=0.0, le=1.0, description="rate of declarations of war")
    merge_every: int = Field(default=50, ge=1, le=1_000_000, description="ticks between merge checks of all pairs")
    merge_radius: float = Field(default=0.25, ge=0.0, le=10.0, description="distance below which kernels merge")
    learning: float = Field(default=0.05, ge=0.0, le=1.0, description="share of the distance to the root per step")
    wander: float = Field(default=0.03, ge=0.0, le=1.0, description="noise of a training step, and of children")
    relax: float = Field(default=0.05, ge=0.0, le=1.0, description="share of the return of coupling to 64 per step")
    heat: float = Field(default=3.0, ge=0.0, le=100.0, description="noise of coupling in a training step")
    fall: float = Field(default=0.3, ge=0.0, le=1.0, description="probability that a loser of low phi is retired")
    world_seed: int = Field(default=1, ge=0, lt=2**32, description="seed of the labels of the roots")

    @model_validator(mode="after")
    def _strengths(self) -> KernelsConfig:
        for plant in self.plants:
            if plant.strength > 1.0:
                raise ValueError(
                    f"plants: strength of {plant.kind}: expected a share from 0 to 1, got {plant.strength}"
                )
        return self


@dataclass(frozen=True)
class KernelsStatic:
    """Shapes and periods."""

    slots: int
    merge_every: int
    tick_us: int

    @property
    def few(self) -> int:
        """Initial rows of a buffer of which a tick needs few. To grow costs a compilation: a small world never does."""
        return max(self.slots // 16 // 32 * 32, min(self.slots, 128))


def e8_roots() -> NDArray[np.float32]:
    """The 240 roots of E8, of length 1: 112 of two entries +-1, 128 of entries +-1/2 with an even number of minus."""
    roots = []
    for first in range(BASIN):
        for second in range(first + 1, BASIN):
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                root = np.zeros(BASIN)
                root[first], root[second] = signs
                roots.append(root)
    roots += [
        np.array([-0.5 if bits >> place & 1 else 0.5 for place in range(BASIN)])
        for bits in range(256)
        if bits.bit_count() % 2 == 0
    ]
    scaled: NDArray[np.float32] = (np.array(roots) / np.sqrt(2.0)).astype(np.float32)
    return scaled


def kernels_params(config: KernelsConfig) -> Mapping[str, Any]:
    """Numbers of the config; ``roots`` are the attractors [240, 8], ``element`` and ``target`` the roots' labels."""
    names = ("initial", "train", "spawn", "breed", "war", "merge_radius", "learning", "wander", "relax", "heat", "fall")
    random = np.random.default_rng(config.world_seed)
    return {
        **{name: np.float32(getattr(config, name)) for name in names},
        "roots": e8_roots(),
        "element": random.integers(0, len(ELEMENTS), ROOTS, dtype=np.int32),
        "target": random.integers(0, len(TARGETS), ROOTS, dtype=np.int32),
        "plants": plant_params(config.plants, PLANT_KINDS),
    }
