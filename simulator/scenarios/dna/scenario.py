"""A genetic algorithm over agents' configuration snapshots: selection, crossover, mutation, rollback, elite.

An agent's configuration is a point x of [0, 1]^12. Its karma, evaluated one tick after each snapshot, is

    karma = exp(-sharpness * mean((x - best)^2)) * exp(noise * normal), at most 1

Every ``generation_ticks`` the best share ``selected`` of a population stays unchanged and the others are bred: an agent
takes each key with probability ``crossover`` from a mate (one of the breeding pool that ``control.ga`` names, else an
elite agent, whose karma is 0.85 or more, else a selected one). Then each key mutates with probability
``mutation_rate`` by a normal step. With recombination "pool" every agent takes each key from a different selected agent
(gene-pool recombination).

Between generations an agent may save its configuration, be backed up, or roll back to its best snapshot if its karma
fell below its best. Each change is a snapshot of the next version; ids are (tick, agent), so they increase and never
repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import NO_PLACE, Context
from astrocyte.simulator.event_spec import EventSpec
from astrocyte.simulator.scenario import Interval, InvalidControl, Scenario
from astrocyte.simulator.scenarios.dna.config import (
    ELITE,
    ISLAND_AGENTS,
    ISLAND_POPULATIONS,
    KEYS,
    LEAST_SETTING,
    LOADINGS,
    PLANT_KINDS,
    DnaConfig,
    DnaStatic,
    dna_params,
)
from astrocyte.simulator.scenarios.dna.control import KEPT, apply_ga, no_orders
from astrocyte.simulator.scenarios.dna.events import BACKUP, INITIAL, ROLLBACK, SAVE, dna_events
from astrocyte.simulator.scenarios.dna.genetics import (
    choose,
    choose_among,
    crossover,
    gene_pool,
    mutate,
    ranking,
    truncation,
)

__all__ = ["DNA", "Dna"]

State = dict[str, Array]


class Dna(Scenario):
    """Agents whose configurations evolve."""

    name: ClassVar[str] = "dna"
    Config: ClassVar[type[ScenarioConfig]] = DnaConfig
    size_setting: ClassVar[str | None] = "size"
    sample: ClassVar[Mapping[str, Any]] = {"size": 24, "generation_ticks": 4, "rollback": 0.5, "save": 0.02}
    int_metrics: ClassVar[tuple[str, ...]] = ("agents", "mutations", "snapshots", "scores", "elite")
    sum_metrics: ClassVar[tuple[str, ...]] = ("karma",)
    controls: ClassVar[tuple[str, ...]] = ("ga",)

    def static(self, config: DnaConfig) -> DnaStatic:
        """Shapes and switches."""
        block = -(-config.populations // self.islands(config))
        return DnaStatic(
            config.size, block, config.populations, config.generation_ticks, config.recombination, config.watched
        )

    def islands(self, config: DnaConfig) -> int:
        """Whole populations, up to 65,536 agents and 256 populations an island."""
        most = min(max(ISLAND_AGENTS // config.size, 1), ISLAND_POPULATIONS)
        return -(-config.populations // most)

    def slots(self, static: DnaStatic) -> int:
        """A slot is an agent."""
        return static.island_populations * static.size

    def params(self, config: DnaConfig) -> Mapping[str, Any]:
        """See `dna_params`, and `no_orders` for the commands of ``control.ga``."""
        return {**dna_params(config), **no_orders()}

    def control(self, config: DnaConfig, params: Any, name: str, message: Mapping[str, Any]) -> Any:
        """``ga``: mutation rate, mates and elite from an external controller."""
        if name != "ga":
            raise InvalidControl(f"dna: expected the control 'ga', got {name!r}")
        return apply_ga(config, params, message)

    def events(self, static: DnaStatic) -> tuple[EventSpec, ...]:
        """See `dna_events`."""
        return dna_events(static)

    def init(self, static: DnaStatic, params: Mapping[str, Any], ctx: Context) -> State:
        """Random configurations; their first snapshots are made in tick 0."""
        n = self.slots(static)
        words = ctx.uniforms("dna", ctx.lanes(), jnp.arange(len(KEYS) // 2, dtype=jnp.uint32)[:, None])
        genome = jnp.concatenate(words)
        zero, nothing = jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.uint32)
        return {
            "genome": genome,
            "karma": zero,
            "scored": jnp.zeros(n, bool),
            "due": jnp.zeros(n, bool),
            "version": jnp.zeros(n, jnp.int32),
            "snapshot": nothing,
            "best_genome": genome,
            "best_karma": zero - 1.0,
            "best_version": jnp.zeros(n, jnp.int32),
            "best_snapshot": nothing,
        }

    def step(self, static: DnaStatic, params: Mapping[str, Any], state: State, ctx: Context) -> State:
        """One tick: evaluate what is due, then roll back, save or breed."""
        strength = {kind: ctx.planted(params["plants"], number)[0] for number, kind in enumerate(PLANT_KINDS)}
        number = ctx.place().astype(jnp.int32)
        exists = number < static.populations * static.size
        watched = exists & (_hash(ctx.place()) <= jnp.uint32(min(int(static.watched * 2**32), 2**32 - 1)))
        state = _evaluate(params, state, ctx, exists, watched, strength)
        first = exists & (state["version"] == 0)
        luck, other = ctx.uniforms("change")
        settled = exists & state["scored"] & ~state["due"]
        back = (
            settled & (state["karma"] < state["best_karma"] - params["rollback_margin"]) & (luck < params["rollback"])
        )
        save = settled & ~back & (other < params["save"] + params["backup"])
        breeding = (ctx.tick % jnp.uint32(static.generation_ticks) == 0) & (ctx.tick > 0)
        bred, child, mate, elite = _breed(static, params, state, ctx, 1.0 - strength["stagnation"])
        bred = bred & breeding & settled & ~back & ~save
        common = {"snapshot_id": (jnp.broadcast_to(ctx.tick, number.shape), ctx.place()), "agent": number,
                  "version": state["version"] + 1}  # fmt: skip
        parent = jnp.where(back, state["best_snapshot"], state["snapshot"])
        parent_place = jnp.where(first, jnp.uint32(NO_PLACE), ctx.place())
        cause = jnp.where(first, INITIAL, jnp.where(back, ROLLBACK, jnp.where(other < params["save"], SAVE, BACKUP)))
        made = first | back | save
        ctx.emit(
            "snapshot",
            watched & made,
            **common,
            parent_snapshot_id=(parent, parent_place),
            source=(cause == BACKUP).astype(jnp.int32),
            **_size(jnp.where(back, state["best_genome"], state["genome"])),
            cause=cause,
            back_to=state["best_version"],
        )
        change = child - state["genome"]
        bits = jnp.left_shift(1, jnp.arange(len(KEYS), dtype=jnp.int32))[:, None]
        ctx.emit(
            "mutation",
            watched & bred,
            **common,
            parent_snapshot_id=(state["snapshot"], ctx.place()),
            changed=jnp.sum(jnp.where(change != 0, bits, 0), axis=0, dtype=jnp.int32),
            delta=jnp.asarray(LOADINGS) @ change,
            mate=mate,
            elite=elite,
            **_size(child),
        )
        ctx.metric("mutations", jnp.sum(bred, dtype=jnp.int32))
        ctx.metric("snapshots", jnp.sum(made, dtype=jnp.int32))
        new = made | bred
        genome = jnp.where(back, state["best_genome"], jnp.where(bred, child, state["genome"]))
        return {
            **state,
            "genome": genome,
            "due": state["due"] | first | back | bred,
            "version": state["version"] + new,
            "snapshot": jnp.where(new, ctx.tick, state["snapshot"]),
        }

    def violations(self, config: DnaConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Karma and keys within 0 and 1, and no agent's karma above its best."""
        if not ((state["karma"] >= 0) & (state["karma"] <= 1)).all():
            yield "a karma is outside 0 to 1"
        if not ((state["genome"] >= 0) & (state["genome"] <= 1)).all():
            yield "a key of a configuration is outside 0 to 1"
        if (state["karma"] > state["best_karma"])[state["scored"]].any():
            yield "an agent's karma is above its best"
        if config.watched == 1.0 and interval.metrics["mutations"].sum() != len(interval.rows["mutation"].ticks):
            yield "mutations counted and mutations emitted differ"


def _hash(words: Array) -> Array:
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def karma_of(genome: Array, target: Array, sharpness: Array) -> Array:
    """Karma of configurations [keys, n] without the noise of evaluation."""
    return jnp.exp(-sharpness * jnp.mean((genome - target[:, None]) ** 2, axis=0))


def _size(genome: Array) -> dict[str, Array]:
    """Numbers of keys and traits that snapshots of configurations [keys, n] hold; int32[n]."""
    return {
        "dna_size": jnp.sum(genome >= LEAST_SETTING, axis=0, dtype=jnp.int32),
        "traits_count": jnp.sum(jnp.asarray(LOADINGS) @ genome > 0.0, axis=0, dtype=jnp.int32),
    }


def _evaluate(
    params: Mapping[str, Any], state: State, ctx: Context, exists: Array, watched: Array, strength: Mapping[str, Array]
) -> State:
    """Score the snapshots that are due, those after a rollback included."""
    due = exists & state["due"] & (strength["outage"] == 0)
    sharpness = params["sharpness"] * (1.0 - strength["breakthrough"])
    noise = jnp.exp(params["noise"] * ctx.normals("karma")[0])
    score = jnp.clip(karma_of(state["genome"], params["target"], sharpness) * noise, 0.0, 1.0)
    again = state["scored"]
    common = {"snapshot_id": (state["snapshot"], ctx.place()), "agent": ctx.place().astype(jnp.int32),
              "version": state["version"], "karma_score": score}  # fmt: skip
    ctx.emit("first_karma", watched & due & ~again, **common)
    previous = {"previous_score": state["karma"], "score_delta": score - state["karma"]}
    ctx.emit("karma", watched & due & again, **common, **previous)
    karma = jnp.where(due, score, state["karma"])
    scored = again | due
    better = due & (score > state["best_karma"])
    ctx.metric("agents", jnp.sum(exists, dtype=jnp.int32))
    ctx.metric("scores", jnp.sum(due, dtype=jnp.int32))
    ctx.metric("elite", jnp.sum(exists & (karma >= ELITE), dtype=jnp.int32))
    ctx.metric_sum("karma", (karma * 65_536).astype(jnp.int32), exists)
    return {
        **state,
        "karma": karma,
        "scored": scored,
        "due": state["due"] & ~due,
        "best_genome": jnp.where(better, state["genome"], state["best_genome"]),
        "best_karma": jnp.where(better, score, state["best_karma"]),
        "best_version": jnp.where(better, state["version"], state["best_version"]),
        "best_snapshot": jnp.where(better, state["snapshot"], state["best_snapshot"]),
    }


def _breed(
    static: DnaStatic, params: Mapping[str, Any], state: State, ctx: Context, progress: Array
) -> tuple[Array, Array, Array, Array]:
    """For each agent: whether it is bred, its new configuration, its mate (-1: none), whether that is elite."""
    shape = (static.island_populations, static.size)
    fitness = jnp.where(state["scored"], state["karma"], -1.0).reshape(shape)
    order, rank = ranking(fitness)
    selected = truncation(rank, params["selected"])
    count = jnp.sum(selected, axis=1, dtype=jnp.int32)
    elite = jnp.sum(fitness >= ELITE, axis=1, dtype=jnp.int32)
    genome = state["genome"].reshape(len(KEYS), *shape)
    draws = jnp.arange(len(KEYS), dtype=jnp.uint32)[:, None]
    first, second = ctx.uniforms("gene", ctx.lanes(), draws)
    gene_luck = first.reshape(genome.shape)
    luck, other = (words.reshape(shape) for words in ctx.uniforms("mate"))
    noise = ctx.noise("mutation", len(KEYS)).reshape(genome.shape)
    pool, ordered = _orders(params, ctx, shape)
    kept = pool
    if static.recombination != "pool":
        kept &= ~selected  # those are not bred anyhow, and need no protection
    # Of the protected ones the best, as many as may be (`KEPT`).
    best = jnp.cumsum(jnp.take_along_axis(kept, order, axis=1), axis=1) <= max(1, static.size // KEPT)
    kept &= jnp.take_along_axis(best, rank, axis=1)
    if static.recombination == "pool":
        mixed = gene_pool(genome, choose(order, count, gene_luck))
        mate = chosen = jnp.full(shape, -1, jnp.int32)
        bred = ~kept
    else:
        chosen = choose(order, jnp.where(elite > 0, elite, count), luck)
        chosen = jnp.where(jnp.any(pool, axis=1)[:, None], choose_among(pool, luck), chosen)
        chosen = chosen + jnp.arange(shape[0], dtype=jnp.int32)[:, None] * shape[1]
        chosen = jnp.where(ordered >= 0, ordered, chosen)
        theirs = state["genome"][:, chosen.ravel()].reshape(genome.shape)
        mixed = crossover(genome, theirs, gene_luck, params["crossover"] * progress)
        took = jnp.any(mixed != genome, axis=0)
        mate = jnp.where(took, ctx.place(chosen).astype(jnp.int32), -1)
        bred = ~selected & ~kept
    child = mutate(
        mixed, second.reshape(genome.shape), noise, params["mutation_rate"], params["mutation_step"] * progress
    )
    # At least one key changes, so that every mutation event has a change.
    same = jnp.all(child == genome, axis=0) & (progress > 0)
    which = (other * len(KEYS)).astype(jnp.int32) == jnp.arange(len(KEYS), dtype=jnp.int32)[:, None, None]
    forced = mutate(genome, jnp.zeros_like(noise), noise, 1.0, params["mutation_step"])
    child = jnp.where(same & which, forced, child)
    changed = jnp.any(child != genome, axis=0)
    is_elite = (mate >= 0) & (fitness.ravel()[jnp.maximum(chosen, 0)] >= ELITE)
    return (bred & changed).ravel(), child.reshape(len(KEYS), -1), mate.ravel(), is_elite.ravel()


def _orders(params: Mapping[str, Any], ctx: Context, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Agents of the breeding pool, and the slot of each agent's fixed mate (-1: none); [populations, size]."""
    n = shape[0] * shape[1]
    first = (ctx.island * n).astype(jnp.int32)

    def slot(agents: Array) -> Array:
        # Agents of other islands and empty entries (-1) map to n and are dropped.
        here = agents - first
        return jnp.where((agents >= 0) & (here >= 0) & (here < n), here, n)

    kept = jnp.zeros(n, bool).at[slot(params["kept"])].set(True, mode="drop")
    agents, mates = params["mates"][:, 0], params["mates"][:, 1]
    ordered = jnp.full(n, -1, jnp.int32).at[slot(agents)].set(mates - first, mode="drop")
    return kept.reshape(shape), ordered.reshape(shape)


DNA = Dna()
