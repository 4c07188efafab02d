"""Events of cells: all births, deaths, divisions and mutations; weighted samples of single cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from astrocyte.simulator.context import NO_PLACE, Births, Context, Selected
from astrocyte.simulator.event_spec import Column, EventSpec, HostRow
from astrocyte.simulator.population import Population, take
from astrocyte.simulator.rng import unit
from astrocyte.simulator.scenario import Interval
from astrocyte.simulator.scenarios.cells.config import (
    ENERGY_UNIT,
    LEVEL_FACTORS,
    LEVELS,
    PROBLEMS,
    ROW,
    TRAITS,
    WEIGHTS,
    CellsConfig,
    CellsStatic,
)

__all__ = [
    "HISTOGRAMS",
    "cell_events",
    "death_columns",
    "emit_births",
    "emit_routine",
    "level_of",
    "population_rows",
    "record_traits",
    "sample_word",
]

BINS = 16
SPREAD = 64
HISTOGRAMS = {"metabolism_histogram": BINS, "tpu_cores_histogram": BINS}
"""Metrics that count cells by trait, in bins of equal ratio; only in ticks of population_metrics."""
_EVENT_TYPES = ("birth", "death", "mutation", "division")
_GENOME_TYPES = ("bio", "ai", "tpu")


def cell_events(static: CellsStatic) -> tuple[EventSpec, ...]:
    """Kinds of events of cells."""
    evolution = (
        Column("event_type", "enum", _EVENT_TYPES),
        Column("cell_id", "id"),
        Column("parent_id", "id"),
        Column("mutation_magnitude"),
        Column("fitness_delta"),
        Column("generation_gap", dtype="int32"),
    )
    sample = max(int(static.slots * static.routine_share * 1.3) // 32 * 32 + 64, 128)
    weight, every = 1.0 / static.routine_share, static.routine_every
    vitals = (
        Column("cell_id", "id"),
        Column("generation", dtype="int32"),
        Column("lineage", "id"),
        Column("energy", "fixed", scale=ENERGY_UNIT),
        Column("mass"),
        Column("age_ticks", dtype="int32"),
        Column("alive", dtype="bool"),
    )
    genome = (
        Column("cell_id", "id"),
        Column("genome_type", "enum", _GENOME_TYPES),
        *(Column(name) for name in TRAITS),
        Column("neural_weights", "list", width=WEIGHTS),
    )
    problem = (
        Column("outcome", "enum", ("failed", "solved")),
        Column("cell_id", "id"),
        Column("problem_type", "enum", PROBLEMS),
        Column("difficulty", "enum", LEVELS),
        Column("accuracy"),
        Column("energy_reward", "fixed", scale=ENERGY_UNIT),
        Column("processing_time"),
        Column("tpu_utilization"),
    )
    return (
        *(
            EventSpec(kind, "evolutionary_events", evolution, "event_type", capacity=static.burst)
            for kind in _EVENT_TYPES
        ),
        EventSpec("vitals", "cell_vitals", vitals, "vitals", capacity=sample, weight=weight, every=every),
        EventSpec("genome", "genome_data", genome, "genome", capacity=sample, weight=weight, every=every),
        EventSpec("problem", "problem_solving", problem, "outcome", capacity=sample, weight=weight, every=every),
    )


def death_columns(ctx: Context, cells: Population, slots: Array) -> dict[str, Any]:
    """Columns of deaths from the rows of the dead; generation_gap is the age."""
    return {
        "event_type": jnp.int32(_EVENT_TYPES.index("death")),
        "cell_id": (cells["birth_tick"], ctx.place(slots)),
        "parent_id": _no_id(),
        "mutation_magnitude": jnp.float32(0),
        "fitness_delta": jnp.float32(0),
        "generation_gap": (ctx.tick - cells["birth_tick"]).astype(jnp.int32),
    }


def emit_births(ctx: Context, births: Births, mutation: Mapping[str, Array]) -> None:
    """One birth and one division per child, and a mutation where there is one; ``mutation`` has rows of births."""
    rows = births.parent.shape[0]
    mother_tick = mutation["mother_tick"]
    child = (jnp.full(rows, ctx.tick + 1, jnp.uint32), ctx.place(births.slot))
    mother = (mother_tick, ctx.place(births.parent))
    gap = (ctx.tick + 1 - mother_tick).astype(jnp.int32)
    magnitude, delta = mutation["magnitude"], mutation["delta"]

    def columns(kind: str, cell: Any, parent: Any, magnitude: Array, delta: Array) -> dict[str, Any]:
        code = jnp.int32(_EVENT_TYPES.index(kind))
        return {"event_type": code, "cell_id": cell, "parent_id": parent, "mutation_magnitude": magnitude,
                "fitness_delta": delta, "generation_gap": gap}  # fmt: skip

    zero = jnp.float32(0)
    ctx.emit_rows("birth", births.count, **columns("birth", child, mother, magnitude, delta))
    ctx.emit_rows("division", births.count, **columns("division", mother, _no_id(), zero, zero))
    ctx.emit("mutation", births.valid & mutation["mutated"], **columns("mutation", child, mother, magnitude, delta))


def _no_id() -> tuple[Array, Array]:
    return jnp.uint32(0), jnp.uint32(NO_PLACE)


def level_of(word: Array) -> Array:
    """Number of the level that a random word selects: 0 (half of the words), 1 or 2; int32."""
    return jnp.maximum((word & 3).astype(jnp.int32) - 1, 0)


def sample_word(ids: Array, tick: Array) -> Array:
    """Hash of (id, tick) that selects the sampled cells: two rounds of multiply and shift; uint32."""
    word = ids * jnp.uint32(0x9E3779B1) ^ (tick * jnp.uint32(0x85EBCA6B))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ (word >> shift)) * jnp.uint32(factor)
    return word ^ (word >> 16)


def emit_routine(
    ctx: Context, static: CellsStatic, cells: Population, attempt: Mapping[str, Array], present: Array
) -> None:
    """State, genome and attempt of a sample of the cells in ``present``, every ``routine_every`` ticks."""
    threshold = jnp.uint32(min(int(static.routine_share * 2**32), 0xFFFFFFFF))

    def body(inner: Context) -> None:
        word = sample_word(inner.place() ^ (cells["birth_tick"] * jnp.uint32(0xC2B2AE35)), inner.tick)
        chosen = inner.select("vitals", present & (word <= threshold))
        taken = {name: take(values, chosen.index) for name, values in cells.items()}
        tried = {name: values[chosen.index] if values.ndim else values for name, values in attempt.items()}
        _emit_sample(inner, chosen, taken, tried)

    ctx.when(ctx.tick % jnp.uint32(static.routine_every) == 0, body)


def _emit_sample(ctx: Context, chosen: Selected, taken: Population, tried: Mapping[str, Array]) -> None:
    cell = (taken["birth_tick"], ctx.place(chosen.index))
    ctx.emit_rows(
        "vitals",
        chosen.count,
        cell_id=cell,
        generation=taken["generation"],
        lineage=(jnp.uint32(0), taken["lineage"]),
        energy=taken["energy"],
        mass=taken["mass"],
        age_ticks=(ctx.tick - taken["birth_tick"]).astype(jnp.int32),
        alive=taken["alive"],
    )
    genome = taken["genome"]
    trait = {name: genome[row] for name, row in ROW.items()}
    weights = genome[len(TRAITS) :]
    # The part that exceeds the founders' mean most: growth, weights, or hardware.
    strength = jnp.stack(
        [
            trait["growth_rate"] * trait["metabolism"] / (TRAITS["growth_rate"][0] * TRAITS["metabolism"][0]),
            2.0 * jnp.sqrt(jnp.mean(weights * weights, axis=0)),
            2.0 * trait["tpu_efficiency"] * jnp.sqrt(trait["tpu_cores"] * trait["tpu_memory"]),
        ]
    )
    ctx.emit_rows(
        "genome",
        chosen.count,
        cell_id=cell,
        genome_type=jnp.argmax(strength, axis=0).astype(jnp.int32),
        **trait,
        neural_weights=weights,
    )
    level = level_of(tried["word"])
    work = tried["difficulty"] * jnp.asarray(LEVEL_FACTORS, jnp.float32)[level]
    ctx.emit_rows(
        "problem",
        chosen.count,
        outcome=(unit(tried["word"]) < tried["accuracy"]).astype(jnp.int32),
        cell_id=cell,
        problem_type=jnp.broadcast_to(tried["problem"], level.shape),
        difficulty=level,
        accuracy=tried["accuracy"],
        energy_reward=tried["income"],
        processing_time=work / (trait["tpu_cores"] * trait["tpu_efficiency"]),
        tpu_utilization=jnp.minimum(work / (trait["tpu_cores"] * trait["tpu_memory"]), 1.0),
    )


def record_traits(ctx: Context, static: CellsStatic, cells: Population) -> None:
    """Counts of living cells by metabolism and by tpu_cores, sum of generations: in ticks of population_metrics."""

    def body(inner: Context) -> None:
        inner.metric_sum("generation", cells["generation"], cells["alive"])
        for trait in ("metabolism", "tpu_cores"):
            _, low, high = TRAITS[trait]
            scale = BINS / np.log(high / low)
            number = jnp.clip(jnp.log(cells["genome"][ROW[trait]] / low) * scale, 0, BINS - 1).astype(jnp.int32)
            number = jnp.where(cells["alive"], number, BINS)
            # Spread over lanes, so that a GPU's atomic additions do not contend for a few words.
            lane = jnp.arange(static.slots) % SPREAD
            counts = jnp.zeros((BINS + 1) * SPREAD, jnp.int32).at[number * SPREAD + lane].add(1)
            inner.metric(f"{trait}_histogram", jnp.sum(counts.reshape(-1, SPREAD), axis=1)[:BINS])

    ctx.when(ctx.tick % jnp.uint32(static.metrics_every) == 0, body)


def population_rows(config: CellsConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
    """``population_metrics`` every ``metrics_every`` ticks; births, deaths and efficiency since the row before."""
    metrics = interval.metrics
    for offset, tick in enumerate(range(interval.first_tick, interval.end_tick)):
        total = {name: values[offset].sum(axis=0) for name, values in metrics.items()}
        total = {name: value if value.ndim else value.item() for name, value in total.items()}
        for name in ("births", "deaths", "income", "cost"):
            memory[name] = memory.get(name, 0) + total[name]
        if tick % config.metrics_every:
            continue
        alive = max(total["alive"], 1)
        values = {
            "simulation_id": interval.run,
            "tick": tick,
            "total_population": total["alive"],
            "avg_accuracy": total["accuracy"] / 65_536 / max(total["attempts"], 1),
            "genome_diversity": _diversity(total),
            "avg_generation": total["generation"] / alive,
            "energy_efficiency": memory["income"] / memory["cost"] if memory["cost"] else 0.0,
            "births": memory["births"],
            "deaths": memory["deaths"],
            "avg_energy": total["energy"] / ENERGY_UNIT / alive,
        }
        memory.update(births=0, deaths=0, income=0, cost=0)
        yield HostRow("population_metrics", tick, "snapshot", values)


def _diversity(total: Mapping[str, Any]) -> float:
    entropies = []
    for name in HISTOGRAMS:
        counts = total[name]
        shares = counts[counts > 0] / max(counts.sum(), 1)
        entropies.append(float(-(shares * np.log(shares)).sum()))
    return sum(entropies) / len(entropies)
