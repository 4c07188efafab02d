"""Many worlds of one scenario at once: `run_batch` steps them in one program, which is compiled once.

The worlds differ in seed and in numbers (``params``), which are traced values: no value of a parameter compiles again.
Nothing is emitted. What is kept of a world is what ``observe`` makes of its state every few ticks, so that a thousand
worlds of a thousand ticks fit in memory. A world's states are those of `simulate` with the same settings and seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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

__all__ = ["INTERVALS", "BatchWorld", "Command", "Observe", "Steer", "run_batch"]

Observe = Callable[[Any, Any, Mapping[str, Array]], Mapping[str, Array]]
"""``observe(params, state, totals)``: arrays to keep of a world at the end of an interval; traced. ``totals`` holds its
metrics, summed over the ticks of the interval; vectors, and what a step records in some ticks only, are left out."""
Founders = Callable[[Any, Mapping[str, Array]], Any]
"""``founders(state, values)``: the state before tick 0, changed; traced."""
Command = tuple[int, str, Mapping[str, Any]]
"""Number of a world, name of the control, values."""
Steer = Callable[[int, int, Mapping[str, NDArray[Any]]], Iterable[Command]]
"""``steer(first, tick, seen)``: commands that apply from ``tick`` on, for worlds of the group whose first is number
``first``. ``seen`` is what was observed of them since the call before: arrays [worlds, intervals, ...]."""

GROUP: Final = 16
"""Worlds of one call: their state stays in the cache, and a call is short enough to show progress."""
INTERVALS: Final = 10
"""Intervals of one call. Runs of any length, observed as often as wanted, share one program."""
_LEAST_ROWS: Final = 32
_Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class BatchWorld:
    """One world: its settings and seed, and the numbers that ``founders`` is given.

    With ``then`` its numbers change to those of other settings: not before tick ``change[0]``, in equal steps up to
    ``change[1]``, all at once where both are the same. Whole numbers (planted anomalies) stay.
    """

    config: ScenarioConfig
    seed: int
    values: Mapping[str, float] = field(default_factory=dict)
    then: ScenarioConfig | None = None
    change: tuple[int, int] = (0, 0)


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
        """Deaths, without events."""
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
    observe: Observe
    founders: Founders | None


def run_batch(
    scenario: str | Scenario,
    worlds: Sequence[BatchWorld],
    *,
    ticks: int,
    observe: Observe,
    every: int = 10,
    founders: Founders | None = None,
    steer: Steer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """What ``observe`` returned of each world after every ``every`` ticks: arrays [worlds, ticks // every, ...].

    ``observe`` and ``founders`` are functions of a module, which JAX traces; the program is kept by their identity.
    ``steer`` is a host function, called after every `INTERVALS` intervals and from several threads, each with groups of
    its own: its commands change a world as messages of ``control.<name>`` change a running simulation. ``progress`` is
    called with the number of worlds done and their total. The results of a world do not depend on the others. Groups of
    worlds run on as many threads as there are cores.

    Raises InvalidSettings for worlds that differ in more than numbers, and for those of several islands, and what the
    scenario raises for a command that it refuses.
    """
    of = load_scenario(scenario)
    static = _shared_static(of, worlds)
    if every < 1 or ticks < every:
        raise InvalidSettings(f"a batch of {ticks} ticks, observed every {every}; expected at least one observation")
    plan = _Plan(of, static, _first_sizes(of, static), observe, founders)
    groups = [worlds[first : first + GROUP] for first in range(0, len(worlds), GROUP)]
    # The first group runs alone: two threads that miss the same program would both compile it.
    found, plan = _run_group(plan, groups[0], ticks // every, every, steer, 0)
    results, done = [found], len(groups[0])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        pending = [
            pool.submit(_run_group, plan, group, ticks // every, every, steer, GROUP * number)
            for number, group in enumerate(groups[1:], 1)
        ]
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
        for config in (world.config, world.then or world.config):
            if scenario.static(config) != shared:
                one, other = first.config.model_dump(), config.model_dump()
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
    if (islands := scenario.islands(first.config)) != 1:
        raise InvalidSettings(f"a world of a batch has {islands} islands; expected one: take a smaller size")
    return shared


def _first_sizes(scenario: Scenario, static: Any) -> _Sizes:
    """Buffers for an eighth of the slots; most worlds need fewer, and each row costs time in every tick."""
    usual = {spec.kind: spec.capacity for spec in scenario.events(static)} | dict(scenario.capacities(static))
    room = max(_LEAST_ROWS, scenario.slots(static) // 8)
    return tuple(sorted((name, min(size, room)) for name, size in usual.items()))


def _run_group(
    plan: _Plan, worlds: Sequence[BatchWorld], samples: int, every: int, steer: Steer | None, number: int
) -> tuple[dict[str, NDArray[Any]], _Plan]:
    """Results of a group, whose first world has that number; and the plan whose buffers held all that was needed."""
    padded = [*worlds, *[worlds[-1]] * (GROUP - len(worlds))]  # a smaller group would be another program
    numbers = _Numbers(plan.scenario, padded)
    # Placed once: NumPy arrays would be copied at every call.
    arguments = jax.device_put((
        *numbers.stacked(),
        np.array([world.change for world in padded], np.int32),
        np.array([seed_words(world.seed) for world in padded], np.uint32),
    ))  # fmt: skip
    values = {name: np.array([world.values[name] for world in padded], np.float32) for name in worlds[0].values}
    states = _init_program(plan)(arguments[0], values, arguments[3])
    found: list[dict[str, NDArray[Any]]] = []
    first = 0
    while first < samples:
        count = min(INTERVALS, samples - first)
        after, seen, needs = _program(plan)(
            *arguments, states, np.uint32(0), np.uint32(first * every), np.int32(every), np.int32(count)
        )
        sizes = dict(plan.sizes)
        for name, most in needs.items():
            while sizes[name] < int(np.asarray(most).max()):
                sizes[name] *= 2
        if sizes != dict(plan.sizes):  # these intervals again, from the state before them
            plan = replace(plan, sizes=tuple(sorted(sizes.items())))
            continue
        states = after
        found.append({name: np.asarray(leaf)[: len(worlds), :count] for name, leaf in seen.items()})
        first += count
        if steer is not None and first < samples:
            commands = list(steer(number, first * every, found[-1]))
            for world, control, command in commands:
                numbers.control(world - number, control, command)
            if commands:
                arguments = (*jax.device_put(numbers.stacked()), *arguments[2:])
    return {name: np.concatenate([each[name] for each in found], axis=1) for name in found[0]}, plan


class _Numbers:
    """The params of a group's worlds, before and after their change, as controls leave them."""

    def __init__(self, scenario: Scenario, worlds: Sequence[BatchWorld]) -> None:
        self._scenario = scenario
        self._configs = [(world.config, world.then or world.config) for world in worlds]
        self._params = [[scenario.params(config) for config in pair] for pair in self._configs]

    def control(self, world: int, name: str, values: Mapping[str, Any]) -> None:
        """Apply a command to a world of the group. Raises what the scenario raises if it refuses it."""
        self._params[world] = [
            self._scenario.control(config, params, name, values)
            for config, params in zip(self._configs[world], self._params[world], strict=True)
        ]

    def stacked(self) -> tuple[Any, Any]:
        """Params before and after the change, of all worlds."""
        before, after = (_stacked(pair[place] for pair in self._params) for place in (0, 1))
        return before, after


def _stacked(trees: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _context(plan: _Plan, seed: Array, tick: Array, high: Array) -> _Silent:
    ctx = context_of(
        plan.scenario, plan.static, dict(plan.sizes), seed, (tick, high), jnp.uint32(0), jax.default_backend(),
        kind=_Silent,
    )  # fmt: skip
    assert isinstance(ctx, _Silent)
    return ctx


@lru_cache(maxsize=64)
def _init_program(plan: _Plan) -> Any:
    """Jitted ``(params, values, seeds) -> states`` before tick 0."""

    def world(params: Any, values: Mapping[str, Array], seed: Array) -> Any:
        ctx = _context(plan, seed, jnp.uint32(0xFFFFFFFF), jnp.uint32(0x7FFFFFFF))
        state = strong(plan.scenario.init(plan.static, params, ctx))
        return state if plan.founders is None else strong(plan.founders(state, values))

    return jax.jit(jax.vmap(world))


def _between(params: Any, then: Any, change: Array, tick: Array) -> Any:
    """Params of a tick: exactly ``params`` before the change, exactly ``then`` after it."""
    since = (tick.astype(jnp.int32) - change[0]).astype(jnp.float32)
    share = jnp.clip((since + 1.0) / jnp.maximum(change[1] - change[0], 1).astype(jnp.float32), 0.0, 1.0)
    share = jnp.where(since < 0.0, 0.0, share)

    def mixed(one: Array, other: Array) -> Array:
        if not jnp.issubdtype(one.dtype, jnp.floating):
            return one
        return jnp.where(share >= 1.0, other, jnp.where(share <= 0.0, one, one + share * (other - one)))

    return jax.tree.map(mixed, params, then)


@lru_cache(maxsize=64)
def _program(plan: _Plan) -> Any:
    """Jitted ``(params, then, change, seeds, states, high, first, every, count) -> (states, observed, needs)``.

    ``count`` intervals of ``every`` ticks from tick ``first`` on. ``high`` is 0, the upper word of ticks: as a constant
    it would let XLA fuse what `Context.stored` keeps apart, and a world would differ in its last bits from the one that
    `simulate` steps.
    """

    def world(
        params: Any, then: Any, change: Array, seed: Array, state: Any, high: Array, first: Array, every: Array,
        count: Array,
    ) -> Any:  # fmt: skip
        TRACES[f"{plan.scenario.name} (batch)"] += 1

        def tick(state: Any, now: Array) -> tuple[Any, tuple[Any, Any]]:
            ctx = _context(plan, seed, now, high)
            present = _between(params, then, change, now)
            return strong(plan.scenario.step(plan.static, present, state, ctx)), ctx.recorded()

        shapes = jax.eval_shape(tick, state, first)[1]
        nothing, no_needs = (jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), each) for each in shapes)

        def interval(number: Array, carry: Any) -> Any:
            state, seen, needs = carry

            def body(offset: Array, carry: Any) -> Any:
                state, totals, needs = carry
                state, (more, needed) = tick(state, first + (number * every + offset).astype(jnp.uint32))
                return state, jax.tree.map(jnp.add, totals, more), jax.tree.map(jnp.maximum, needs, needed)

            state, totals, needs = lax.fori_loop(0, every, body, (state, nothing, needs))
            last = first + ((number + 1) * every - 1).astype(jnp.uint32)
            new = dict(plan.observe(_between(params, then, change, last), state, totals))
            return state, jax.tree.map(lambda all_, one: all_.at[number].set(one), seen, new), needs

        one = jax.eval_shape(lambda *seen: dict(plan.observe(*seen)), params, state, nothing)
        seen = {name: jnp.zeros((INTERVALS, *leaf.shape), leaf.dtype) for name, leaf in one.items()}
        return lax.fori_loop(0, count, interval, (state, seen, no_needs))

    return jax.jit(jax.vmap(world, in_axes=(0, 0, 0, 0, 0, None, None, None, None)))
