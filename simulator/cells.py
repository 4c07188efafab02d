"""Cells with a hybrid genome (seed 000): biology, neural weights and TPU hardware, living on solved problems.

Each tick every living cell attempts one problem of a random type k and level. Its answer is ``y = tanh(w_k . x_k)``, the
right one ``tanh(v_k . x_k)``; with error e = |difference| / 2 and hardware h = efficiency * sqrt(cores * memory)::

    accuracy = h / (h + sharpness * difficulty * level * e)
    reward   = reward * level * accuracy
    income   = reward * min(1, supply * slots / sum of all rewards of the tick before)
    growth   = growth_rate * metabolism, while energy is left and mass is below division_size
    cost     = metabolism * (0.5 + 0.5 mass) + core_cost * cores + memory_cost * memory + growth_cost * growth

So energy is scarce and cells compete for it by accuracy. It is int32 in units of 1/1024, and the ledger closes exactly:
energy now = energy before + income - cost - energy of the dead. A cell of division_size with enough energy divides into
two halves; the daughter mutates with probability mutation_rate. Death: out of energy, or by ``hazard + ageing * age``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from simulator.cells_config import (
    ENERGY_UNIT,
    INPUTS,
    LEVEL_FACTORS,
    PLANT_KINDS,
    PROBLEMS,
    TRAITS,
    WEIGHTS,
    CellsConfig,
    CellsStatic,
    apply_difficulty,
    cells_params,
)
from simulator.cells_events import (
    HISTOGRAM,
    cell_events,
    emit_births,
    emit_deaths,
    emit_routine,
    level_of,
    population_rows,
    problem_of,
    record_histogram,
)
from simulator.config import ScenarioConfig
from simulator.context import Births, Context
from simulator.events import EventSpec, HostRow
from simulator.population import Population, exact_sum
from simulator.rng import unit
from simulator.scenario import Interval, InvalidControl, Scenario

__all__ = ["CELLS", "Cells"]

GENES = len(TRAITS) + len(WEIGHTS)
MEMORY_OF_ACCURACY = 0.05
"""Weight of the newest attempt in a cell's running accuracy."""


class Cells(Scenario):
    """Cells that live on solved problems."""

    name: ClassVar[str] = "cells"
    Config: ClassVar[type[ScenarioConfig]] = CellsConfig
    int_metrics: ClassVar[tuple[str, ...]] = ("alive", "births", "deaths", "attempts", *HISTOGRAM)
    sum_metrics: ClassVar[tuple[str, ...]] = ("energy", "income", "cost", "lost", "accuracy", "generation")
    controls: ClassVar[tuple[str, ...]] = ("difficulty",)
    plant_rules: ClassVar[Mapping[str, str]] = {
        "collapse": "population_collapse",
        "breakthrough": "evolutionary_breakthrough",
        "stagnation": "stagnation",
        "depletion": "resource_depletion",
        "bottleneck": "bottleneck_and_recovery",
    }

    def static(self, config: CellsConfig) -> CellsStatic:
        """Shapes and periods."""
        return CellsStatic(config.island_slots, config.metrics_every, config.routine_every, config.routine_share)

    def islands(self, config: CellsConfig) -> int:
        """One for every 65,536 cells."""
        return config.islands

    def slots(self, static: CellsStatic) -> int:
        """A slot is room for one cell."""
        return static.slots

    def params(self, config: CellsConfig) -> Mapping[str, Any]:
        """See `cells_params`."""
        return cells_params(config)

    def capacities(self, static: CellsStatic) -> Mapping[str, int]:
        """``births`` a tick."""
        return {"births": max(static.slots // 64, 32)}

    def events(self, static: CellsStatic) -> tuple[EventSpec, ...]:
        """See `cell_events`."""
        return cell_events(static)

    def init(self, static: CellsStatic, params: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """Founders in a random share of the slots, each its own lineage, traits spread by 20 % around their means."""
        n = static.slots
        luck, growth = ctx.uniforms("founders")
        noise = iter(ctx.noise("genome", len(TRAITS) + len(WEIGHTS)))
        alive = luck < params["initial"]
        energy = jnp.round(params["founder_energy"] * ENERGY_UNIT).astype(jnp.int32)
        cells = {
            "alive": alive,
            "energy": jnp.where(alive, energy, 0),
            "accuracy": jnp.zeros(n, jnp.float32),
            "birth_tick": jnp.zeros(n, jnp.uint32),
            "generation": jnp.zeros(n, jnp.int32),
            "lineage": ctx.place(),
        }
        for trait, (mean, low, high) in TRAITS.items():
            cells[trait] = jnp.clip(mean * jnp.exp(0.2 * next(noise)), low, high)
        for weight in WEIGHTS:
            cells[weight] = 0.5 * next(noise)
        cells["mass"] = cells["division_size"] * (0.5 + 0.5 * growth)
        return {"cells": cells, "demand": jnp.float32(0)}

    def step(
        self, static: CellsStatic, params: Mapping[str, Any], state: dict[str, Any], ctx: Context
    ) -> dict[str, Any]:
        """One tick: solve, earn and pay, grow, die, divide, tell."""
        cells: Population = dict(state["cells"])
        before = cells["alive"]
        words = ctx.bits("cell")
        strength = {kind: ctx.planted(params["plants"], number) for number, kind in enumerate(PLANT_KINDS)}
        accuracy = _solve(params, ctx, cells, words[0], strength["breakthrough"][0])
        cells, attempt, demand = _earn(
            static, params, ctx, (cells, state["demand"]), words[0], accuracy, strength["depletion"][0]
        )
        dead = _die(params, ctx, cells, words[1], strength)
        emit_deaths(ctx, cells, dead)
        ctx.metric("deaths", jnp.sum(dead, dtype=jnp.int32))
        ctx.metric_sum("lost", cells["energy"], dead)
        # The tried are those who lived at the tick's start; a slot reborn in this tick is someone else.
        cells["alive"] = before & ~dead
        emit_routine(ctx, static, cells, attempt, before)
        cells["energy"] = jnp.where(dead, 0, cells["energy"])
        cells = _divide(params, ctx, cells, words[1], 1.0 - strength["stagnation"][0])
        ctx.metric("alive", jnp.sum(cells["alive"], dtype=jnp.int32))
        ctx.metric_sum("energy", cells["energy"])
        ctx.metric_sum("generation", cells["generation"], cells["alive"])
        record_histogram(ctx, static, cells)
        return {"cells": cells, "demand": demand}

    def report_streams(self, config: CellsConfig) -> tuple[str, ...]:
        """Population metrics are sums over islands, so the host adds them."""
        return ("population_metrics",)

    def report(self, config: CellsConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
        """See `population_rows`."""
        return population_rows(config, interval, memory)

    def control(self, config: CellsConfig, params: Any, name: str, message: Mapping[str, Any]) -> Any:
        """``difficulty``: factors on difficulty and reward."""
        if name != "difficulty":
            raise InvalidControl(f"cells take the control 'difficulty'; {name!r} came")
        return apply_difficulty(config, params, message)

    def violations(self, config: CellsConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Traits in range, no energy with the dead, nobody alive without energy or mass."""
        cells = state["cells"]
        alive = cells["alive"]
        for trait, (_, low, high) in TRAITS.items():
            values = cells[trait][alive]
            if len(values) and not (np.float32(low) <= values.min() and values.max() <= np.float32(high)):
                yield f"{trait} of a living cell is outside {low} to {high}"
        if cells["energy"][~alive].any():
            yield "a dead slot holds energy"
        if (cells["energy"][alive] < 0).any() or not (cells["mass"][alive] > 0).all():
            yield "a living cell has negative energy or no mass"


def _solve(params: Mapping[str, Any], ctx: Context, cells: Population, word: Array, insight: Array) -> Array:
    """Accuracy of each cell at its problem; float32 in (0, 1]."""
    first, second = ctx.uniforms("input", ctx.lanes(len(PROBLEMS) * INPUTS // 2))
    inputs = (2.0 * jnp.concatenate([first, second]) - 1.0).reshape(len(PROBLEMS), INPUTS)
    truth = jnp.tanh(jnp.sum(params["targets"] * inputs, axis=1))
    kind = problem_of(word)
    hardness = params["sharpness"] * params["difficulty"] * (1.0 - insight)

    def accuracy(weights: list[Array]) -> Array:
        sums = []
        for problem in range(len(PROBLEMS)):
            own = weights[problem * INPUTS : (problem + 1) * INPUTS]
            sums.append(sum(weight * inputs[problem, number] for number, weight in enumerate(own)))
        total = jnp.where(kind < 2, jnp.where(kind == 0, sums[0], sums[1]), jnp.where(kind == 2, sums[2], sums[3]))
        right = jnp.where(kind < 2, jnp.where(kind == 0, truth[0], truth[1]), jnp.where(kind == 2, truth[2], truth[3]))
        error = 0.5 * jnp.abs(jnp.tanh(total) - right)
        power = cells["tpu_efficiency"] * jnp.sqrt(cells["tpu_cores"] * cells["tpu_memory"])
        return power / (power + hardness * _factor(word) * error)

    stored: Array = ctx.stored(accuracy, [cells[name] for name in WEIGHTS])
    return stored


def _factor(word: Array) -> Array:
    level = level_of(word)
    easy, medium, hard = LEVEL_FACTORS
    return jnp.where(level == 0, easy, jnp.where(level == 1, medium, hard)).astype(jnp.float32)


def _fixed(energy: Array) -> Array:
    return jnp.round(energy * ENERGY_UNIT).astype(jnp.int32)


def _earn(
    static: CellsStatic,
    params: Mapping[str, Any],
    ctx: Context,
    state: tuple[Population, Array],
    word: Array,
    accuracy: Array,
    depletion: Array,
) -> tuple[Population, dict[str, Array], Array]:
    """Income, cost and growth: the cells after them, the columns of the attempt, and this tick's demand for energy."""
    cells, demand = state
    alive = cells["alive"]
    reward = params["reward"] * (1.0 - depletion) * _factor(word) * accuracy
    yielded = params["supply"] * (1.0 - depletion) * jnp.float32(static.slots)
    share = jnp.minimum(yielded / jnp.maximum(demand, 1e-6), 1.0)
    income = jnp.where(alive, _fixed(share * reward), 0)
    growth = jnp.where(cells["mass"] < cells["division_size"], cells["growth_rate"] * cells["metabolism"], 0.0)
    upkeep = cells["metabolism"] * (0.5 + 0.5 * cells["mass"])
    hardware = params["core_cost"] * cells["tpu_cores"] + params["memory_cost"] * cells["tpu_memory"]
    cost = jnp.where(alive, _fixed(upkeep + hardware + params["growth_cost"] * growth), 0)
    wanted = exact_sum(_fixed(reward), alive)
    ctx.metric_sum("income", income)
    ctx.metric_sum("cost", cost)
    ctx.metric_sum("accuracy", (accuracy * 65_536).astype(jnp.int32), alive)
    ctx.metric("attempts", jnp.sum(alive, dtype=jnp.int32))
    after = {
        **cells,
        "energy": cells["energy"] + income - cost,
        "mass": cells["mass"] + growth,
        "accuracy": cells["accuracy"] + MEMORY_OF_ACCURACY * (accuracy - cells["accuracy"]),
    }
    attempt = {
        "word": word,
        "accuracy": accuracy,
        "income": income,
        "solved": unit(word) < accuracy,
        "difficulty": jnp.broadcast_to(params["difficulty"], accuracy.shape),
    }
    total = (wanted.high.astype(jnp.float32) * 65_536 + wanted.low.astype(jnp.float32)) / ENERGY_UNIT
    return after, attempt, total


def _die(
    params: Mapping[str, Any], ctx: Context, cells: Population, word: Array, strength: Mapping[str, tuple[Array, Array]]
) -> Array:
    """Who dies in this tick: starved, by hazard, or by a planted collapse or bottleneck in the tick it starts."""
    age = (ctx.tick - cells["birth_tick"]).astype(jnp.float32)
    chance = params["hazard"] + params["ageing"] * age
    for kind in ("collapse", "bottleneck"):
        share, starts = strength[kind]
        chance = jnp.maximum(chance, jnp.where(starts, share, 0.0))
    return cells["alive"] & ((cells["energy"] <= 0) | (unit(word) < chance))


def _divide(params: Mapping[str, Any], ctx: Context, cells: Population, word: Array, mutability: Array) -> Population:
    """Births: mothers and daughters get half of everything, daughters may mutate. Tells of them."""
    told: dict[str, Array] = {}
    grown = cells["alive"] & (cells["mass"] >= cells["division_size"])
    able = grown & (cells["energy"] >= _fixed(params["division_energy"]))

    def child(mothers: Population, births: Births) -> tuple[dict[str, Array], dict[str, Array]]:
        mutated = ctx.uniform("mutates", births.lanes) < mothers["mutation_rate"] * mutability
        noise = [params["mutation_step"] * value for value in ctx.noise("mutation", GENES, births.lanes)]
        own: dict[str, Array] = {}
        for step, (trait, (_, low, high)) in zip(noise, TRAITS.items(), strict=False):
            own[trait] = jnp.where(mutated, jnp.clip(mothers[trait] * jnp.exp(step), low, high), mothers[trait])
        better = jnp.float32(0)
        for number, weight in enumerate(WEIGHTS):
            own[weight] = mothers[weight] + jnp.where(mutated, noise[len(TRAITS) + number], 0.0)
            target = params["targets"][number // INPUTS, number % INPUTS]
            better = better + (mothers[weight] - target) ** 2 - (own[weight] - target) ** 2
        told["mutated"] = mutated
        told["magnitude"] = jnp.where(mutated, jnp.sqrt(sum(step * step for step in noise) / GENES), 0.0)
        told["delta"] = better / len(WEIGHTS)
        told["mother_tick"] = mothers["birth_tick"]
        half = mothers["energy"] >> 1
        own |= {"energy": half, "mass": 0.5 * mothers["mass"], "generation": mothers["generation"] + 1}
        return own, {"energy": mothers["energy"] - half, "mass": 0.5 * mothers["mass"]}

    # The low bits of the word decided nothing yet; multiplying brings them up to where `spawn` looks.
    after, births = ctx.spawn(cells, able, child, luck=word * jnp.uint32(0x9E3779B1))
    ctx.metric("births", births.count)
    emit_births(ctx, after, births, told)
    return after


CELLS = Cells()
