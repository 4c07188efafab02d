"""Agents of type system, independent and control on a map with growing resources.

Each step the resource R of every tile grows towards its capacity K by ``(growth R + regrowth K)(1 - R/K)``, then each
agent does one of seven actions, drawn by its inclinations w_a: p_a = w_a / sum(w). One gatherer per tile (drawn
uniformly, by scatter-min) gets up to ``bite``; one attacker or sharer per tile meets one other agent there. All pay
``upkeep``; an agent without resources starves, loses health and dies. The change of resource by an action, less health
lost, is its reward r. System and independent agents learn from it: w_a <- w_a exp(learning_rate r), four times as fast
with the action "learn". A child gets ``birth_cost`` from its parent, and inherits type, genome and noisy inclinations.

Amounts are int32 in units of 1/1024, and two ledgers close exactly: tiles = before + grown - gathered - vanished,
held = before + gathered - spent - lost with the dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import NO_PLACE, Births, Context
from astrocyte.simulator.event_spec import EventSpec, HostRow
from astrocyte.simulator.population import Population, winners
from astrocyte.simulator.rng import unit
from astrocyte.simulator.scenario import Interval, Scenario
from astrocyte.simulator.scenarios.ecology.config import (
    ACTIONS,
    CONTROL,
    GENOMES,
    PLANT_KINDS,
    TYPES,
    UNIT,
    EcologyConfig,
    EcologyStatic,
    ecology_params,
)
from astrocyte.simulator.scenarios.ecology.events import (
    CAUSES,
    HISTOGRAMS,
    ecology_events,
    emit_samples,
    emit_states_before,
    position,
    record_step,
    region,
    step_rows,
)
from astrocyte.simulator.scenarios.ecology.map import grow, neighbours, partners, prey_first, take_from

__all__ = ["ECOLOGY", "Ecology"]

MOVE, GATHER, ATTACK, DEFEND, SHARE, REPRODUCE, LEARN = range(len(ACTIONS))
FULL = 8192 * UNIT
"""Resource from which an agent gathers no more; keeps exact sums within their words."""


class Ecology(Scenario):
    """Agents that live on a map."""

    name: ClassVar[str] = "ecology"
    Config: ClassVar[type[ScenarioConfig]] = EcologyConfig
    size_setting: ClassVar[str | None] = "size"
    sample: ClassVar[Mapping[str, Any]] = {"size": 512, "routine_every": 10, "routine_share": 0.3, "steps_every": 1}
    int_metrics: ClassVar[tuple[str, ...]] = ("alive", "births", "deaths", "combat", "attacks", "generation")
    sum_metrics: ClassVar[tuple[str, ...]] = (
        "tiles", "held", "grown", "vanished", "gathered", "spent", "lost", "shared", "age", "health", "reward",
        "unevenness",
    )  # fmt: skip
    vector_metrics: ClassVar[Mapping[str, int]] = HISTOGRAMS

    def static(self, config: EcologyConfig) -> EcologyStatic:
        """Shapes and periods."""
        return EcologyStatic.of(config)

    def islands(self, config: EcologyConfig) -> int:
        """One for every 65,536 agents."""
        return config.islands

    def slots(self, static: EcologyStatic) -> int:
        """A slot is room for one agent."""
        return static.slots

    def params(self, config: EcologyConfig) -> Mapping[str, Any]:
        """See `ecology_params`."""
        return ecology_params(config)

    def capacities(self, static: EcologyStatic) -> Mapping[str, int]:
        """``births`` a step."""
        return {"births": max(static.slots // 64 // 32 * 32, 64)}

    def events(self, static: EcologyStatic) -> tuple[EventSpec, ...]:
        """See `ecology_events`."""
        return ecology_events(static)

    def init(self, static: EcologyStatic, params: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        """Founders of all types and genomes at random places; tiles up to a fifth full, near their usual level."""
        n = static.slots
        luck, place = ctx.uniforms("founders")
        kind, genome = ctx.uniforms("ancestry")
        alive = luck < params["initial"]
        kind = jnp.minimum((kind * len(TYPES)).astype(jnp.int32), len(TYPES) - 1)
        fill = ctx.uniform("tiles", ctx.lanes(static.tiles))
        agents = {
            "alive": alive,
            "tile": jnp.minimum((place * static.tiles).astype(jnp.int32), static.tiles - 1),
            "resource": jnp.where(alive, params["founder_resources"], 0),
            "health": jnp.where(alive, UNIT, 0),
            "starving": jnp.zeros(n, jnp.int32),
            "reward": jnp.zeros(n, jnp.int32),
            "kind": kind,
            "genome": jnp.minimum((genome * GENOMES).astype(jnp.int32), GENOMES - 1),
            "generation": jnp.zeros(n, jnp.int32),
            "birth_tick": jnp.zeros(n, jnp.uint32),
            "policy": params["inclinations"][:, kind],
        }
        amount = (params["capacity"] * 0.2 * fill).astype(jnp.int32)
        return {"agents": agents, "amount": amount}

    def step(
        self, static: EcologyStatic, params: Mapping[str, Any], state: dict[str, Any], ctx: Context
    ) -> dict[str, Any]:
        """One step: tiles grow; agents act on them and on each other, learn, starve, die and reproduce."""
        agents = state["agents"]
        plants = {kind: ctx.planted(params["plants"], number) for number, kind in enumerate(PLANT_KINDS)}
        _emit_founders(static, params, ctx, agents)
        luck = _Luck.drawn(ctx)
        swept = agents["alive"] & plants["sweep"][1] & (unit(luck.death) < plants["sweep"][0])
        agents = {**agents, "genome": jnp.where(swept, 0, agents["genome"])}
        action = _decide(agents, luck.action)
        # Agents that share do not gather, so that word is theirs.
        action = jnp.where((action == SHARE) & (unit(luck.gather) < plants["feud"][0]), ATTACK, action)
        agents_moved = {**agents, "tile": _moved(static, luck, agents, state["amount"], action)}
        wants = agents["alive"] & (action == GATHER) & (agents["resource"] < FULL)
        eater = winners(agents_moved["tile"], luck.gather, wants, static.tiles)

        def catch(amount: Array, who: Population) -> tuple[Array, Array]:
            taken, left = take_from(amount, who["tile"], eater, params["bite"])
            ctx.metric_sum("gathered", taken)
            return left, taken

        outcomes: list[_Outcome] = []

        def live(who: Population, taken: Array) -> Population:
            outcomes.append(_live(static, params, ctx, luck, who, action, taken, plants["collapse"]))
            return outcomes[0].agents

        amount, after = prey_first(
            state["amount"],
            agents_moved,
            grow=partial(_regrow, params, ctx, plants["depletion"], plants["famine"][0]),
            catch=catch,
            live=live,
        )
        outcome = outcomes[0]
        _emit_incidents(static, ctx, agents, after, outcome)
        did = {"action": action, "target": outcome.other, "amount": outcome.amount, "reward": outcome.reward,
               "defending": outcome.defending, "learns": agents["kind"] != CONTROL}  # fmt: skip
        emit_samples(static, ctx, agents, after, did, amount)
        ctx.metric("deaths", jnp.sum(outcome.dead, dtype=jnp.int32))
        ctx.metric_sum("lost", after["resource"], outcome.dead)
        after = ctx.remove(after, outcome.dead, "died", partial(_death, static, ctx), zero=("resource", "health"))
        wants_child = after["alive"] & (action == REPRODUCE) & (after["resource"] >= 2 * params["birth_cost"])
        after, births, born = ctx.spawn(after, wants_child, partial(_child, static, params, ctx), luck=luck.birth)
        ctx.emit_rows("born", births.count, **born)
        ctx.metric("births", births.count)
        ctx.metric("alive", births.alive)
        ctx.metric_sum("held", after["resource"])
        ctx.metric_sum("tiles", amount)
        emit_states_before(static, ctx, after, outcome.defending)
        record_step(static, ctx, after, amount)
        return {"agents": after, "amount": amount}

    def report_streams(self, config: EcologyConfig) -> tuple[str, ...]:
        """Steps are sums over islands, so the host adds them."""
        return ("simulation_steps",)

    def report(self, config: EcologyConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
        """See `step_rows`."""
        return step_rows(config, interval, memory)

    def violations(self, config: EcologyConfig, state: Any, interval: Interval) -> Iterator[str]:
        """Nothing negative, dead slots empty, ledgers closed, every birth emitted."""
        agents, metrics = state["agents"], interval.metrics
        if (state["amount"] < 0).any() or (agents["resource"] < 0).any():
            yield "an amount of resource is negative"
        if agents["resource"][~agents["alive"]].any():
            yield "a dead slot holds resource"
        if (agents["health"][agents["alive"]] <= 0).any():
            yield "a living agent has no health"
        total = {name: values.sum(axis=1) for name, values in metrics.items() if values.ndim == 2}
        grown = total["grown"] - total["gathered"] - total["vanished"]
        if (total["tiles"][1:] - total["tiles"][:-1] != grown[1:]).any():
            yield "the ledger of the tiles does not close"
        kept = total["gathered"] - total["spent"] - total["lost"]
        if (total["held"][1:] - total["held"][:-1] != kept[1:]).any():
            yield "the ledger of the agents does not close"
        if total["births"].sum() != len(interval.rows["born"].ticks):
            yield "births counted and births emitted differ"


class _Luck(NamedTuple):
    """The random words of each agent and step; uint32.

    Four words serve eight uses, since Threefry is a tenth of a step. Uses of one word read different bits of it, or
    belong to different actions: an agent that attacks or shares does not gather, is not met and does not reproduce.
    The highest 16 bits of a word decide a claim; 16 bits decide an attack.
    """

    action: Array
    gather: Array
    social: Array
    death: Array

    @classmethod
    def drawn(cls, ctx: Context) -> _Luck:
        """The words of this step."""
        first, second = ctx.bits("step", ctx.lanes(), jnp.arange(2, dtype=jnp.uint32)[:, None])
        return cls(first[0], second[0], first[1], second[1])

    @property
    def direction(self) -> Array:
        """The two lowest bits; the highest 23 decide the action."""
        return self.action

    @property
    def met(self) -> Array:
        """For agents that may be met, gatherers included."""
        return self.gather << 16

    @property
    def fight(self) -> Array:
        """For agents that attack."""
        return self.social << 16

    @property
    def birth(self) -> Array:
        """For agents that reproduce."""
        return self.social


class _Outcome(NamedTuple):
    """State of each agent after a step, before deaths and births."""

    agents: Population
    dead: Array
    starved: Array
    """Of the dead, those whom hunger killed, whatever else befell them."""
    old: Array
    defending: Array
    attacker: Array
    """Slot of the attacker that hurt the agent, -1 for none."""
    other: Array
    """Slot of the agent that was attacked or received a gift, -1 for none."""
    amount: Array
    reward: Array


def _regrow(
    params: Mapping[str, Any], ctx: Context, depletion: tuple[Array, Array], famine: Array, amount: Array
) -> Array:
    strength, starts = depletion
    left = jnp.where(starts, (amount * (1.0 - strength)).astype(jnp.int32), amount)
    ctx.metric_sum("vanished", amount - left)
    rest = 1.0 - jnp.maximum(strength, famine)
    grown = grow(left, params["growth"] * rest, params["regrowth"] * rest, params["capacity"])
    ctx.metric_sum("grown", grown - left)
    return grown


def _decide(agents: Population, word: Array) -> Array:
    """The action of each agent: number a with probability w_a / sum(w); int32."""
    weights = agents["policy"]
    # Unrolled: XLA's reductions over a short leading axis took ten times as long, and it does not compile a cumulative
    # sum as an elementwise loop.
    point = unit(word) * sum(weights[1:], start=weights[0])
    action, total = jnp.zeros(point.shape, jnp.int32), jnp.zeros_like(point)
    for number in range(len(ACTIONS) - 1):
        total = total + weights[number]
        action = action + (total < point)
    return action


def _moved(static: EcologyStatic, luck: _Luck, agents: Population, amount: Array, action: Array) -> Array:
    """Tiles of agents after the action "move": to the richest neighbour, control agents in a random direction."""
    around = neighbours(agents["tile"], static.side)
    blind = agents["kind"] == CONTROL
    best, target = jnp.full(action.shape, -1, jnp.int32), agents["tile"]
    for number, tile in enumerate(around):
        # Ties are broken by a random direction; for control agents all neighbours tie.
        turn = ((luck.direction + number) & 3).astype(jnp.int32)
        score = jnp.where(blind, 0, amount[tile]) * 4 + turn
        target = jnp.where(score > best, tile, target)
        best = jnp.maximum(score, best)
    return jnp.where(agents["alive"] & (action == MOVE), target, agents["tile"])


def _live(
    static: EcologyStatic,
    params: Mapping[str, Any],
    ctx: Context,
    luck: _Luck,
    agents: Population,
    action: Array,
    taken: Array,
    collapse: tuple[Array, Array],
) -> _Outcome:
    """Meet others, pay, starve or heal, learn."""
    alive, tile = agents["alive"], agents["tile"]
    defending = alive & (action == DEFEND)
    social = alive & ((action == ATTACK) | (action == SHARE))
    partner = partners(tile, jnp.where(social, luck.social, luck.met), alive, social, static.tiles)
    meets, whom = partner >= 0, jnp.maximum(partner, 0)
    resource = agents["resource"] + taken
    # Each side of a meeting reads the other's values once: each gather is a pass over all agents.
    theirs = (resource * 2 + defending)[whom]
    chance = jnp.where((theirs & 1) > 0, params["defended_success"], params["attack_success"])
    fights = meets & (action == ATTACK)
    hits = fights & (unit(luck.fight) < chance)
    stolen = jnp.where(hits, jnp.minimum(theirs >> 1, params["steal"]), 0)
    gift = jnp.where(meets & (action == SHARE) & (resource >= 2 * params["gift"]), params["gift"], 0)
    change = stolen - gift
    received = jnp.where(meets & ~social, (change * 2 + hits)[whom], 0)
    resource = resource + change - (received >> 1)
    attacker = jnp.where((received & 1) > 0, partner, -1)
    hurt = jnp.where(attacker >= 0, params["damage"], 0)
    paid = jnp.where(alive, jnp.minimum(resource, params["upkeep"]), 0)
    resource = resource - paid
    starving = jnp.where(alive & (paid < params["upkeep"]), agents["starving"] + 1, 0)
    change_health = jnp.where(starving > 0, -params["starvation_damage"], params["healing"]) - hurt
    health = jnp.where(alive, jnp.minimum(agents["health"] + change_health, UNIT), 0)
    age = (ctx.tick - agents["birth_tick"]).astype(jnp.int32)
    old = alive & (age > params["old_age"]) & (unit(luck.death) < params["ageing"])
    share, starts = collapse
    struck = alive & starts & (unit(luck.death) < share)
    spent = alive & ((health <= 0) | (starving > params["starvation_threshold"]))
    dead = spent | old | struck
    reward = jnp.where(alive, resource - agents["resource"] - hurt, 0)
    learns = alive & (agents["kind"] != CONTROL)
    rate = params["learning_rate"] * jnp.where(action == LEARN, 4.0, 1.0)
    factor = jnp.where(learns, jnp.exp(rate * jnp.clip(reward.astype(jnp.float32) / UNIT, -2.0, 2.0)), 1.0)
    numbers = jnp.arange(len(ACTIONS), dtype=jnp.int32)[:, None]
    own = agents["policy"][0]
    for number in range(1, len(ACTIONS)):
        own = jnp.where(action == number, agents["policy"][number], own)
    policy = jnp.where(numbers == action, jnp.clip(own * factor, 0.02, 20.0), agents["policy"])
    ctx.metric("combat", jnp.sum(fights, dtype=jnp.int32))
    ctx.metric("attacks", jnp.sum(hits, dtype=jnp.int32))
    ctx.metric_sum("shared", gift)
    ctx.metric_sum("spent", paid)
    after = {**agents, "resource": resource, "health": health, "starving": starving, "policy": policy,
             "reward": jnp.clip(agents["reward"] + reward, -(1 << 30), 1 << 30)}  # fmt: skip
    other = jnp.where(fights | (gift > 0), partner, -1)
    return _Outcome(after, dead, spent & (starving > 0), old, defending, attacker, other, taken + stolen + gift, reward)


def _emit_founders(static: EcologyStatic, params: Mapping[str, Any], ctx: Context, agents: Population) -> None:
    def body(inner: Context) -> None:
        no_parent = (jnp.uint32(0), jnp.uint32(NO_PLACE))
        inner.emit("founder", agents["alive"], **_birth(static, params, inner, agents, inner.place(), no_parent))

    ctx.when((ctx.tick == 0) & (jnp.max(agents["birth_tick"]) == 0), body)


def _birth(
    static: EcologyStatic, params: Mapping[str, Any], ctx: Context, rows: Population, place: Array, parent: Any
) -> dict[str, Any]:
    return {
        "agent_id": (rows["birth_tick"], place),
        "region": region(static, ctx, rows["tile"]),
        **position(static, ctx, rows["tile"]),
        "initial_resources": rows["resource"],
        "starting_health": rows["health"],
        "starvation_threshold": params["starvation_threshold"],
        "parent_id": parent,
        "agent_type": rows["kind"],
        "genome_id": rows["genome"],
        "generation": rows["generation"],
    }


def _death(static: EcologyStatic, ctx: Context, dead: Population, slots: Array) -> dict[str, Any]:
    return {
        "agent_id": (dead["birth_tick"], ctx.place(slots)),
        "region": region(static, ctx, dead["tile"]),
        "agent_type": dead["kind"],
        "genome_id": dead["genome"],
        "generation": dead["generation"],
    }


def _child(
    static: EcologyStatic, params: Mapping[str, Any], ctx: Context, parents: Population, births: Births
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Any]]:
    rows = births.parent.shape[0]
    noise = params["mutation"] * ctx.noise("inclinations", len(ACTIONS), births.lanes)
    own = {
        "resource": jnp.full(rows, params["birth_cost"]),
        "health": jnp.full(rows, UNIT, jnp.int32),
        "starving": jnp.zeros(rows, jnp.int32),
        "reward": jnp.zeros(rows, jnp.int32),
        "generation": parents["generation"] + 1,
        "policy": jnp.where(
            parents["kind"] == CONTROL, parents["policy"], jnp.clip(parents["policy"] * jnp.exp(noise), 0.02, 20.0)
        ),
    }
    child = {**parents, **own, "birth_tick": jnp.full(rows, ctx.tick + 1, jnp.uint32)}
    parent = (parents["birth_tick"], ctx.place(births.parent))
    emitted = _birth(static, params, ctx, child, ctx.place(births.slot), parent)
    emitted["starvation_threshold"] = jnp.broadcast_to(emitted["starvation_threshold"], (rows,))
    return own, {"resource": parents["resource"] - params["birth_cost"]}, emitted


def _emit_incidents(
    static: EcologyStatic, ctx: Context, before: Population, after: Population, outcome: _Outcome
) -> None:
    """An incident when an agent is hurt, starves to half of its health or death, heals above half, or dies of age."""
    hurt = outcome.attacker >= 0
    low, was_low = after["health"] < UNIT // 2, before["health"] < UNIT // 2
    starved = before["alive"] & (after["starving"] > 0) & ((low & ~was_low) | outcome.starved)
    healed = before["alive"] & was_low & ~low
    cause = jnp.where(hurt, 0, jnp.where(outcome.old, 3, jnp.where(starved, 1, 2)))
    assert CAUSES == ("attack", "starvation", "healing", "old_age")
    chosen = ctx.select("incident", hurt | starved | healed | outcome.old)
    index, attacker = chosen.index, outcome.attacker[chosen.index]
    ctx.emit_rows(
        "incident",
        chosen.count,
        incident_id=(jnp.broadcast_to(ctx.tick, index.shape), ctx.place(index)),
        agent_id=(before["birth_tick"][index], ctx.place(index)),
        region=region(static, ctx, after["tile"][index]),
        health_before=before["health"][index],
        health_after=jnp.maximum(after["health"][index], 0),
        cause=cause[index],
        attacker_id=ctx.id_of(attacker, before["birth_tick"]),
    )


ECOLOGY = Ecology()
