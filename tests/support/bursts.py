"""A cheap world with planted bursts: two kinds of events and a buffer, with known needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from pydantic import Field

from astrocyte.simulator.anomalies import PlantKind, plant_params
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.event_spec import Column, EventSpec
from astrocyte.simulator.population import compact
from astrocyte.simulator.scenario import Scenario

SLOTS = 1024


class BurstsConfig(ScenarioConfig):
    plant_kinds: ClassVar[Mapping[str, PlantKind]] = {"left": PlantKind(), "right": PlantKind()}

    replicates: int = 1
    left_rows: int = Field(default=SLOTS, ge=32)  # initial sizes; as many as there are slots: never an overflow
    right_rows: int = Field(default=SLOTS, ge=32)
    kept_rows: int = Field(default=SLOTS, ge=32)
    largest_rows: int = 0  # of the spill program; 0: as many as there are slots


@dataclass(frozen=True)
class BurstsStatic:
    left_rows: int
    right_rows: int
    kept_rows: int
    largest_rows: int


class Bursts(Scenario):
    """Few events a tick, and in a tick with a plant a share of the slots that is its strength.

    ``left`` and ``right`` are events. What is kept of the left ones in the buffer ``kept`` becomes part of the state:
    rows that were cut would be seen for ever after.
    """

    name = "bursts"
    Config = BurstsConfig
    int_metrics = ("alive",)

    def static(self, config: Any) -> BurstsStatic:
        return BurstsStatic(config.left_rows, config.right_rows, config.kept_rows, config.largest_rows)

    def params(self, config: Any) -> Mapping[str, Any]:
        return {"plants": plant_params(config.plants, BurstsConfig.plant_kinds)}

    def islands(self, config: Any) -> int:
        return config.replicates

    def slots(self, static: BurstsStatic) -> int:
        return SLOTS

    def capacities(self, static: BurstsStatic) -> Mapping[str, int]:
        return {"kept": static.kept_rows}

    def largest(self, static: BurstsStatic) -> Mapping[str, int]:
        return dict.fromkeys(("left", "right", "kept"), static.largest_rows) if static.largest_rows else {}

    def events(self, static: BurstsStatic) -> Sequence[EventSpec]:
        columns = (Column("cell_id", "id"), Column("noise"))
        return (
            EventSpec("left", "test_births", columns, "birth", capacity=static.left_rows),
            EventSpec("right", "test_deaths", columns, "death", capacity=static.right_rows),
        )

    def init(self, static: BurstsStatic, params: Any, ctx: Any) -> Any:
        return jnp.zeros(SLOTS, jnp.int32)

    def step(self, static: BurstsStatic, params: Any, state: Any, ctx: Any) -> Any:
        luck = ctx.uniforms("burst")
        for number, kind in enumerate(BurstsConfig.plant_kinds):
            fires = luck[number] < jnp.maximum(ctx.planted(params["plants"], number)[0], 0.01)
            noise = state.astype(jnp.float32) + luck[number]
            ctx.emit(kind, fires, cell_id=(jnp.full(SLOTS, ctx.tick), ctx.place()), noise=noise)
            if number == 0:
                rows, count = compact(fires, ctx.capacity("kept"))
                ctx.need("kept", count)
                valid = jnp.arange(rows.shape[0]) < count
                state = state.at[jnp.where(valid, rows, SLOTS)].add(1, mode="drop")
        ctx.metric("alive", jnp.sum(state, dtype=jnp.int32))
        return state


BURSTS = Bursts()


class Greedy(Bursts):
    """A faulty step: it always needs one row more than the capacity."""

    name = "greedy"

    def step(self, static: BurstsStatic, params: Any, state: Any, ctx: Any) -> Any:
        state = super().step(static, params, state, ctx)
        ctx.need("kept", jnp.int32(ctx.capacity("kept") + 1))
        return state


GREEDY = Greedy()
