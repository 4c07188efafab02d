"""Cells with a hybrid genome (biology, neural weights, TPU hardware) that gain energy by solving problems.

Each tick has a problem of one random type k, which every living cell attempts at a random level. The cell's answer is
``tanh(w_k . x)``, the correct one ``tanh(v_k . x)``. With e half their absolute difference, and the hardware's power
``h = efficiency * sqrt(cores * memory)``::

    accuracy = h / (h + sharpness * difficulty * level * e)
    reward   = reward * level * accuracy
    income   = reward * min(1, supply * slots / sum of all rewards of the tick before)
    growth   = growth_rate * metabolism, while energy is left and mass is below division_size
    cost     = metabolism * (0.5 + 0.5 mass) + core_cost * cores + memory_cost * memory + growth_cost * growth

So energy is scarce and cells compete for it by accuracy. It is int32 in units of 1/1024, and the ledger closes exactly:
energy now = energy before + income - cost - energy of the dead. A cell of division_size with enough energy divides into
two halves; the daughter mutates with probability mutation_rate. A cell dies without energy, or with probability
``hazard + ageing * age``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import Births, Context
from astrocyte.simulator.event_spec import EventSpec, HostRow
from astrocyte.simulator.population import Population, compact, exact_sum, put, take
from astrocyte.simulator.rng import unit
from astrocyte.simulator.scenario import Interval, InvalidControl, Scenario
from astrocyte.simulator.scenarios.cells.config import (
    ENERGY_UNIT,
    GENES,
    INPUTS,
    LEVEL_FACTORS,
    PLANT_KINDS,
    PROBLEMS,
    ROW,
    TRAITS,
    CellsConfig,
    CellsStatic,
    apply_difficulty,
    cells_params,
)
from astrocyte.simulator.scenarios.cells.events import (
    HISTOGRAMS,
    cell_events,
    death_columns,
    emit_births,
    emit_routine,
    last_vitals,
    level_of,
    population_rows,
    record_traits,
)

__all__ = ["CELLS", "Cells"]

FULL = 8192 * ENERGY_UNIT
"""Energy from which a cell gains no more; keeps exact sums within their words."""


class Cells(Scenario):
    """Cells that gain energy by solving problems."""

    name: ClassVar[str] = "cells"
    Config: ClassVar[type[ScenarioConfig]] = CellsConfig
    sample: ClassVar[Mapping[str, Any]] = {
        "size": 1024,
        "routine_share": 0.2,
        "plants": [
            {"kind": "collapse", "at_tick": 30},
            {"kind": "depletion", "at_tick": 40, "ticks": 10},
            {"kind": "decline", "at_tick": 45, "ticks": 10},
            {"kind": "hypermutation", "at_tick": 50, "ticks": 10},
        ],
    }
    size_setting: ClassVar[str | None] = "size"
    int_metrics: ClassVar[tuple[str, ...]] = ("alive", "births", "deaths", "attempts")
    vector_metrics: ClassVar[Mapping[str, int]] = HISTOGRAMS
    sum_metrics: ClassVar[tuple[str, ...]] = ("energy", "income", "cost", "lost", "accuracy", "generation")
    controls: ClassVar[tuple[str, ...]] = ("difficulty",)

    def static(self, config: CellsConfig) -> CellsStatic:
        """Shapes and periods."""
        return CellsStatic(
            config.island_slots, config.burst, config.metrics_every, config.routine_every, config.routine_share
        )

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
        """``births`` a tick, and ``mutants`` among them."""
        return {"births": static.burst, "mutants": max(static.burst // 2, 32)}

    def events(self, static: CellsStatic) -> tuple[EventSpec, ...]:
        """See `cell_events`."""
        return cell_events(static)

    def init(self, static: CellsStatic, params: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """Founders in a random share of the slots, each its own lineage, traits spread by 20 % around their means."""
        n = static.slots
        luck, growth = ctx.uniforms("founders")
        noise = ctx.noise("genome", GENES)
        mean, low, high = _bounds()
        traits = jnp.clip(mean * jnp.exp(0.2 * noise[: len(TRAITS)]), low, high)
        genome = jnp.concatenate([traits, 0.5 * noise[len(TRAITS) :]])
        alive = luck < params["initial"]
        cells = {
            "alive": alive,
            "energy": jnp.where(alive, _fixed(params["founder_energy"]), 0),
            "mass": genome[ROW["division_size"]] * (0.5 + 0.5 * growth),
            "birth_tick": jnp.zeros(n, jnp.uint32),
            "generation": jnp.zeros(n, jnp.int32),
            "lineage": ctx.place(),
            "genome": genome,
        }
        return {"cells": cells, "demand": jnp.float32(0)}

    def step(
        self, static: CellsStatic, params: Mapping[str, Any], state: dict[str, Any], ctx: Context
    ) -> dict[str, Any]:
        """One tick: solve, earn and pay, grow, die, divide, emit."""
        cells, demand = state["cells"], state["demand"]
        words = ctx.bits("cell")
        strength = {kind: ctx.planted(params["plants"], number) for number, kind in enumerate(PLANT_KINDS)}
        problem, accuracy = _solve(params, ctx, cells, words[0], strength["breakthrough"][0])
        # Stored, so that only this block reads traits before births overwrite them: otherwise XLA copies every trait.
        dense = partial(_live, static, params, strength, ctx.tick)
        outcome: _Outcome = ctx.stored(dense, cells, demand, words, accuracy)
        wanted = exact_sum(outcome.wanted)
        ctx.metric_sum("income", outcome.income)
        ctx.metric_sum("cost", outcome.cost)
        ctx.metric_sum("lost", outcome.energy, outcome.dead)
        ctx.metric_sum("accuracy", (accuracy * 65_536).astype(jnp.int32), cells["alive"])
        ctx.metric("attempts", jnp.sum(cells["alive"], dtype=jnp.int32))
        deaths = jnp.sum(outcome.dead, dtype=jnp.int32)
        ctx.metric("deaths", deaths)
        cells = {**cells, "energy": outcome.energy, "mass": outcome.mass}
        cells = ctx.remove(
            cells,
            outcome.dead,
            "death",
            partial(death_columns, ctx),
            zero=("energy",),
            also={"last": partial(last_vitals, ctx, static)},
        )
        cells, births = _divide(params, ctx, cells, words[1], strength, deaths)
        ctx.metric("births", births.count)
        ctx.metric("alive", births.alive)
        ctx.metric_sum("energy", cells["energy"])
        record_traits(ctx, static, cells)
        # Emitted after the births, from the arrays that remain. Newborns are excluded: their slot's attempt was not
        # theirs.
        newborn = cells["birth_tick"] == ctx.tick + 1
        attempt = {
            "word": words[0],
            "accuracy": accuracy,
            "income": outcome.income,
            "problem": problem,
            "difficulty": params["difficulty"],
        }
        emit_routine(ctx, static, cells, attempt, cells["alive"] & ~newborn)
        return {"cells": cells, "demand": (wanted.high * 65_536.0 + wanted.low) / ENERGY_UNIT}

    def report_streams(self, config: CellsConfig) -> tuple[str, ...]:
        """Population metrics are sums over islands, so the host adds them."""
        return ("population_metrics",)

    def report(self, config: CellsConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
        """See `population_rows`."""
        return population_rows(config, interval, memory)

    def control(self, config: CellsConfig, params: Any, name: str, message: Mapping[str, Any]) -> Any:
        """``difficulty``: factors on difficulty and reward."""
        if name != "difficulty":
            raise InvalidControl(f"cells: expected the control 'difficulty', got {name!r}")
        return apply_difficulty(config, params, message)

    def violations(self, config: CellsConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Traits in range, dead slots without energy, living cells with energy and mass, the ledger closed."""
        cells = state["cells"]
        alive = cells["alive"]
        for trait, (_, low, high) in TRAITS.items():
            values = cells["genome"][ROW[trait]][alive]
            if len(values) and not (np.float32(low) <= values.min() and values.max() <= np.float32(high)):
                yield f"{trait} of a living cell is outside {low} to {high}"
        if cells["energy"][~alive].any():
            yield "a dead slot holds energy"
        if (cells["energy"][alive] < 0).any() or not (cells["mass"][alive] > 0).all():
            yield "a living cell has negative energy or no mass"
        total = {name: values.sum(axis=1) for name, values in interval.metrics.items() if values.ndim == 2}
        kept = total["income"] - total["cost"] - total["lost"]
        if (total["energy"][1:] - total["energy"][:-1] != kept[1:]).any():
            yield "the ledger of energy does not close"


def _solve(
    params: Mapping[str, Any], ctx: Context, cells: Population, word: Array, insight: Array
) -> tuple[Array, Array]:
    """The problem of this tick, and the accuracy of each cell at it; float32 in (0, 1]."""
    first = ctx.bits("problem", jnp.zeros((), jnp.uint32))[0]
    problem = (first % len(PROBLEMS)).astype(jnp.int32)
    inputs = 2.0 * jnp.concatenate(ctx.uniforms("input", ctx.lanes(INPUTS // 2))) - 1.0
    truth = jnp.tanh(jnp.sum(params["targets"][problem] * inputs))
    hardness = params["sharpness"] * params["difficulty"] * (1.0 - insight)

    def solve(which: int, cells: Population) -> Array:
        genome = cells["genome"]
        first = len(TRAITS) + which * INPUTS
        total = sum(genome[first + number] * inputs[number] for number in range(INPUTS))
        error = 0.5 * jnp.abs(jnp.tanh(total) - truth)
        power = genome[ROW["tpu_efficiency"]] * jnp.sqrt(genome[ROW["tpu_cores"]] * genome[ROW["tpu_memory"]])
        return power / (power + hardness * _factor(word) * error)

    # A switch, so that a tick reads the weights of its own problem only: a quarter of the genome.
    accuracy = lax.switch(problem, [partial(solve, which) for which in range(len(PROBLEMS))], cells)
    return problem, accuracy


def _factor(word: Array) -> Array:
    level = level_of(word)
    easy, medium, hard = LEVEL_FACTORS
    return jnp.where(level == 0, easy, jnp.where(level == 1, medium, hard)).astype(jnp.float32)


def _bounds() -> tuple[Array, Array, Array]:
    """Mean, low and high of the traits, each [traits, 1]."""
    mean, low, high = (jnp.asarray(column, jnp.float32)[:, None] for column in zip(*TRAITS.values(), strict=True))
    return mean, low, high


def _fixed(energy: Array) -> Array:
    return jnp.round(energy * ENERGY_UNIT).astype(jnp.int32)


class _Outcome(NamedTuple):
    """State of each cell after a tick, before deaths and births."""

    energy: Array
    mass: Array
    wanted: Array
    """Energy that the attempt would earn if supply were unlimited; fixed point."""
    income: Array
    cost: Array
    dead: Array


def _live(
    static: CellsStatic,
    params: Mapping[str, Any],
    strength: Mapping[str, tuple[Array, Array]],
    tick: Array,
    cells: Population,
    demand: Array,
    words: tuple[Array, Array],
    accuracy: Array,
) -> _Outcome:
    """Earn, pay, grow, and decide deaths: by starvation, by hazard, or by a planted anomaly."""
    alive, mass = cells["alive"], cells["mass"]
    trait = {name: cells["genome"][row] for name, row in ROW.items()}
    left = 1.0 - strength["depletion"][0]
    reward = jnp.where(alive & (cells["energy"] < FULL), params["reward"] * left * _factor(words[0]) * accuracy, 0.0)
    yielded = params["supply"] * left * jnp.float32(static.slots)
    income = _fixed(jnp.minimum(yielded / jnp.maximum(demand, 1e-6), 1.0) * reward)
    growth = jnp.where(mass < trait["division_size"], trait["growth_rate"] * trait["metabolism"], 0.0)
    upkeep = trait["metabolism"] * (0.5 + 0.5 * mass)
    hardware = params["core_cost"] * trait["tpu_cores"] + params["memory_cost"] * trait["tpu_memory"]
    cost = jnp.where(alive, _fixed(upkeep + hardware + params["growth_cost"] * growth), 0)
    energy = cells["energy"] + income - cost
    chance = params["hazard"] + params["ageing"] * (tick - cells["birth_tick"]).astype(jnp.float32)
    for kind in ("collapse", "bottleneck"):
        share, starts = strength[kind]
        chance = jnp.maximum(chance, jnp.where(starts, share, 0.0))
    share, starts = strength["sweep"]
    swept = lax.cond(starts, partial(_unusual, share, alive, trait), lambda: jnp.zeros_like(alive))
    dead = alive & ((energy <= 0) | swept | (unit(words[1]) < chance))
    return _Outcome(energy, mass + growth, _fixed(reward), income, cost, dead)


def _unusual(share: Array, alive: Array, trait: Mapping[str, Array]) -> Array:
    """About that share of the cells: those whose metabolism and cores are furthest from the mean, on a log scale."""
    distance = jnp.zeros(alive.shape, jnp.float32)
    count = jnp.maximum(jnp.sum(alive), 1)
    for name in ("metabolism", "tpu_cores"):
        value = jnp.log(trait[name])
        off = value - jnp.sum(jnp.where(alive, value, 0.0)) / count
        distance += off * off / jnp.maximum(jnp.sum(jnp.where(alive, off * off, 0.0)) / count, 1e-9)
    # Of a normal distribution of two traits the share exp(-d / 2) is further than d.
    return distance > -2.0 * jnp.log(jnp.maximum(share, 1e-9))


def _more_often(chance: Array, share: Array) -> Array:
    """Probabilities whose odds are 1 / (1 - share) times as large; the same bits where ``share`` is 0."""
    raised = chance / jnp.maximum(chance + (1.0 - chance) * (1.0 - share), 1e-9)
    return jnp.where(share > 0.0, raised, chance)


def _replacement(ctx: Context, deaths: Array, share: Array) -> Array:
    """Largest number of births of this tick: those that replace all deaths but ``share`` of them, where that is not 0.

    Rounded up or down at random, so that the mean holds in a small world too.
    """
    luck = ctx.uniform("replacement", jnp.zeros((), jnp.uint32))
    replaced = jnp.floor((1.0 - share) * deaths.astype(jnp.float32) + luck).astype(jnp.int32)
    return jnp.where(share > 0.0, replaced, ctx.slots)


def _divide(
    params: Mapping[str, Any],
    ctx: Context,
    cells: Population,
    word: Array,
    strength: Mapping[str, tuple[Array, Array]],
    deaths: Array,
) -> tuple[Population, Births]:
    """Births: mother and daughter get half of energy and mass each, daughters may mutate. Emits their events."""
    grown = cells["alive"] & (cells["mass"] >= cells["genome"][ROW["division_size"]])
    able = grown & (cells["energy"] >= _fixed(params["division_energy"]))

    def child(mothers: Population, births: Births) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        genome, split = mothers["genome"], len(TRAITS)
        chance = genome[ROW["mutation_rate"]] * (1.0 - strength["stagnation"][0])
        chance = _more_often(chance, strength["hypermutation"][0])
        mutated = births.valid & (ctx.uniform("mutates", births.lanes) < chance)
        # Noise is drawn for the mutants only, in a separate buffer: it is most of the cost of a birth.
        room = ctx.capacity("mutants")
        row, mutants = ctx.stored(partial(compact, capacity=room), mutated)
        before = take(genome, row)
        noise = params["mutation_step"] * ctx.noise("mutation", GENES, births.lanes[row])
        _, low, high = _bounds()
        traits = jnp.clip(before[:split] * jnp.exp(noise[:split]), low, high)
        after = ctx.stored(lambda: jnp.concatenate([traits, before[split:] + noise[split:]]))
        target = params["targets"].reshape(-1, 1)
        gain = jnp.mean((before[split:] - target) ** 2 - (after[split:] - target) ** 2, axis=0)
        valid = jnp.arange(room) < mutants
        zero = jnp.zeros(births.valid.shape[0], jnp.float32)
        emitted = {
            "mutants": mutants,
            "mutated": mutated,
            "magnitude": put(zero, row, jnp.sqrt(jnp.mean(noise * noise, axis=0)), valid),
            "delta": put(zero, row, gain, valid),
            "mother_tick": mothers["birth_tick"],
            "mother_generation": mothers["generation"],
            "generation": mothers["generation"] + 1,
        }
        daughter = put(genome, row, after, valid)
        half = mothers["energy"] >> 1
        mass = 0.5 * mothers["mass"]
        own = {"genome": daughter, "energy": half, "mass": mass, "generation": emitted["generation"]}
        return own, {"energy": mothers["energy"] - half, "mass": mass}, emitted

    # The low bits of the word are unused so far; the product moves them to the high bits, which `spawn` uses.
    limit = _replacement(ctx, deaths, strength["decline"][0])
    after, births, emitted = ctx.spawn(cells, able, child, luck=word * jnp.uint32(0x9E3779B1), limit=limit)
    ctx.need("mutants", emitted["mutants"])
    emit_births(ctx, births, emitted)
    return after, births


CELLS = Cells()
