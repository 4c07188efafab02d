"""Many worlds of one scenario at once: `run_batch` steps them in one program, which is compiled once.

The worlds differ in seed and in numbers (``params``), which are traced values: no value of a parameter compiles again.
Nothing is emitted. What is kept of a world is what ``observe`` makes of its state every few ticks, so that a thousand
worlds of a thousand ticks fit in memory. A world's states are those of `simulate` with the same settings and seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import Context
from astrocyte.simulator.population import Population, Sum
from astrocyte.simulator.rng import seed_words
from astrocyte.simulator.runtime.programs import TRACES, context_of, strong
from astrocyte.simulator.scenario import Scenario, load_scenario

__all__ = ["BatchWorld", "Observe", "run_batch"]

Observe = Callable[[Any, Mapping[str, Array]], Mapping[str, Array]]
"""``observe(state, totals)``: arrays to keep of a world at the end of an interval; traced. ``totals`` holds its whole
and float metrics, summed over the ticks of the interval; those that a step records in some ticks only are not there."""
Founders = Callable[[Any, Mapping[str, Array]], Any]
"""``founders(state, values)``: the state before tick 0, changed; traced."""
Drive = Callable[[Any, Mapping[str, Array], Array], Any]
"""``drive(params, values, tick)``: the params of a tick, such as a cost that rises with time; traced."""

GROUP: Final = 16
"""Worlds of one call: their state stays in the cache, and a call is short enough to show progress."""
_LEAST_ROWS: Final = 32
_Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class BatchWorld:
    """One world: its settings and seed, and the numbers that ``founders`` and ``drive`` are given."""

    config: ScenarioConfig
    seed: int
    values: Mapping[str, float] = field(default_factory=dict)


class _Silent(Context):
    """A context that emits nothing: a step costs what its state needs."""

    def emit(self, kind: str, mask: Array, *, at: Array | None = None, **columns: Any) -> None:
        """Nothing is emitted."""

    def emit_rows(self, kind: str, count: Array, *, at: Array | None = None, **columns: Any) -> None:
        """Nothing is emitted."""

    def when(self, predicate: Array, body: Callable[[Context], None]) -> None:
        """What a step does in some ticks only emits and records."""

    def remove(
        self, population: Population, dead: Array, kind: str, tell: Any, *, zero: tuple[str, ...] = (), also: Any = None
    ) -> Population:
        """Deaths, of which nothing is told."""
        cleared = {name: jnp.where(dead, 0, population[name]) for name in zero}
        return {**population, **cleared, "alive": population["alive"] & ~dead}

    def metric(self, name: str, value: Array | Sum) -> None:
        """One number of this tick; vectors are left out."""
        if isinstance(value, Sum):
            self._metrics[name] = value.high.astype(jnp.float32) * 65_536.0 + value.low.astype(jnp.float32)
        elif value.ndim == 0:
            self._metrics[name] = value.astype(jnp.float32)

    def recorded(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Metrics of this tick, and how many entries its buffers needed."""
        return dict(self._metrics), dict(self._needs)


@dataclass(frozen=True)
class _Plan:
    """What a program is compiled for."""

    scenario: Scenario
    static: Hashable
    sizes: _Sizes
    samples: int
    every: int
    observe: Observe
    founders: Founders | None
    drive: Drive | None


def run_batch(
    scenario: str | Scenario,
    worlds: Sequence[BatchWorld],
    *,
    ticks: int,
    observe: Observe,
    every: int = 10,
    founders: Founders | None = None,
    drive: Drive | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """What ``observe`` returned of each world after every ``every`` ticks: arrays [worlds, ticks // every, ...].

    ``observe``, ``founders`` and ``drive`` are functions of a module, which JAX traces; the program is kept by their
    identity. ``progress`` is called with the number of worlds done and their total. Results of a world do not depend on
    the others. Groups of worlds run on as many threads as there are cores.

    Raises InvalidSettings for worlds that differ in more than numbers, and for those of several islands.
    """
    of = load_scenario(scenario)
    static = _shared_static(of, worlds)
    if ticks < every or every < 1:
        raise InvalidSettings(f"a batch of {ticks} ticks, observed every {every}; expected at least one observation")
    plan = _Plan(of, static, _first_sizes(of, static), ticks // every, every, observe, founders, drive)
    groups = [worlds[first : first + GROUP] for first in range(0, len(worlds), GROUP)]
    # The first group runs alone: two threads that miss the same program would both compile it.
    found, plan = _run_group(plan, groups[0])
    results, done = [found], len(groups[0])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        pending = [pool.submit(_run_group, plan, group) for group in groups[1:]]
        for group, each in zip(groups[1:], pending, strict=True):
            if progress is not None:
                progress(done, len(worlds))
            results.append(each.result()[0])
            done += len(group)
    if progress is not None:
        progress(done, len(worlds))
    return {name: np.concatenate([each[name] for each in results]) for name in results[0]}


def _shared_static(scenario: Scenario, worlds: Sequence[BatchWorld]) -> Hashable:
    if not worlds:
        raise InvalidSettings("a batch has no worlds; give at least one BatchWorld")
    first = worlds[0]
    shared = scenario.static(first.config)
    for world in worlds:
        static = scenario.static(world.config)
        if static != shared:
            one, other = first.config.model_dump(), world.config.model_dump()
            changed = ", ".join(name for name in one if one[name] != other[name])
            raise InvalidSettings(
                f"the worlds of a batch differ in {changed}, of which at least one decides shapes of scenario "
                f"{scenario.name!r} (its static); run a batch for each of its values"
            )
        if world.values.keys() != first.values.keys():
            raise InvalidSettings(
                f"the worlds of a batch have values {sorted(first.values)} and {sorted(world.values)}; expected the "
                "same names in all"
            )
    if scenario.islands(first.config) != 1:
        raise InvalidSettings(
            f"a world of a batch has {scenario.islands(first.config)} islands; expected one: take a smaller size"
        )
    return shared


def _first_sizes(scenario: Scenario, static: Any) -> _Sizes:
    """Buffers for an eighth of the slots; most worlds need fewer, and each row costs time in every tick."""
    usual = {spec.kind: spec.capacity for spec in scenario.events(static)} | dict(scenario.capacities(static))
    room = max(_LEAST_ROWS, scenario.slots(static) // 8)
    return tuple(sorted((name, min(size, room)) for name, size in usual.items()))


def _run_group(plan: _Plan, worlds: Sequence[BatchWorld]) -> tuple[dict[str, NDArray[Any]], _Plan]:
    """Results of a group, and the plan whose buffers held all that was needed."""
    padded = [*worlds, *[worlds[-1]] * (GROUP - len(worlds))]  # a smaller group would be another program
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *[plan.scenario.params(world.config) for world in padded])
    values = {name: np.array([world.values[name] for world in padded], np.float32) for name in worlds[0].values}
    seeds = np.array([seed_words(world.seed) for world in padded], np.uint32)
    while True:
        found, needs = _program(plan)(params, values, seeds, np.uint32(0))
        sizes = dict(plan.sizes)
        for name, counts in needs.items():
            while sizes[name] < int(np.asarray(counts).max()):
                sizes[name] *= 2
        if sizes == dict(plan.sizes):
            return {name: np.asarray(leaf)[: len(worlds)] for name, leaf in found.items()}, plan
        plan = replace(plan, sizes=tuple(sorted(sizes.items())))


@lru_cache(maxsize=64)
def _program(plan: _Plan) -> Any:
    """Jitted ``(params, values, seeds, high) -> (observed, needs)`` of a group of worlds.

    ``high`` is 0, the upper word of ticks: as a constant it would let XLA fuse what `Context.stored` keeps apart, and a
    world would differ in its last bits from the one that `simulate` steps.
    """
    scenario, static = plan.scenario, plan.static

    def context(seed: Array, tick: Array, high: Array) -> _Silent:
        return context_of(
            scenario, static, dict(plan.sizes), seed, (tick, high), jnp.uint32(0), jax.default_backend(), kind=_Silent
        )

    def world(params: Any, values: Mapping[str, Array], seed: Array, high: Array) -> Any:
        TRACES[f"{scenario.name} (batch)"] += 1
        state = strong(
            scenario.init(static, params, context(seed, jnp.uint32(0xFFFFFFFF), jnp.uint32(0x7FFFFFFF)))
        )
        if plan.founders is not None:
            state = strong(plan.founders(state, values))

        def tick(state: Any, now: Array) -> tuple[Any, tuple[Any, Any]]:
            ctx = context(seed, now, high)
            present = params if plan.drive is None else plan.drive(params, values, now)
            after = strong(scenario.step(static, present, state, ctx))
            return after, ctx.recorded()

        nothing = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(tick, state, jnp.uint32(0))[1]
        )

        def interval(state: Any, number: Array) -> Any:
            def body(offset: Array, carry: Any) -> Any:
                state, (totals, needs) = carry
                state, (more, needed) = tick(state, number * plan.every + offset.astype(jnp.uint32))
                summed = jax.tree.map(jnp.add, totals, more)
                return state, (summed, jax.tree.map(jnp.maximum, needs, needed))

            state, (totals, needs) = lax.fori_loop(0, plan.every, body, (state, nothing))
            return state, (dict(plan.observe(state, totals)), needs)

        return lax.scan(interval, state, jnp.arange(plan.samples, dtype=jnp.uint32))[1]

    return jax.jit(jax.vmap(world, in_axes=(0, 0, 0, None)))
