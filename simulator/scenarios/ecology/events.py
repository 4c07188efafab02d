"""Events of the ecology: all births, deaths and incidents; weighted samples of agents, actions and tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import orjson
from jax import Array

from astrocyte.simulator.context import Context
from astrocyte.simulator.event_spec import Column, EventSpec, HostRow, born_in
from astrocyte.simulator.population import Population, take
from astrocyte.simulator.scenario import Interval
from astrocyte.simulator.scenarios.ecology.config import (
    ACTIONS,
    GENOMES,
    TYPES,
    UNIT,
    EcologyConfig,
    EcologyStatic,
)

__all__ = [
    "CAUSES",
    "HISTOGRAMS",
    "ecology_events",
    "emit_samples",
    "evenness",
    "position",
    "record_step",
    "region",
    "step_rows",
]

CAUSES = ("attack", "starvation", "healing", "old_age")
HISTOGRAMS = {"types": len(TYPES), "genomes": GENOMES}
"""Metrics that count agents by type and genome; in steps of simulation_steps only."""
_MODULES = ("movement", "gathering", "combat", "combat", "sharing", "reproduction", "learning")
_spec = partial(EventSpec, key="region", key_format="r{:05d}")
_SPLIT = 4
"""A map has 4 by 4 regions."""


def _birth(values: Mapping[str, Any]) -> Any:
    return born_in(values["agent_id"])


def _action_details(values: Mapping[str, Any]) -> list[str | None]:
    amounts = (values["amount"] / UNIT).round(4).tolist()
    return [orjson.dumps({"amount": amount}).decode() if amount else None for amount in amounts]


def _incident_details(values: Mapping[str, Any]) -> list[str | None]:
    return [None if who < 0 else orjson.dumps({"attacker_id": who}).decode() for who in values["attacker_id"].tolist()]


def _state_ids(ahead: int, values: Mapping[str, Any]) -> list[str]:
    steps = (values["tick"] + ahead).tolist()
    return [f"{agent}-{step}" for agent, step in zip(values["agent_id"].tolist(), steps, strict=True)]


def _module_ids(values: Mapping[str, Any]) -> list[str]:
    return [f"policy-{agent}" for agent in values["agent_id"].tolist()]


def ecology_events(static: EcologyStatic) -> tuple[EventSpec, ...]:
    """Kinds of events of the ecology."""
    n = static.slots
    some = max(n // 16 // 32 * 32, 64)
    sample = max(int(n * static.routine_share * 1.3) // 32 * 32 + 32, 64)
    weight = 1.0 / static.routine_share
    agent, where = Column("agent_id", "id"), Column("region", "hidden", dtype="int32")
    kind = Column("agent_type", "enum", TYPES)
    spot = (Column("position_x"), Column("position_y"))
    inherited = (kind, Column("genome_id", dtype="int32"), Column("generation", dtype="int32"))
    birth = Column("birth_time", "derived", derive=_birth)
    born = (
        agent, where, birth, *spot, Column("initial_resources", "fixed", scale=UNIT),
        Column("starting_health", "fixed", scale=UNIT), Column("starvation_threshold", dtype="int32"),
        Column("parent_id", "id"), *inherited,
    )  # fmt: skip
    died = (agent, where, birth, Column("death_time", "tick"), *inherited)
    state = (
        agent, where, Column("step_number", "tick"), *spot, Column("position_z"),
        Column("resource_level", "fixed", scale=UNIT), Column("current_health", "fixed", scale=UNIT),
        Column("is_defending", dtype="bool"), Column("total_reward", "fixed", scale=UNIT), Column("age", dtype="int32"),
    )  # fmt: skip
    action = (
        Column("action_id", "id"), agent, where, Column("step_number", "tick"), Column("action_type", "enum", ACTIONS),
        Column("action_target_id", "id"), Column("resources_before", "fixed", scale=UNIT),
        Column("resources_after", "fixed", scale=UNIT), Column("reward", "fixed", scale=UNIT),
        Column("amount", "hidden", dtype="int32"), Column("details", "derived", derive=_action_details),
        Column("state_before_id", "derived", derive=partial(_state_ids, -1)),
        Column("state_after_id", "derived", derive=partial(_state_ids, 0)),
    )  # fmt: skip
    experience = (
        Column("experience_id", "id"), agent, where, Column("step_number", "tick"),
        Column("module_type", "enum", _MODULES), Column("module_id", "derived", derive=_module_ids),
        Column("action_taken", dtype="int32"), Column("action_taken_mapped", "enum", ACTIONS),
        Column("reward", "fixed", scale=UNIT),
    )  # fmt: skip
    incident = (
        Column("incident_id", "id"), agent, where, Column("step_number", "tick"),
        Column("health_before", "fixed", scale=UNIT), Column("health_after", "fixed", scale=UNIT),
        Column("cause", "enum", CAUSES), Column("attacker_id", "id"),
        Column("details", "derived", derive=_incident_details),
    )  # fmt: skip
    tile = (Column("resource_id", dtype="int32"), where, Column("step_number", "tick"),
            Column("amount", "fixed", scale=UNIT), *spot)  # fmt: skip
    tiles = -(-static.tiles // static.tile_stride)
    # Founders are emitted once. In a large world their buffer starts small, grows for the first chunk and shrinks.
    founders = n if n <= 8192 else 1024
    once = 1 << 31
    return (
        _spec("founder", "agents", born, "born", capacity=founders, every=once),
        _spec("born", "agents", born, "born", capacity=some),
        _spec("died", "agents", died, "died", capacity=some),
        _spec("before", "agent_states", state, "state", capacity=sample, weight=weight),
        _spec("after", "agent_states", state, "state", capacity=sample, weight=weight),
        _spec("tile", "resource_states", tile, "state", capacity=tiles, weight=static.tile_stride),
        _spec("action", "agent_actions", action, "action_type", capacity=sample, weight=weight),
        _spec("experience", "learning_experiences", experience, "experience", capacity=sample, weight=weight),
        _spec("incident", "health_incidents", incident, "cause", capacity=some),
    )  # fmt: skip


def position(static: EcologyStatic, ctx: Context, tile: Array) -> dict[str, Array]:
    """Coordinates of the middles of tiles; islands' maps lie side by side."""
    left = ctx.island.astype(jnp.int32) * static.side
    x, y = tile % static.side + left, tile // static.side
    return {"position_x": x.astype(jnp.float32) + 0.5, "position_y": y.astype(jnp.float32) + 0.5}


def region(static: EcologyStatic, ctx: Context, tile: Array) -> Array:
    """Number of the region of each tile: the key of all events there; int32."""
    x, y = tile % static.side * _SPLIT // static.side, tile // static.side * _SPLIT // static.side
    return ctx.island.astype(jnp.int32) * _SPLIT * _SPLIT + y * _SPLIT + x


def _chosen(static: EcologyStatic, ctx: Context, agents: Population, ahead: int) -> Array:
    """Agents in the sample of the step ``ahead`` steps from now: 1 and, a step later, 0 select the same agents."""
    number = (ctx.tick + jnp.uint32(ahead)) // jnp.uint32(static.routine_every)
    word = ctx.place() ^ (agents["birth_tick"] * jnp.uint32(0xC2B2AE35)) ^ (number * jnp.uint32(0x85EBCA6B))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = (word ^ (word >> shift)) * jnp.uint32(factor)
    threshold = min(int(static.routine_share * 2**32), 0xFFFFFFFF)
    return agents["alive"] & ((word ^ (word >> 16)) <= jnp.uint32(threshold))


def _state(
    static: EcologyStatic, ctx: Context, agents: Population, defending: Array, slots: Array | None = None
) -> dict[str, Any]:
    return {
        "agent_id": (agents["birth_tick"], ctx.place(slots)),
        "region": region(static, ctx, agents["tile"]),
        **position(static, ctx, agents["tile"]),
        "position_z": jnp.float32(0),
        "resource_level": agents["resource"],
        "current_health": jnp.maximum(agents["health"], 0),
        "is_defending": defending,
        "total_reward": agents["reward"],
        # After the step; a newborn's birth is the next one.
        "age": (ctx.tick + 1 - agents["birth_tick"]).astype(jnp.int32),
    }


def emit_samples(
    static: EcologyStatic, ctx: Context, before: Population, after: Population, did: Mapping[str, Any], amount: Array
) -> None:
    """Actions of a sample with the state after them, experiences, and the tiles, every ``routine_every`` steps.

    ``before`` and ``after`` are the agents before and after their actions, the dying among them; ``did`` has their
    action, the slot of its target (or -1), the amount and the reward.
    """
    every = jnp.uint32(static.routine_every)

    def body(inner: Context) -> None:
        chosen = inner.select("after", _chosen(static, inner, before, 0))
        count, index = chosen.count, chosen.index
        rows = {name: take(values, index) for name, values in after.items() if name != "policy"}
        done = {name: did[name][index] for name in ("action", "defending", "amount", "reward", "learns")}
        state = _state(static, inner, rows, done["defending"], index)
        inner.emit_rows("after", count, **state)
        common = {name: state[name] for name in ("agent_id", "region")}
        own = (jnp.broadcast_to(inner.tick, index.shape), inner.place(index))
        inner.emit_rows(
            "action",
            count,
            action_id=own,
            **common,
            action_type=done["action"],
            action_target_id=inner.id_of(did["target"][index], before["birth_tick"]),
            resources_before=before["resource"][index],
            resources_after=rows["resource"],
            reward=done["reward"],
            amount=done["amount"],
        )
        inner.emit(
            "experience",
            (jnp.arange(index.shape[0]) < count) & done["learns"],
            experience_id=own,
            **common,
            module_type=done["action"],
            action_taken=done["action"],
            action_taken_mapped=done["action"],
            reward=done["reward"],
        )
        tile = jnp.arange(0, static.tiles, static.tile_stride, dtype=jnp.int32)
        inner.emit_rows(
            "tile",
            jnp.int32(tile.shape[0]),
            resource_id=inner.island.astype(jnp.int32) * static.tiles + tile,
            region=region(static, inner, tile),
            amount=amount[tile],
            **position(static, inner, tile),
        )

    ctx.when((ctx.tick % every == 0) & (ctx.tick > 0), body)


def emit_states_before(static: EcologyStatic, ctx: Context, agents: Population, defending: Array) -> None:
    """The states of the agents in the next step's sample: the states before their actions."""

    def body(inner: Context) -> None:
        # During this step a newborn's slot belonged to another agent, which may have defended itself.
        own = defending & (agents["birth_tick"] != inner.tick + 1)
        inner.emit("before", _chosen(static, inner, agents, 1), **_state(static, inner, agents, own))

    every = jnp.uint32(static.routine_every)
    ctx.when((ctx.tick + 1) % every == 0, body)


def record_step(static: EcologyStatic, ctx: Context, agents: Population, amount: Array) -> None:
    """Metrics for simulation_steps besides the ledgers, in its steps only."""

    def body(inner: Context) -> None:
        alive = agents["alive"]
        age = (inner.tick + 1 - agents["birth_tick"]).astype(jnp.int32)
        inner.metric_sum("age", jnp.minimum(age, 1 << 23), alive)
        inner.metric_sum("health", agents["health"], alive)
        inner.metric_sum("reward", jnp.clip(agents["reward"], -(1 << 23), 1 << 23), alive)
        inner.metric("generation", jnp.max(jnp.where(alive, agents["generation"], 0)))
        inner.metric("types", _counts(agents["kind"], alive, len(TYPES)))
        inner.metric("genomes", _counts(agents["genome"], alive, GENOMES))
        # A tile holds up to 1,024,000 units, whose product with its logarithm fits an exact sum.
        inner.metric_sum("unevenness", jnp.round(amount * jnp.log(jnp.maximum(amount, 1))).astype(jnp.int32))

    ctx.when(ctx.tick % jnp.uint32(static.steps_every) == 0, body)


def _counts(codes: Array, mask: Array, size: int) -> Array:
    lanes = 32  # spread, so that a GPU's atomic additions do not contend for a few words
    spot = jnp.where(mask, codes, size) * lanes + jnp.arange(codes.shape[0]) % lanes
    return jnp.sum(jnp.zeros((size + 1) * lanes, jnp.int32).at[spot].add(1).reshape(-1, lanes), axis=1)[:size]


def evenness(total: int, weighted: int, tiles: int) -> float:
    """Evenness of ``total`` units over ``tiles`` tiles, whose sum of a * ln(a) over amounts a is ``weighted``.

    Shannon entropy of the tiles' shares, ln(total) - weighted / total, divided by its maximum ln(tiles) (Pielou 1966):
    1 where all tiles hold the same, 0 where one holds all, and where there is nothing.
    """
    if total == 0 or tiles < 2:
        return 0.0
    return float(np.clip((np.log(total) - weighted / total) / np.log(tiles), 0.0, 1.0))


_FLOWS = ("births", "deaths", "combat", "attacks", "shared", "gathered")


def step_rows(config: EcologyConfig, interval: Interval, memory: dict[str, Any]) -> Iterator[HostRow]:
    """``simulation_steps`` every ``steps_every`` steps; flows are counted since the previous row."""
    metrics = interval.metrics
    for offset, tick in enumerate(range(interval.first_tick, interval.end_tick)):
        for name in _FLOWS:
            memory[name] = memory.get(name, 0) + int(metrics[name][offset].sum())
        if tick % config.steps_every:
            continue
        total = {name: int(values[offset].sum()) for name, values in metrics.items() if values.ndim == 2}
        kinds, genomes = (metrics[name][offset].sum(axis=0) for name in HISTOGRAMS)
        alive = max(total["alive"], 1)
        share = genomes / max(genomes.sum(), 1)
        found = memory["gathered"] + total["tiles"]
        values = {
            "simulation_id": interval.run,
            "step_number": tick,
            "total_agents": total["alive"],
            **{f"{kind}_agents": int(count) for kind, count in zip(TYPES, kinds, strict=True)},
            "births": memory["births"],
            "deaths": memory["deaths"],
            "current_max_generation": int(metrics["generation"][offset].max()),
            "average_agent_age": total["age"] // alive,
            "combat_encounters": memory["combat"],
            "successful_attacks": memory["attacks"],
            "total_resources": total["tiles"] / UNIT,
            "average_agent_resources": total["held"] / UNIT / alive,
            "resource_efficiency": memory["gathered"] / found if found else 0.0,
            "resource_distribution_entropy": evenness(
                total["tiles"], total["unevenness"], config.islands * EcologyStatic.of(config).tiles
            ),
            "average_agent_health": total["health"] / UNIT / alive,
            "average_reward": total["reward"] / UNIT / alive,
            "resources_shared": memory["shared"] / UNIT,
            "genetic_diversity": 1.0 / float((share * share).sum()) / GENOMES if total["alive"] else 0.0,
            "dominant_genome_ratio": float(share.max()),
            "resources_consumed": memory["gathered"] / UNIT,
        }
        memory.update(dict.fromkeys(_FLOWS, 0))
        yield HostRow("simulation_steps", tick, "step", values)
