"""Settings of the dna scenario, the keys of a configuration and the traits that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from astrocyte.simulator.anomalies import PlantKind, plant_params
from astrocyte.simulator.config import ScenarioConfig

__all__ = [
    "ELITE",
    "KEYS",
    "LEAST_SETTING",
    "LOADINGS",
    "PLANT_KINDS",
    "TRAITS",
    "DnaConfig",
    "DnaStatic",
    "dna_params",
]

ELITE = 0.85
"""Least karma of a snapshot in the elite pool."""
KEYS = (
    "temperature", "max_tokens", "top_p", "top_k", "frequency_penalty", "presence_penalty",
    "context_window", "memory_depth", "tool_budget", "retries", "parallelism", "timeout",
)  # fmt: skip
"""Keys of a configuration; values are scaled to 0..1."""
LEAST_SETTING = 0.25
"""A key below this value is left at its default: it is no part of the configuration that a snapshot holds."""
TRAITS = ("creativity", "precision", "speed", "caution", "focus")
PLANT_KINDS: Mapping[str, PlantKind] = {
    "breakthrough": PlantKind(("karma_breakthrough",), strength=0.9, ticks=25, rest=25),
    "stagnation": PlantKind(("evolution_stalls",), strength=1.0, ticks=80, rest=30),
    "outage": PlantKind(("mutation_never_scored", "evolution_stalls"), strength=1.0, ticks=150, rest=50),
}
ISLAND_AGENTS = 65_536
ISLAND_POPULATIONS = 256


def _loadings() -> NDArray[np.float32]:
    signs = np.zeros((len(TRAITS), len(KEYS)), np.float32)
    for trait, up, down in ((0, (0, 2, 3), (4,)), (1, (6, 7), (0, 2)), (2, (10,), (1, 9)), (3, (9, 11), (10,)),
                            (4, (6, 4, 5), (8,))):  # fmt: skip
        signs[trait, list(up)] = 1.0 / len(up)
        signs[trait, list(down)] = -0.5 / len(down)
    return signs


LOADINGS = _loadings()
"""traits = LOADINGS @ keys; float32[traits, keys]. A snapshot holds the traits that are above 0."""


class DnaConfig(ScenarioConfig):
    """Settings of the dna scenario; times are in ticks, probabilities per tick."""

    plant_kinds: ClassVar[Mapping[str, PlantKind]] = PLANT_KINDS

    tick_us: int = Field(default=100_000, ge=1, le=3_600_000_000, description="simulated time of one tick")
    size: int = Field(default=100, ge=4, le=65_536, description="agents per population")
    populations: int = Field(default=1, ge=1, le=100_000, description="populations, each evolving on its own")
    generation_ticks: int = Field(default=10, ge=1, le=1_000_000, description="ticks per generation")
    recombination: Literal["mate", "pool"] = Field(
        default="mate", description="a child takes keys from one mate, or each key from any selected agent"
    )
    selected: float = Field(default=0.5, gt=0.0, lt=1.0, description="share of a population that is selected")
    crossover: float = Field(default=0.25, ge=0.0, le=1.0, description="probability that a key is taken from the mate")
    mutation_rate: float = Field(default=0.1, ge=0.0, le=1.0, description="probability that a key mutates")
    mutation_step: float = Field(default=0.1, ge=0.0, le=1.0, description="standard deviation of a key's mutation")
    sharpness: float = Field(default=5.0, gt=0.0, le=1_000.0, description="karma = exp(-sharpness * mean error^2)")
    noise: float = Field(default=0.01, ge=0.0, le=1.0, description="standard deviation of an evaluation of karma")
    rollback: float = Field(default=0.1, ge=0.0, le=1.0, description="probability of a rollback to the best snapshot")
    rollback_margin: float = Field(default=0.03, ge=0.0, le=1.0, description="least loss of karma for a rollback")
    save: float = Field(default=0.0005, ge=0.0, le=1.0, description="probability of a manual save")
    backup: float = Field(default=0.0005, ge=0.0, le=1.0, description="probability of a backup by the system")
    watched: float = Field(default=1.0, ge=0.0, le=1.0, description="share of agents whose events are all emitted")
    landscape_seed: int = Field(default=1, ge=0, lt=2**32, description="seed of the best configuration")

    @model_validator(mode="after")
    def _strengths(self) -> DnaConfig:
        for plant in self.plants:
            if plant.strength > 1.0:
                raise ValueError(
                    f"plants: strength of {plant.kind}: expected a share from 0 to 1, got {plant.strength}"
                )
        return self


@dataclass(frozen=True)
class DnaStatic:
    """Shapes and switches."""

    size: int
    island_populations: int
    populations: int
    generation_ticks: int
    recombination: str
    watched: float


def dna_params(config: DnaConfig) -> Mapping[str, Any]:
    """Numbers of the config; ``target`` is the best configuration."""
    target = np.random.default_rng(config.landscape_seed).uniform(0.2, 0.8, len(KEYS))
    names = ("selected", "crossover", "mutation_rate", "mutation_step", "sharpness", "noise", "rollback",
             "rollback_margin", "save", "backup")  # fmt: skip
    return {
        **{name: np.float32(getattr(config, name)) for name in names},
        "target": target.astype(np.float32),
        "plants": plant_params(config.plants, PLANT_KINDS),
    }
