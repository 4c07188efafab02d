"""Settings of the cells scenario: validated config, its hashable and its numeric part, and the difficulty control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from astrocyte.simulator.anomalies import PlantKind, plant_params
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.scenario import InvalidControl

__all__ = [
    "ENERGY_UNIT",
    "GENES",
    "INPUTS",
    "LEVELS",
    "LEVEL_FACTORS",
    "PLANT_KINDS",
    "PROBLEMS",
    "ROW",
    "TRAITS",
    "WEIGHTS",
    "CellsConfig",
    "CellsStatic",
    "apply_difficulty",
    "cells_params",
]

ENERGY_UNIT = 1024
"""Fixed-point units of one unit of energy."""
PROBLEMS = ("pattern", "arithmetic", "memory", "planning")
LEVELS = ("easy", "medium", "hard")
LEVEL_FACTORS = (0.5, 1.0, 2.0)
"""Difficulty and reward of each level. Half of the problems are easy, a quarter medium, a quarter hard."""
INPUTS = 8
WEIGHTS = len(PROBLEMS) * INPUTS
TRAITS: Mapping[str, tuple[float, float, float]] = {
    "metabolism": (0.4, 0.05, 5.0),
    "growth_rate": (0.03, 0.001, 0.3),
    "division_size": (2.0, 0.5, 8.0),
    "mutation_rate": (0.2, 0.001, 1.0),
    "tpu_cores": (1.0, 0.1, 64.0),
    "tpu_memory": (1.0, 0.1, 64.0),
    "tpu_efficiency": (0.5, 0.05, 1.0),
}
"""Mean of the founders, and the range, of each trait."""
GENES = len(TRAITS) + WEIGHTS
"""Rows of a genome: the traits in their order, then the weights of each problem in turn."""
ROW = {trait: row for row, trait in enumerate(TRAITS)}
PLANT_KINDS: Mapping[str, PlantKind] = {
    "collapse": PlantKind(("population_collapse",), strength=0.8, rest=400),
    "breakthrough": PlantKind(("evolutionary_breakthrough",), strength=0.9, ticks=200, rest=300),
    "depletion": PlantKind(
        ("resource_depletion",),
        may_follow=("population_collapse", "bottleneck_and_recovery"),
        strength=0.8,
        ticks=130,
        rest=600,
    ),
    "sweep": PlantKind(("diversity_bottleneck",), strength=0.45, rest=400),
    "stagnation": PlantKind(("stagnation",), strength=1.0, ticks=1000, rest=600),
    "bottleneck": PlantKind(("bottleneck_and_recovery", "population_collapse"), strength=0.97, rest=800),
    "decline": PlantKind(
        ("extinction_risk",),
        may_follow=("population_collapse", "resource_depletion"),
        strength=0.4,
        ticks=1000,
        rest=2000,  # the population is back after four seconds; rules that count births look back for twenty
    ),
    "hypermutation": PlantKind(
        ("runaway_mutation",),
        strength=0.95,
        ticks=1000,
        rest=600,
        after=2000,  # the rule compares with four windows of five seconds
    ),
}
ISLAND_SLOTS = 65_536


class CellsConfig(ScenarioConfig):
    """Settings of the cells scenario. Energies are in units of energy, rates per tick."""

    plant_kinds: ClassVar[Mapping[str, PlantKind]] = PLANT_KINDS

    size: int = Field(default=65_536, ge=32, le=33_554_432, description="slots for cells, rounded up to whole islands")
    initial: float = Field(default=0.5, gt=0.0, le=1.0, description="share of the slots with founders")
    reward: float = Field(default=4.0, ge=0.0, le=1_000.0, description="energy of a problem of level 1 at accuracy 1")
    difficulty: float = Field(default=1.0, ge=0.01, le=100.0, description="factor on every problem's difficulty")
    sharpness: float = Field(default=4.0, ge=0.01, le=1_000.0, description="how strongly an error lowers accuracy")
    supply: float = Field(default=0.45, ge=0.0, le=1_000.0, description="largest energy per slot of the world and tick")
    core_cost: float = Field(default=0.05, ge=0.0, le=100.0, description="energy per core and tick")
    memory_cost: float = Field(default=0.02, ge=0.0, le=100.0, description="energy per unit of memory and tick")
    growth_cost: float = Field(default=4.0, ge=0.0, le=1_000.0, description="energy per unit of mass grown")
    division_energy: float = Field(default=12.0, ge=0.0, le=10_000.0, description="least energy of a cell that divides")
    founder_energy: float = Field(default=20.0, ge=0.1, le=10_000.0, description="energy of a founder")
    hazard: float = Field(default=0.002, ge=0.0, le=1.0, description="probability of death per tick")
    ageing: float = Field(default=2e-5, ge=0.0, le=1.0, description="probability of death per tick and tick of age")
    mutation_step: float = Field(default=0.1, ge=0.0, le=0.5, description="standard deviation of a mutation")
    evolves: tuple[Literal["bio", "ai", "tpu"], ...] = Field(
        default=("bio", "ai", "tpu"), description="parts of the genome that mutations change: traits, weights, hardware"
    )
    problem_seed: int = Field(default=1, ge=0, lt=2**32, description="seed of the problems")
    metrics_every: int = Field(default=10, ge=1, le=1_000_000, description="ticks between population_metrics")
    routine_every: int = Field(default=10, ge=1, le=1_000_000, description="ticks between samples of single cells")
    routine_share: float = Field(default=0.01, gt=0.0, le=1.0, description="share of cells in such a sample")

    @model_validator(mode="after")
    def _strengths(self) -> CellsConfig:
        for plant in self.plants:
            if plant.strength > 1.0:
                raise ValueError(
                    f"plants: strength of {plant.kind}: expected a share from 0 to 1, got {plant.strength}"
                )
        return self

    @property
    def burst(self) -> int:
        """Initial rows of the buffers of births and deaths."""
        return max(self.island_slots * 3 // 256, min(self.island_slots // 2, 512))

    @property
    def islands(self) -> int:
        """Number of islands."""
        return -(-self.size // ISLAND_SLOTS)

    @property
    def island_slots(self) -> int:
        """Slots of an island: a multiple of 1,024, or of 32 in a small world."""
        share = -(-self.size // self.islands)
        multiple = 1024 if share > 1024 else 32
        return -(-share // multiple) * multiple


@dataclass(frozen=True)
class CellsStatic:
    """Shapes and periods."""

    slots: int
    burst: int
    metrics_every: int
    routine_every: int
    routine_share: float


def cells_params(config: CellsConfig) -> dict[str, Any]:
    """Numbers of the config.

    ``targets`` are the weights that solve each problem exactly, [problems, inputs]; ``mutation_step`` is the standard
    deviation of a mutation of each gene, [genes, 1].
    """
    targets: NDArray[np.float64] = np.random.default_rng(config.problem_seed).normal(0.0, 0.7, (len(PROBLEMS), INPUTS))
    names = ("initial", "reward", "difficulty", "sharpness", "supply", "core_cost", "memory_cost", "growth_cost",
             "division_energy", "founder_energy", "hazard", "ageing")  # fmt: skip
    part = np.repeat(("bio", "tpu", "ai"), (ROW["tpu_cores"], len(TRAITS) - ROW["tpu_cores"], WEIGHTS))
    return {
        **{name: np.float32(getattr(config, name)) for name in names},
        "targets": targets.astype(np.float32),
        "mutation_step": np.where(np.isin(part, config.evolves), config.mutation_step, 0.0).astype(np.float32)[:, None],
        "plants": plant_params(config.plants, PLANT_KINDS),
    }


class DifficultyControl(BaseModel):
    """A message of ``control.difficulty``: factors on the config's difficulty and reward; absent ones do not change."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    difficulty: float | None = Field(default=None, ge=0.01, le=100.0)
    reward: float | None = Field(default=None, ge=0.0, le=100.0)


def apply_difficulty(config: CellsConfig, params: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Params with the message's difficulty and reward, both factors on the config's. Raises InvalidControl."""
    try:
        wanted = DifficultyControl.model_validate(dict(message))
    except ValidationError as error:
        detail = error.errors()[0]
        name = ".".join(str(part) for part in detail["loc"])
        low, high = ("0.01", "100") if name == "difficulty" else ("0", "100")
        raise InvalidControl(f"{name}: expected a number from {low} to {high}, got {detail['input']!r}") from None
    if wanted.difficulty is None and wanted.reward is None:
        raise InvalidControl(f"expected 'difficulty', 'reward' or both, got {sorted(message)}")
    changed = dict(params)
    if wanted.difficulty is not None:
        changed["difficulty"] = np.float32(config.difficulty * wanted.difficulty)
    if wanted.reward is not None:
        changed["reward"] = np.float32(config.reward * wanted.reward)
    return changed
