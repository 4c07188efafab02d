"""Events of cells: all births, deaths, divisions and mutations; weighted samples of single cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from astrocyte.simulator.context import Births, Context, Selected
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
    "last_vitals",
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
_FLOWS = ("births", "deaths", "income", "cost", "accuracy", "attempts")
"""Metrics that a row of population_metrics sums over the ticks since the row before."""


def cell_events(static: CellsStatic) -> tuple[EventSpec, ...]:
    """Kinds of events of cells."""
    own = (
        Column("event_type", "enum", _EVENT_TYPES),
        Column("cell_id", "id"),
        Column("generation", dtype="int32"),
        Column("age_ticks", dtype="int32"),
    )
    inherited = (
        Column("parent_id", "id"),
        Column("mutation_magnitude"),
        Column("fitness_delta"),
        Column("generation_gap", dtype="int32"),
    )
    evolution = {"birth": (*own, *inherited), "death": own, "mutation": (*own, *inherited), "division": own}
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
            EventSpec(kind, "evolutionary_events", columns, "event_type", capacity=static.burst)
            for kind, columns in evolution.items()
        ),
        EventSpec("last", "cell_vitals", vitals, "vitals", capacity=max(static.burst // 32 * 32, 128), weight=weight),
        EventSpec("vitals", "cell_vitals", vitals, "vitals", capacity=sample, weight=weight, every=every),
        EventSpec("genome", "genome_data", genome, "genome", capacity=sample, weight=weight, every=every),
        EventSpec("problem", "problem_solving", problem, "outcome", capacity=sample, weight=weight, every=every),
    )


def _age(ctx: Context, birth_tick: Array) -> Array:
    """Ticks since the birth, which is 0 in the tick of the birth itself: one before the birth tick."""
    return (ctx.tick + 1 - birth_tick).astype(jnp.int32)


def death_columns(ctx: Context, cells: Population, slots: Array) -> dict[str, Any]:
    """Columns of deaths from the rows of the dead."""
    return {
        "event_type": jnp.int32(_EVENT_TYPES.index("death")),
        "cell_id": (cells["birth_tick"], ctx.place(slots)),
        "generation": cells["generation"],
        "age_ticks": _age(ctx, cells["birth_tick"]),
    }


def last_vitals(ctx: Context, static: CellsStatic, cells: Population, slots: Array) -> tuple[Array, dict[str, Any]]:
    """Which of the dead are in the sample, and their vitals, with ``alive`` false; energy is not negative."""
    vitals = _vitals(ctx, cells, slots)
    vitals |= {"energy": jnp.maximum(cells["energy"], 0), "alive": jnp.zeros(slots.shape, bool)}
    return _sampled(ctx, static, cells, slots), vitals


def _vitals(ctx: Context, cells: Population, slots: Array) -> dict[str, Any]:
    return {
        "cell_id": (cells["birth_tick"], ctx.place(slots)),
        "generation": cells["generation"],
        "lineage": (jnp.uint32(0), cells["lineage"]),
        "energy": cells["energy"],
        "mass": cells["mass"],
        "age_ticks": _age(ctx, cells["birth_tick"]),
        "alive": cells["alive"],
    }


def _sampled(ctx: Context, static: CellsStatic, cells: Population, slots: Array | None = None) -> Array:
    threshold = jnp.uint32(min(int(static.routine_share * 2**32), 0xFFFFFFFF))
    return sample_word(ctx.place(slots) ^ (cells["birth_tick"] * jnp.uint32(0xC2B2AE35)), ctx.tick) <= threshold


def emit_births(ctx: Context, births: Births, mutation: Mapping[str, Array]) -> None:
    """One birth and one division per child, and a mutation where there is one; ``mutation`` has rows of births."""
    rows = births.parent.shape[0]
    mother_tick = mutation["mother_tick"]
    mother = (mother_tick, ctx.place(births.parent))
    child = {
        "cell_id": (jnp.full(rows, ctx.tick + 1, jnp.uint32), ctx.place(births.slot)),
        "generation": mutation["generation"],
        "age_ticks": jnp.zeros(rows, jnp.int32),
        "parent_id": mother,
        "mutation_magnitude": mutation["magnitude"],
        "fitness_delta": mutation["delta"],
        "generation_gap": mutation["generation"] - mutation["mother_generation"],
    }
    code = {kind: jnp.int32(number) for number, kind in enumerate(_EVENT_TYPES)}
    ctx.emit_rows("birth", births.count, event_type=code["birth"], **child)
    ctx.emit_rows(
        "division",
        births.count,
        event_type=code["division"],
        cell_id=mother,
        generation=mutation["mother_generation"],
        age_ticks=_age(ctx, mother_tick),
    )
    ctx.emit("mutation", births.valid & mutation["mutated"], event_type=code["mutation"], **child)


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

    def body(inner: Context) -> None:
        chosen = inner.select("vitals", present & _sampled(inner, static, cells))
        taken = {name: take(values, chosen.index) for name, values in cells.items()}
        tried = {name: values[chosen.index] if values.ndim else values for name, values in attempt.items()}
        _emit_sample(inner, chosen, taken, tried)

    ctx.when(ctx.tick % jnp.uint32(static.routine_every) == 0, body)


def _emit_sample(ctx: Context, chosen: Selected, taken: Population, tried: Mapping[str, Array]) -> None:
    vitals = _vitals(ctx, taken, chosen.index)
    cell = vitals["cell_id"]
    ctx.emit_rows("vitals", chosen.count, **vitals)
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
    """``population_metrics`` every ``metrics_every`` ticks; accuracy, births, deaths, efficiency since the row before.

    The accuracy is a mean over all attempts of these ticks: each tick has one problem, whose type and inputs alone
    would decide the accuracy of a tick.
    """
    metrics = interval.metrics
    for offset, tick in enumerate(range(interval.first_tick, interval.end_tick)):
        total = {name: values[offset].sum(axis=0) for name, values in metrics.items()}
        total = {name: value if value.ndim else value.item() for name, value in total.items()}
        for name in _FLOWS:
            memory[name] = memory.get(name, 0) + total[name]
        if tick % config.metrics_every:
            continue
        alive = max(total["alive"], 1)
        values = {
            "simulation_id": interval.run,
            "tick": tick,
            "total_population": total["alive"],
            "avg_accuracy": memory["accuracy"] / 65_536 / max(memory["attempts"], 1),
            "genome_diversity": _diversity(total),
            "avg_generation": total["generation"] / alive,
            "energy_efficiency": memory["income"] / memory["cost"] if memory["cost"] else 0.0,
            "births": memory["births"],
            "deaths": memory["deaths"],
            "avg_energy": total["energy"] / ENERGY_UNIT / alive,
        }
        memory.update(dict.fromkeys(_FLOWS, 0))
        yield HostRow("population_metrics", tick, "snapshot", values)


def _diversity(total: Mapping[str, Any]) -> float:
    entropies = []
    for name in HISTOGRAMS:
        counts = total[name]
        shares = counts[counts > 0] / max(counts.sum(), 1)
        entropies.append(float(-(shares * np.log(shares)).sum()))
    return sum(entropies) / len(entropies)
