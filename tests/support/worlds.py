"""Small worlds on the simulator's mechanisms, with behaviour known exactly from population genetics.

Islands are independent, so one run of many islands is many replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.event_spec import Column, EventSpec
from astrocyte.simulator.population import compact
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import Scenario
from astrocyte.simulator.scenarios.dna.genetics import mutate


class MoranConfig(ScenarioConfig):
    slots: int = Field(default=32, ge=2)
    replicates: int = 1
    deaths: int = 1
    advantage: float = 0.0  # fitness of allele 1 is 1 + advantage, of allele 0 it is 1
    mutation: float = 0.0  # from allele 0 to 1, at birth
    carriers: float = 0.5  # share of allele 1 at the start; below 0: exactly one carrier
    birth_rate: float = 1.0
    death_rate: float = -1.0  # below 0: `deaths` die in a full island, else each with this chance
    founders: int = 0  # 0: full
    births_capacity: int = 16


@dataclass(frozen=True)
class MoranStatic:
    slots: int
    births_capacity: int
    deaths: int  # 0: by chance


class Moran(Scenario):
    """Some die, as many are born to survivors: one wants a child with a chance of its fitness, the draw is equal."""

    name = "moran"
    Config = MoranConfig
    int_metrics = ("alive", "births", "deaths", "carriers")

    def static(self, config):
        return MoranStatic(config.slots, config.births_capacity, config.deaths if config.death_rate < 0 else 0)

    def params(self, config):
        names = ("advantage", "mutation", "carriers", "birth_rate", "death_rate", "founders")
        return {name: np.float32(getattr(config, name)) for name in names}

    def islands(self, config):
        return config.replicates

    def slots(self, static):
        return static.slots

    def capacities(self, static):
        return {"births": static.births_capacity}

    def events(self, static):
        ids = (Column("cell_id", "id"), Column("parent_id", "id"))
        slots = (Column("parent_slot", dtype="int32"), Column("noise"))
        return (
            EventSpec("death", "test_deaths", ids[:1], "death", capacity=static.births_capacity),
            EventSpec("birth", "test_births", ids + slots, "birth", capacity=static.births_capacity),
        )

    def init(self, static, params, ctx):
        n = static.slots
        slot = jnp.arange(n)
        allele = jnp.where(params["carriers"] < 0, slot == 0, ctx.uniform("allele") < params["carriers"])
        founders = jnp.where(params["founders"] > 0, params["founders"], n)
        return {"alive": slot < founders, "allele": allele.astype(jnp.int32), "birth_tick": jnp.zeros(n, jnp.uint32)}

    def step(self, static, params, state, ctx):
        luck, chance = ctx.uniforms("life")
        alive = state["alive"]
        if static.deaths:
            last = jnp.sort(luck)[static.deaths - 1] if static.deaths > 1 else jnp.min(luck)
            dead = alive & jnp.all(alive) & (luck <= last)
        else:
            dead = alive & (luck < params["death_rate"])
        state = ctx.remove(
            state, dead, "death", lambda rows, slots: {"cell_id": (rows["birth_tick"], ctx.place(slots))}
        )
        fitness = (1.0 + params["advantage"] * state["allele"]) / (1.0 + jnp.maximum(params["advantage"], 0.0))
        want = state["alive"] & (chance < params["birth_rate"] * fitness)

        def child(parents, births):
            mutates = ctx.uniform("mutates", births.lanes) < params["mutation"]
            allele = jnp.where(mutates, 1, parents["allele"])
            extra = {"tick": parents["birth_tick"], "noise": ctx.noise("noise", 1, births.lanes)[0]}
            return {"allele": allele}, {}, extra

        state, births, extra = ctx.spawn(state, want, child)
        ctx.emit_rows(
            "birth",
            births.count,
            cell_id=(jnp.full(births.slot.shape, ctx.tick + 1), ctx.place(births.slot)),
            parent_id=(extra["tick"], ctx.place(births.parent)),
            parent_slot=births.parent,
            noise=extra["noise"],
        )
        ctx.metric("deaths", jnp.sum(dead, dtype=jnp.int32))
        ctx.metric("births", births.count)
        ctx.metric("alive", births.alive)
        ctx.metric("carriers", jnp.sum(state["allele"] * state["alive"], dtype=jnp.int32))
        return state


MORAN = Moran()


@dataclass(frozen=True)
class DriftStatic:
    slots: int


class DriftConfig(ScenarioConfig):
    slots: int = 200
    replicates: int = 1


class WrightFisher(Scenario):
    """Each child picks a parent at random, many neutral loci in one word: tests the random numbers."""

    name = "wright_fisher"
    Config = DriftConfig
    int_metrics = ("carriers",)

    def static(self, config):
        return DriftStatic(config.slots)

    def params(self, config):
        return {}

    def islands(self, config):
        return config.replicates

    def slots(self, static):
        return static.slots

    def events(self, static):
        return ()

    def init(self, static, params, ctx):
        return (jnp.arange(static.slots) % 2).astype(jnp.int32)

    def step(self, static, params, state, ctx):
        parent = (ctx.uniform("parent") * static.slots).astype(jnp.int32)
        state = state[jnp.minimum(parent, static.slots - 1)]
        ctx.metric("carriers", jnp.sum(state, dtype=jnp.int32))
        return state


WRIGHT_FISHER = WrightFisher()


class GenerationsConfig(ScenarioConfig):
    slots: int = 60
    replicates: int = 1
    advantage: float = 0.0  # fitness of the fitter class is 1 + advantage, of the others 1
    mutation: float = 0.0  # chance of each gene


class Generations(WrightFisher):
    """Whole generations of children with parents in proportion to fitness; state: one carrier of an advantage."""

    name = "generations"
    Config = GenerationsConfig

    def params(self, config):
        return {"advantage": np.float32(config.advantage), "mutation": np.float32(config.mutation)}

    def init(self, static, params, ctx):
        return jnp.arange(static.slots) == 0

    def step(self, static, params, state, ctx):
        fitter = 1.0 + params["advantage"]
        carriers = jnp.sum(state, dtype=jnp.float32)
        share = carriers * fitter / (carriers * fitter + static.slots - carriers)
        state = ctx.uniform("parent") < share
        ctx.metric("carriers", jnp.sum(state, dtype=jnp.int32))
        return state


class Quasispecies(Generations):
    """Binary genomes, of which the one without ones is fitter; genes flip by the mutation operator of dna."""

    name = "quasispecies"
    genes = 50

    def init(self, static, params, ctx):
        return jnp.zeros((self.genes, 1, static.slots), jnp.float32)

    def step(self, static, params, state, ctx):
        master = jnp.sum(state, axis=(0, 1)) == 0
        masters, count = compact(master, static.slots)
        others, rest = compact(~master, static.slots)
        weight = count * (1.0 + params["advantage"])
        fit, luck = ctx.uniforms("parent")
        inherits = fit < weight / (weight + rest)
        place = (luck * jnp.where(inherits, count, rest)).astype(jnp.int32)
        parent = jnp.where(inherits, masters[place], others[place])
        draws = jnp.arange(self.genes, dtype=jnp.uint32)[:, None]
        chance = ctx.uniform("mutates", ctx.lanes(), draws)[:, None, :]
        state = mutate(state[:, :, parent], chance, 1.0, params["mutation"], 1.0)
        ctx.metric("carriers", jnp.sum(jnp.sum(state, axis=(0, 1)) == 0, dtype=jnp.int32))
        return state


class InfiniteAlleles(Generations):
    """Neutral alleles, each mutation a new one: its number is tick and slot."""

    name = "infinite_alleles"

    def init(self, static, params, ctx):
        return jnp.zeros(static.slots, jnp.int32)

    def step(self, static, params, state, ctx):
        parent, luck = ctx.uniforms("parent")
        new = ctx.tick.astype(jnp.int32) * static.slots + jnp.arange(static.slots, dtype=jnp.int32) + 1
        parent = jnp.minimum((parent * static.slots).astype(jnp.int32), static.slots - 1)
        return jnp.where(luck < params["mutation"], new, state[parent])


GENERATIONS, QUASISPECIES, INFINITE_ALLELES = Generations(), Quasispecies(), InfiniteAlleles()


def last_states(scenario: Scenario, config: Any, seed: int, ticks: int, *, chunk_ticks: int = 100) -> np.ndarray:
    """State of every island after a run with all islands in one call, stacked."""
    world = World(scenario, config, seed, chunk_ticks=chunk_ticks, group_islands=scenario.islands(config))
    params = scenario.params(config)
    for _ in world.run(ticks, lambda _: params):
        pass
    return np.stack(world.host_states())


def trace(scenario: Scenario, config: Any, seed: int, ticks: int, *, chunk_ticks: int = 50) -> dict[str, np.ndarray]:
    """Whole-number metrics of a run with all islands in one call, shape [ticks, islands]."""
    world = World(scenario, config, seed, chunk_ticks=chunk_ticks, group_islands=scenario.islands(config))
    params = scenario.params(config)
    parts = []
    for done in world.run(ticks, lambda _: params):
        ints = np.asarray(done.outputs[0].ints)
        parts.append((ints if ints.ndim == 3 else ints[:, None])[: done.end_tick - done.first_tick])
    whole = np.concatenate(parts).astype(np.int64)
    return {name: whole[:, :, lane] for lane, name in enumerate(scenario.int_metrics)}
