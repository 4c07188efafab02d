"""Settings of the ecology scenario, the actions of agents, and the initial inclinations of each type of agent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from astrocyte.simulator.anomalies import PlantKind, plant_params
from astrocyte.simulator.config import ScenarioConfig

__all__ = [
    "ACTIONS",
    "CONTROL",
    "GENOMES",
    "INCLINATIONS",
    "PLANT_KINDS",
    "TYPES",
    "UNIT",
    "EcologyConfig",
    "EcologyStatic",
    "ecology_params",
]

UNIT = 1024
"""Fixed-point units of one unit of resource, and of full health."""
ACTIONS = ("move", "gather", "attack", "defend", "share", "reproduce", "learn")
TYPES = ("system", "independent", "control")
CONTROL = TYPES.index("control")
INCLINATIONS = ((3.0, 4.0, 0.05, 0.5, 0.8, 1.0, 0.3), (3.0, 4.0, 0.5, 0.4, 0.1, 1.0, 0.3),
                (2.0, 5.0, 0.1, 0.3, 0.2, 1.0, 0.3))  # fmt: skip
"""Weights of the actions of a founder, by type: system agents share, independent agents fight, control agents neither
learn nor choose their direction."""
GENOMES = 64
"""Founding genomes."""
PLANT_KINDS: Mapping[str, PlantKind] = {
    "depletion": PlantKind(("resource_exhaustion",), may_follow=("starvation_wave",), strength=0.95, ticks=10, rest=60),
    "feud": PlantKind(("conflict_without_sharing",), strength=1.0, ticks=90, rest=60),
    # Those who are left find plenty, become more than the map feeds, and starve: only then the world is as before.
    "collapse": PlantKind(
        ("agent_population_crash",), may_follow=("starvation_wave", "agent_population_crash"), strength=0.8, rest=380
    ),
    "famine": PlantKind(
        ("starvation_wave", "resource_exhaustion", "agent_population_crash"),
        may_follow=("starvation_wave", "agent_population_crash"),
        strength=1.0,
        ticks=60,
        rest=380,
    ),
    "sweep": PlantKind(("genome_sweep",), strength=0.8, rest=30, once=True),
}
ISLAND_SLOTS = 65_536


class EcologyConfig(ScenarioConfig):
    """Settings of the ecology scenario. Resources are in units, health from 0 to 1, rates per tick."""

    plant_kinds: ClassVar[Mapping[str, PlantKind]] = PLANT_KINDS

    tick_us: int = Field(default=100_000, ge=1, le=3_600_000_000, description="simulated time of one step")
    size: int = Field(default=4_096, ge=32, le=8_388_608, description="least number of slots for agents, and of tiles")
    initial: float = Field(default=0.4, gt=0.0, le=1.0, description="share of the slots with founders")
    growth: float = Field(default=0.01, ge=0.0, le=1.0, description="logistic growth of a tile's resource")
    regrowth: float = Field(default=0.01, ge=0.0, le=1.0, description="growth of an empty tile, share of its capacity")
    capacity: float = Field(default=10.0, gt=0.0, le=1_000.0, description="largest resource of a tile")
    bite: float = Field(default=2.0, ge=0.0, le=1_000.0, description="largest resource gathered in a step")
    upkeep: float = Field(default=0.2, ge=0.0, le=100.0, description="resource that an agent consumes per step")
    founder_resources: float = Field(default=5.0, ge=0.0, le=1_000.0, description="resource of a founder")
    birth_cost: float = Field(default=4.0, gt=0.0, le=1_000.0, description="resource that a parent gives to its child")
    damage: float = Field(default=0.3, ge=0.0, le=1.0, description="health that a successful attack costs")
    steal: float = Field(default=1.0, ge=0.0, le=1_000.0, description="resource that a successful attack takes")
    gift: float = Field(default=0.5, ge=0.0, le=1_000.0, description="resource that a sharing agent gives")
    attack_success: float = Field(default=0.7, ge=0.0, le=1.0, description="success of an attack without defence")
    defended_success: float = Field(default=0.2, ge=0.0, le=1.0, description="success of an attack on a defender")
    starvation_threshold: int = Field(default=30, ge=1, le=1_000_000, description="steps without resources until death")
    starvation_damage: float = Field(default=0.02, ge=0.0, le=1.0, description="health lost per step of starvation")
    healing: float = Field(default=0.01, ge=0.0, le=1.0, description="health gained per step")
    old_age: int = Field(default=1_000, ge=1, le=2**30, description="steps from which an agent may die of age")
    ageing: float = Field(default=0.01, ge=0.0, le=1.0, description="probability of death per step beyond old_age")
    learning_rate: float = Field(default=0.02, ge=0.0, le=1.0, description="factor of a reward on an inclination")
    mutation: float = Field(default=0.05, ge=0.0, le=1.0, description="spread of a child's inclinations")
    steps_every: int = Field(default=10, ge=1, le=1_000_000, description="steps between rows of simulation_steps")
    routine_every: int = Field(default=20, ge=2, le=1_000_000, description="steps between samples of agents and tiles")
    routine_share: float = Field(default=0.05, gt=0.0, le=1.0, description="share of agents in such a sample")
    tile_share: float = Field(default=0.02, gt=0.0, le=1.0, description="share of tiles in such a sample")

    @model_validator(mode="after")
    def _strengths(self) -> EcologyConfig:
        for plant in self.plants:
            if plant.strength > 1.0:
                raise ValueError(
                    f"plants: strength of {plant.kind}: expected a share from 0 to 1, got {plant.strength}"
                )
        return self

    @property
    def islands(self) -> int:
        """Number of islands, each with its own map."""
        return -(-self.size // ISLAND_SLOTS)

    @property
    def island_slots(self) -> int:
        """Slots of an island: a multiple of 1,024, or of 32 in a small world."""
        share = -(-self.size // self.islands)
        multiple = 1024 if share > 1024 else 32
        return -(-share // multiple) * multiple


@dataclass(frozen=True)
class EcologyStatic:
    """Shapes and periods."""

    slots: int
    side: int
    steps_every: int
    routine_every: int
    routine_share: float
    tile_stride: int

    @property
    def tiles(self) -> int:
        """Tiles of an island's map; its edges are joined."""
        return self.side * self.side

    @classmethod
    def of(cls, config: EcologyConfig) -> EcologyStatic:
        """The static part of a config: about one tile per slot."""
        slots = config.island_slots
        stride = max(round(1.0 / config.tile_share), 1)
        side = math.ceil(math.sqrt(slots))
        return cls(slots, side, config.steps_every, config.routine_every, config.routine_share, stride)


def ecology_params(config: EcologyConfig) -> Mapping[str, Any]:
    """Numbers of the config; amounts in fixed point are int32."""
    shares = ("initial", "growth", "regrowth", "attack_success", "defended_success", "ageing", "learning_rate",
              "mutation")  # fmt: skip
    amounts = ("capacity", "bite", "upkeep", "founder_resources", "birth_cost", "damage", "steal", "gift",
               "starvation_damage", "healing")  # fmt: skip
    return {
        **{name: np.float32(getattr(config, name)) for name in shares},
        **{name: np.int32(round(getattr(config, name) * UNIT)) for name in amounts},
        "starvation_threshold": np.int32(config.starvation_threshold),
        "old_age": np.int32(config.old_age),
        "inclinations": np.array(INCLINATIONS, np.float32).T.copy(),
        "plants": plant_params(config.plants, PLANT_KINDS),
    }
