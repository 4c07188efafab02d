"""Programs of a world: a chunk of ticks compiled for given sizes of buffers, where needed beforehand in the background.

A program is compiled by its first call. The background thread calls it for zero ticks with a copy of the state, so it
is the same call in everything that XLA distinguishes, and the run finds it compiled.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from astrocyte.schemas.errors import PluginError, wrong_return
from astrocyte.simulator.context import Context, Outputs
from astrocyte.simulator.runtime.buffers import Sizes
from astrocyte.simulator.scenario import Scenario

__all__ = ["TRACES", "Compilation", "chunk_program", "context_of", "copy_state", "init_program",
           "strong"]  # fmt: skip

TRACES: Counter[str] = Counter()
"""How often the step of each scenario was traced (compiled), by name; a sweep over params must not add to it."""


class Compilation:
    """The program of ``sizes`` and ``length`` ticks, being compiled on a thread of its own by ``call``."""

    def __init__(self, sizes: Sizes, length: int, call: Callable[[], object]) -> None:
        self.sizes, self.length = sizes, length
        self._call = call
        self._failure: BaseException | None = None
        # No daemon: an interpreter that ends in the middle of a compilation may crash.
        self._thread = threading.Thread(target=self._run, name="simulator-compiler")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 (raised again by `wait`)
            self._failure = error

    @property
    def done(self) -> bool:
        """Whether it has ended; call `wait` for its error."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Return when the program is compiled. Raises what compiling raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure


@lru_cache(maxsize=128)
def chunk_program(scenario: Scenario, static: Any, sizes: Sizes, ticks: int, stacked: bool, platform: str) -> Any:
    """Jitted ``(params, states, seed, low, high, islands, count) -> (states, Outputs)``: ``count`` of ``ticks`` ticks.

    States are donated.
    """

    def one(params: Any, state: Any, seed: Array, low: Array, high: Array, island: Array) -> tuple[Any, Outputs]:
        ctx = context_of(scenario, static, dict(sizes), seed, (low, high), island, platform)
        after = strong(scenario.step(static, params, state, ctx))
        _check_state(scenario.name, state, after)
        return after, ctx.outputs()

    step = jax.vmap(one, in_axes=(None, 0, None, None, None, 0)) if stacked else one
    every = {spec.kind: spec.every for spec in scenario.events(static)}

    def run(
        params: Any, states: Any, seed: Array, low: Array, high: Array, islands: Array, count: Array
    ) -> tuple[Any, Outputs]:
        TRACES[scenario.name] += 1

        def body(offset: Array, carry: Any) -> Any:
            states, emitted, rows = carry
            now = low + offset.astype(jnp.uint32)
            states, outputs = step(params, states, seed, now, high + (now < low), islands)
            events = outputs.events
            written = {kind: emitted.events[kind].at[rows[every[kind]]].set(events[kind]) for kind in events}
            emitted = jax.tree.map(
                lambda all_, one: all_.at[offset].set(one), emitted._replace(events={}), outputs._replace(events={})
            )
            # A tick without samples writes to the row of the next sample, which overwrites it: the row stays in cache.
            rows = {period: row + (now % jnp.uint32(period) == 0) for period, row in rows.items()}
            return states, emitted._replace(events=written), rows

        shapes = jax.eval_shape(step, params, states, seed, low, high, islands)[1]
        emitted = _zeros(shapes._replace(events={}), ticks)
        events = {kind: _zeros(shape, ticks // every[kind] + 2) for kind, shape in shapes.events.items()}
        rows = dict.fromkeys(sorted(set(every.values())), jnp.int32(0))
        # A loop of ``count`` ticks rather than a scan over all: the last chunk of a run may be shorter, and a different
        # length would compile another program.
        states, emitted, _ = lax.fori_loop(0, count, body, (states, emitted._replace(events=events), rows))
        return states, emitted

    return jax.jit(run, donate_argnums=1)


def _check_state(name: str, before: Any, after: Any) -> None:
    """Raise PluginError for a step whose state has not the parts, shapes and types of the one before."""

    def parts(state: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda leaf: leaf is None)[0]
        return {jax.tree_util.keystr(path) or "it": _shape(leaf) for path, leaf in leaves}

    old, new = parts(before), parts(after)
    if old == new:
        return
    if after is None:
        raise wrong_return(f"step() of scenario {name!r}", after, "the state after the tick")
    part = next(part for part in {**old, **new} if old.get(part) != new.get(part))
    raise PluginError(
        f"step() of scenario {name!r} returned a state in which {part} is {new.get(part, 'missing')}; expected "
        f"{old.get(part, 'no such part')}, as in the state before the tick"
    )


def _shape(leaf: Any) -> str:
    if not hasattr(leaf, "dtype"):
        return type(leaf).__name__
    return f"{leaf.dtype}{list(leaf.shape)}"


def strong(state: Any) -> Any:
    """The state without weak types, which come from Python's numbers: a step that changes one would compile twice."""

    def strong(leaf: Any) -> Any:
        return lax.convert_element_type(leaf, leaf.dtype) if getattr(leaf, "weak_type", False) else leaf

    return jax.tree.map(strong, state)


def _zeros(shapes: Any, rows: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)


@lru_cache(maxsize=32)
def init_program(scenario: Scenario, static: Any, sizes: Sizes, stacked: bool, platform: str) -> Any:
    """Jitted ``(params, seed, islands) -> states`` before tick 0."""

    def one(params: Any, seed: Array, island: Array) -> Any:
        before = (jnp.uint32(0xFFFFFFFF), jnp.uint32(0x7FFFFFFF))
        ctx = context_of(scenario, static, dict(sizes), seed, before, island, platform)
        return strong(scenario.init(static, params, ctx))

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0)) if stacked else one)


def context_of(
    scenario: Scenario,
    static: Any,
    capacities: Mapping[str, int],
    seed: Array,
    tick: tuple[Array, Array],
    island: Array,
    platform: str,
    *,
    kind: type[Context] = Context,
) -> Context:
    """The ``ctx`` of one tick of one island, of the class ``kind``."""
    return kind(
        seed=seed,
        tick=tick,
        island=island,
        slots=scenario.slots(static),
        specs=scenario.events(static),
        capacities=capacities,
        int_metrics=scenario.lanes(),
        float_metrics=scenario.float_metrics,
        plant_kinds=tuple(scenario.Config.plant_kinds),
        platform=platform,
    )


@jax.jit
def copy_state(state: Any) -> Any:
    """A copy of a pytree of arrays on their device."""
    return jax.tree.map(jnp.copy, state)
