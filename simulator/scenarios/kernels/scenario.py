"""Kernels with basins around the roots of E8: they train, spawn, breed, merge and fight wars.

A kernel has coordinates x in R^8 and a root r, one of the 240 of E8 (of length 1), its attractor. A training step does

    x     <- x + learning (r - x) + wander * normal
    kappa <- kappa + relax (64 - kappa) + heat * normal
    phi    = exp(-2 |x - r|^2) * exp(-((kappa - 64) / 64)^2)

so phi (integration) is 1 at the root with the coupling 64; the step succeeds with probability phi. The regime is linear
below a coupling of 40, geometric below 80, else breakdown.

A kernel may spawn a child with its root. Two kernels with matching elements may breed a child at their midpoint. Every
``merge_every`` ticks all pairs are compared, and two that are each other's nearest within ``merge_radius`` are retired
and become one new kernel. In a war the attacker wins with probability 1 / (1 + exp(-8 (phi_a - phi_d))); a draw near
that value is a stalemate. The loser's coupling rises, and if its phi is low it may be retired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import NO_PLACE, Births, Context
from astrocyte.simulator.event_spec import EventSpec
from astrocyte.simulator.population import Population
from astrocyte.simulator.rng import unit
from astrocyte.simulator.scenario import Interval, Scenario
from astrocyte.simulator.scenarios.ecology.map import occupant
from astrocyte.simulator.scenarios.kernels.config import (
    BASIN,
    ELEMENTS,
    KAPPA_STAR,
    MODES,
    PLANT_KINDS,
    ROOTS,
    KernelsConfig,
    KernelsStatic,
    kernels_params,
)
from astrocyte.simulator.scenarios.kernels.events import geometry, kernel_events

__all__ = ["KERNELS", "Kernels", "mutual_nearest"]


class Kernels(Scenario):
    """Kernels in a space of basins."""

    name: ClassVar[str] = "kernels"
    Config: ClassVar[type[ScenarioConfig]] = KernelsConfig
    size_setting: ClassVar[str | None] = "size"
    sample: ClassVar[Mapping[str, Any]] = {
        "size": 96, "train": 0.3, "war": 0.05, "breed": 0.2, "spawn": 0.05, "merge_every": 10, "merge_radius": 0.8,
    }  # fmt: skip
    int_metrics: ClassVar[tuple[str, ...]] = (
        "alive", "births", "deaths", "spawned", "bred", "merged", "wars", "updates", "founders",
    )  # fmt: skip
    sum_metrics: ClassVar[tuple[str, ...]] = ("phi",)

    def static(self, config: KernelsConfig) -> KernelsStatic:
        """Shapes and periods."""
        return KernelsStatic(-(-config.size // 32) * 32, config.merge_every, config.tick_us)

    def islands(self, config: KernelsConfig) -> int:
        """One island, since every kernel may meet every other."""
        return 1

    def slots(self, static: KernelsStatic) -> int:
        """A slot is room for one kernel."""
        return static.slots

    def params(self, config: KernelsConfig) -> Mapping[str, Any]:
        """See `kernels_params`."""
        return kernels_params(config)

    def capacities(self, static: KernelsStatic) -> Mapping[str, int]:
        """Children of one and of two parents per tick."""
        return {"spawns": static.few, "breeds": static.few}

    def events(self, static: KernelsStatic) -> tuple[EventSpec, ...]:
        """See `kernel_events`."""
        return kernel_events(static)

    def init(self, static: KernelsStatic, params: Mapping[str, Any], ctx: Context) -> Population:
        """Founders with random roots, at some distance from them, without parents."""
        n = static.slots
        luck, root = ctx.uniforms("founders")
        kappa, wanted = ctx.uniforms("nature")
        root = jnp.minimum((root * ROOTS).astype(jnp.int32), ROOTS - 1)
        basin = params["roots"].T[:, root] + 0.3 * ctx.noise("basin", BASIN)
        zero, no_place = jnp.zeros(n, jnp.int32), jnp.full(n, NO_PLACE, jnp.uint32)
        kernels = {
            "alive": luck < params["initial"],
            "birth_tick": jnp.zeros(n, jnp.uint32),
            "root": root,
            "basin": basin,
            "kappa": 40.0 + 30.0 * kappa,
            "phi": jnp.zeros(n, jnp.float32),
            "generation": zero,
            "success": zero,
            "failure": zero,
            "trained": zero,
            "wanted": jnp.minimum((wanted * len(ELEMENTS)).astype(jnp.int32), len(ELEMENTS) - 1),
            "mother": no_place,
            "mother_tick": jnp.zeros(n, jnp.uint32),
            "father": no_place,
            "father_tick": jnp.zeros(n, jnp.uint32),
        }
        return {**kernels, "phi": _phi(params, kernels)}

    def step(self, static: KernelsStatic, params: Mapping[str, Any], state: Population, ctx: Context) -> Population:
        """One tick: train, fight, merge, retire, spawn, breed."""
        draws = ctx.uniforms("kernel", ctx.lanes(), jnp.arange(4, dtype=jnp.uint32)[:, None])
        luck = _Luck(*draws[0], *draws[1])
        plants = {kind: ctx.planted(params["plants"], number) for number, kind in enumerate(PLANT_KINDS)}
        broken = plants["breakdown"]
        first = (ctx.tick == 0) & state["alive"] & (state["birth_tick"] == 0)
        state = _displaced(params, state, plants["upset"][1])
        kernels, trained = _train(params, ctx, state, luck.train, plants["neglect"][0])
        shocked = kernels["alive"] & broken[1] & (luck.shock < broken[0])
        kernels = {**kernels, "kappa": jnp.where(shocked, jnp.maximum(kernels["kappa"], 96.0), kernels["kappa"])}
        kernels, fallen, fought = _fight(static, params, ctx, kernels, luck, plants["war"][0], plants["upset"])
        partner = _partners(static, params, ctx, kernels)
        lane = jnp.arange(static.slots, dtype=jnp.int32)
        merges, absorbed = lane < partner, (partner >= 0) & (partner < lane)
        kernels = {**kernels, "phi": _phi(params, kernels)}
        retired = kernels["alive"] & ~first & (merges | absorbed | fallen)
        columns = partial(geometry, ctx, params)
        ctx.emit("updated", kernels["alive"] & (trained | fought | shocked) & ~first, **columns(kernels))
        ctx.metric("updates", jnp.sum(trained, dtype=jnp.int32))
        ctx.metric("merged", jnp.sum(merges, dtype=jnp.int32))
        ctx.metric("deaths", jnp.sum(retired, dtype=jnp.int32))
        joined = _merge(ctx, kernels, merges, jnp.maximum(partner, 0))
        joined = {**joined, "phi": _phi(params, joined)}
        gone = ctx.remove(kernels, retired, "retired", columns)
        kernels = {**joined, "alive": gone["alive"] | merges}
        ctx.emit("merged", merges, **columns(kernels))
        spawns = kernels["alive"] & (luck.spawn < params["spawn"] * kernels["phi"])
        kernels, spawned, _ = ctx.spawn(kernels, spawns, partial(_child, params, ctx, None), name="spawns")
        mate = _mates(params, kernels, luck.mate)
        breeds = kernels["alive"] & (mate >= 0) & (luck.breed < params["breed"])
        kernels, bred, _ = ctx.spawn(kernels, breeds, partial(_child, params, ctx, (kernels, mate)), name="breeds")
        kernels = {**kernels, "phi": _phi(params, kernels)}
        newborn = kernels["alive"] & (kernels["birth_tick"] == ctx.tick + 1) & ~merges
        alone = kernels["father"] == jnp.uint32(NO_PLACE)
        ctx.emit("spawned", (newborn & alone) | first & kernels["alive"], **columns(kernels))
        ctx.emit("bred", newborn & ~alone, **columns(kernels))
        ctx.metric("founders", jnp.sum(first, dtype=jnp.int32))
        ctx.metric("spawned", spawned.count)
        ctx.metric("bred", bred.count)
        ctx.metric("births", spawned.count + bred.count + jnp.sum(merges, dtype=jnp.int32))
        ctx.metric("alive", bred.alive)
        ctx.metric_sum("phi", (kernels["phi"] * 65_536).astype(jnp.int32), kernels["alive"])
        return kernels

    def violations(self, config: KernelsConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Finite basins, phi within 0 and 1, roots of E8, every birth and war emitted."""
        alive = state["alive"]
        if not np.isfinite(state["basin"]).all() or not np.isfinite(state["kappa"]).all():
            yield "a basin or a coupling is not finite"
        if not ((state["phi"][alive] >= 0) & (state["phi"][alive] <= 1)).all():
            yield "a phi is outside 0 to 1"
        if not ((state["root"] >= 0) & (state["root"] < ROOTS)).all():
            yield "a root is none of the 240"
        if interval.metrics["bred"].sum() != len(interval.rows["bred"].ticks):
            yield "kernels bred and kernels emitted differ"
        if interval.metrics["wars"].sum() != len(interval.rows["war"].ticks):
            yield "wars counted and wars emitted differ"


class _Luck(NamedTuple):
    """Uniform numbers of each kernel and tick."""

    train: Array
    war: Array
    enemy: Array
    victory: Array
    fall: Array
    spawn: Array
    breed: Array
    mate: Array

    @property
    def shock(self) -> Array:
        return self.fall


def _phi(params: Mapping[str, Any], kernels: Population) -> Array:
    distance = jnp.sum((kernels["basin"] - params["roots"].T[:, kernels["root"]]) ** 2, axis=0)
    return jnp.exp(-2.0 * distance - ((kernels["kappa"] - KAPPA_STAR) / KAPPA_STAR) ** 2)


def _displaced(params: Mapping[str, Any], kernels: Population, starts: Array) -> Population:
    """Before an upset the weakest kernel is thrown to the far side of its root, so that its phi is next to 0."""
    weakest = jnp.argmin(jnp.where(kernels["alive"], kernels["phi"], jnp.inf))
    thrown = starts & (jnp.arange(kernels["phi"].shape[0]) == weakest)
    return {**kernels, "basin": jnp.where(thrown, -params["roots"].T[:, kernels["root"]], kernels["basin"])}


def _train(
    params: Mapping[str, Any], ctx: Context, kernels: Population, luck: Array, neglect: Array
) -> tuple[Population, Array]:
    """Kernels after the training steps of this tick, and which of them trained.

    A share ``neglect`` of the kernels, the same in each tick, does not train.
    """
    word = (ctx.place() ^ (kernels["birth_tick"] * jnp.uint32(0xC2B2AE35))) * jnp.uint32(0x9E3779B1)
    trains = kernels["alive"] & (luck < params["train"]) & (unit(word) >= neglect)
    noise = ctx.noise("train", BASIN + 2)
    pull = params["learning"] * (params["roots"].T[:, kernels["root"]] - kernels["basin"])
    kappa = kernels["kappa"] + params["relax"] * (KAPPA_STAR - kernels["kappa"]) + params["heat"] * noise[BASIN]
    # For kernels that train, ``luck`` is uniform below ``train``, so it also decides success.
    success = trains & (luck < params["train"] * kernels["phi"])
    after = {
        **kernels,
        "basin": jnp.where(trains, kernels["basin"] + pull + params["wander"] * noise[:BASIN], kernels["basin"]),
        "kappa": jnp.where(trains, jnp.maximum(kappa, 0.0), kernels["kappa"]),
        "trained": kernels["trained"] + trains,
        "success": kernels["success"] + success,
        "failure": kernels["failure"] + (trains & ~success),
    }
    return {**after, "phi": _phi(params, after)}, trains


def _fight(
    static: KernelsStatic,
    params: Mapping[str, Any],
    ctx: Context,
    kernels: Population,
    luck: _Luck,
    fury: Array,
    upset: tuple[Array, Array],
) -> tuple[Population, Array, Array]:
    """Wars: kernels after them, which to retire, and which fought. No kernel is in two wars of a tick.

    In a tick in which an ``upset`` starts there is one war: the weakest attacks the strongest, and wins with the
    upset's strength as the probability.
    """
    n, alive, phi = static.slots, kernels["alive"], kernels["phi"]
    lane = jnp.arange(n, dtype=jnp.int32)
    weakest = jnp.argmin(jnp.where(alive, phi, jnp.inf)).astype(jnp.int32)
    strongest = jnp.argmax(jnp.where(alive, phi, -jnp.inf)).astype(jnp.int32)
    odds, rigged = upset[0], upset[1] & (lane == weakest)
    wants = jnp.where(upset[1], rigged & alive & (weakest != strongest), alive & (luck.war < params["war"] + fury))
    enemy = jnp.minimum((luck.enemy * n).astype(jnp.int32), n - 1)
    enemy = jnp.where(rigged, strongest, enemy)
    attacks = ctx.claim(enemy, wants & alive[enemy] & ~wants[enemy], n)
    attacker = occupant(enemy, attacks, n)
    chance = jnp.where(rigged, odds, 1.0 / (1.0 + jnp.exp(-8.0 * (phi - phi[enemy]))))
    even = (jnp.abs(luck.victory - chance) < 0.02) & ~rigged
    wins = attacks & ~even & (luck.victory < chance)
    loses = attacks & ~even & ~wins
    under = jnp.maximum(attacker, 0)
    won = wins | ((attacker >= 0) & loses[under])
    lost = loses | ((attacker >= 0) & wins[under])
    rounds = 1 + (9.0 * (1.0 - jnp.abs(luck.victory - chance))).astype(jnp.int32)
    outcome = jnp.where(wins, 0, jnp.where(loses, 1, 2))
    tick = kernels["birth_tick"]
    winner = jnp.where(wins, lane, enemy)
    ctx.emit(
        "war",
        attacks,
        war_id=(jnp.broadcast_to(ctx.tick, phi.shape), ctx.place()),
        mode=jnp.minimum((luck.fall * len(MODES)).astype(jnp.int32), len(MODES) - 1),
        attacker_id=(tick, ctx.place()),
        defender_id=(tick[enemy], ctx.place(enemy)),
        winner_id=(tick[winner], jnp.where(wins | loses, ctx.place(winner), jnp.uint32(NO_PLACE))),
        attacker_phi=phi,
        defender_phi=phi[enemy],
        phi_delta=phi - phi[enemy],
        rounds=rounds,
        outcome=outcome,
    )
    ctx.metric("wars", jnp.sum(attacks, dtype=jnp.int32))
    after = {
        **kernels,
        "success": kernels["success"] + won,
        "failure": kernels["failure"] + lost,
        "kappa": kernels["kappa"] + jnp.where(lost, 4.0, 0.0),
    }
    return after, lost & (phi < 0.3) & (luck.fall < params["fall"]), attacks | (attacker >= 0)


def mutual_nearest(basin: Array, alive: Array, radius: Array) -> Array:
    """For each living kernel its nearest within ``radius`` if that is mutual, else -1; int32[slots].

    All pairs by one matrix product: |a - b|^2 = |a|^2 + |b|^2 - 2 a b.
    """
    n = alive.shape[0]
    square = jnp.sum(basin * basin, axis=0)
    distance = square[:, None] + square[None, :] - 2.0 * (basin.T @ basin)
    lane = jnp.arange(n, dtype=jnp.int32)
    apart = (lane[:, None] != lane[None, :]) & alive[:, None] & alive[None, :]
    distance = jnp.where(apart, distance, jnp.inf)
    nearest = jnp.argmin(distance, axis=1).astype(jnp.int32)
    close = jnp.min(distance, axis=1) < radius * radius
    return jnp.where(close & (nearest[nearest] == lane), nearest, -1)


def _partners(static: KernelsStatic, params: Mapping[str, Any], ctx: Context, kernels: Population) -> Array:
    """Slot with which each kernel merges in this tick; -1 for none, and for all in ticks without a check."""
    due = (ctx.tick % jnp.uint32(static.merge_every) == 0) & (ctx.tick > 0)
    return lax.cond(
        due,
        lambda basin, alive: mutual_nearest(basin, alive, params["merge_radius"]),
        lambda _, alive: jnp.full(alive.shape, -1, jnp.int32),
        kernels["basin"],
        kernels["alive"],
    )


def _merge(ctx: Context, kernels: Population, merges: Array, partner: Array) -> Population:
    """A new kernel in the lower slot of each pair: at the midpoint, with the sum of experience, a generation later.

    It is born in this tick, so its id differs from those of its parents, which are both retired.
    """
    own = (kernels["birth_tick"], ctx.place())
    mixed = {
        "basin": 0.5 * (kernels["basin"] + kernels["basin"][:, partner]),
        "kappa": 0.5 * (kernels["kappa"] + kernels["kappa"][partner]),
        "birth_tick": jnp.broadcast_to(ctx.tick + 1, partner.shape),
        "generation": jnp.maximum(kernels["generation"], kernels["generation"][partner]) + 1,
        **{name: kernels[name] + kernels[name][partner] for name in ("success", "failure", "trained")},
        "mother": own[1],
        "mother_tick": own[0],
        "father": ctx.place(partner),
        "father_tick": kernels["birth_tick"][partner],
    }
    return {**kernels, **{name: jnp.where(merges, value, kernels[name]) for name, value in mixed.items()}}


def _mates(params: Mapping[str, Any], kernels: Population, luck: Array) -> Array:
    """A random other kernel for each, if it is alive and of the wanted element, else -1; int32[slots]."""
    n = luck.shape[0]
    who = jnp.minimum((luck * n).astype(jnp.int32), n - 1)
    fits = params["element"][kernels["root"][who]] == kernels["wanted"]
    return jnp.where(kernels["alive"][who] & fits & (who != jnp.arange(n)), who, -1)


def _child(
    params: Mapping[str, Any], ctx: Context, two: tuple[Population, Array] | None, parents: Population, births: Births
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """A child of one parent, or of two: at their midpoint, its root number the sum of theirs modulo 240."""
    rows = births.parent.shape[0]
    noise = params["wander"] * ctx.noise("spawned" if two is None else "bred", BASIN, births.lanes)
    zero = jnp.zeros(rows, jnp.int32)
    own = {"generation": parents["generation"] + 1, "success": zero, "failure": zero, "trained": zero,
           "mother": ctx.place(births.parent), "mother_tick": parents["birth_tick"]}  # fmt: skip
    if two is None:
        no_father = {"father": jnp.full(rows, NO_PLACE, jnp.uint32), "father_tick": jnp.zeros(rows, jnp.uint32)}
        return {**own, **no_father, "basin": parents["basin"] + noise}, {}, {}
    kernels, mate = two
    chosen = jnp.maximum(mate[births.parent], 0)
    other = {
        "father": ctx.place(chosen),
        "father_tick": kernels["birth_tick"][chosen],
        "basin": 0.5 * (parents["basin"] + kernels["basin"][:, chosen]) + noise,
        "kappa": 0.5 * (parents["kappa"] + kernels["kappa"][chosen]),
        "root": (parents["root"] + kernels["root"][chosen]) % ROOTS,
        "generation": jnp.maximum(parents["generation"], kernels["generation"][chosen]) + 1,
        "wanted": (parents["wanted"] + kernels["wanted"][chosen]) % len(ELEMENTS),
    }
    return {**own, **other}, {}, {}


KERNELS = Kernels()
