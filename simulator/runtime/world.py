"""A world on its devices: islands in groups, chunks of ticks, growable buffers with rewind.

Islands are stepped independently. On a CPU each is one call (its state stays in cache over the chunk, which ran twice
as fast as one large array); on a GPU islands are stacked until a call has about a million slots. Groups are assigned to
the devices in turn.

States are donated from chunk to chunk. If a buffer is too small, the world returns to its last snapshot with larger
buffers (`simulator.runtime.buffers`). The counts of a chunk are checked before it is yielded, so no rows are lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import Context, Outputs
from astrocyte.simulator.rng import seed_words
from astrocyte.simulator.runtime.buffers import ROUNDS_TO_SHRINK, Buffers, Sizes
from astrocyte.simulator.scenario import Scenario

__all__ = ["TRACES", "Round", "World"]

TRACES: Counter[str] = Counter()
"""How often the step of each scenario was traced (compiled), by name; a sweep over params must not add to it."""

GPU_CALL_SLOTS = 1 << 20
SNAPSHOT_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Round:
    """The outputs of all islands over one chunk [first_tick, end_tick), complete when yielded."""

    first_tick: int
    end_tick: int
    islands: tuple[NDArray[np.uint32], ...]
    """Numbers of the islands of each group."""
    outputs: tuple[Outputs, ...]
    """One per group; arrays have leading axes [chunk] or, for a group of several islands, [chunk, islands]. Rows from
    ``end_tick - first_tick`` on are zero. Events of a kind have rows for its active ticks only (`EventSpec.every`)."""
    capacities: Sizes

    def needs(self) -> dict[str, int]:
        """Largest number of entries that a tick of an island needed, by buffer. Waits for the devices."""
        most: dict[str, int] = {}
        for output in self.outputs:
            for name, counts in output.needs.items():
                most[name] = max(most.get(name, 0), int(np.asarray(counts).max()))
        return most


@lru_cache(maxsize=128)
def _chunk(scenario: Scenario, static: Any, capacities: Sizes, ticks: int, stacked: bool, platform: str) -> Any:
    def one(params: Any, state: Any, seed: Array, low: Array, high: Array, island: Array) -> tuple[Any, Outputs]:
        ctx = _context(scenario, static, dict(capacities), seed, (low, high), island, platform)
        state = scenario.step(static, params, state, ctx)
        return state, ctx.outputs()

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


def _zeros(shapes: Any, rows: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shapes)


@lru_cache(maxsize=32)
def _init(scenario: Scenario, static: Any, capacities: Sizes, stacked: bool, platform: str) -> Any:

    def one(params: Any, seed: Array, island: Array) -> Any:
        before = (jnp.uint32(0xFFFFFFFF), jnp.uint32(0x7FFFFFFF))
        ctx = _context(scenario, static, dict(capacities), seed, before, island, platform)
        return scenario.init(static, params, ctx)

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0)) if stacked else one)


def _context(
    scenario: Scenario,
    static: Any,
    capacities: Mapping[str, int],
    seed: Array,
    tick: tuple[Array, Array],
    island: Array,
    platform: str,
) -> Context:
    return Context(
        seed=seed,
        tick=tick,
        island=island,
        slots=scenario.slots(static),
        specs=scenario.events(static),
        capacities=capacities,
        int_metrics=scenario.lanes(),
        float_metrics=scenario.float_metrics,
        platform=platform,
    )


@jax.jit
def _copy(state: Any) -> Any:
    return jax.tree.map(jnp.copy, state)


class World:
    """The state of a scenario on the devices; `run` advances it."""

    def __init__(
        self,
        scenario: Scenario,
        config: ScenarioConfig,
        seed: int,
        *,
        chunk_ticks: int = 10,
        devices: Sequence[Any] | None = None,
        group_islands: int | None = None,
    ) -> None:
        self.scenario, self.config = scenario, config
        self.static = scenario.static(config)
        self.tick = 0
        self.reruns = 0
        """How often a chunk was run again because a buffer was too small."""
        self._chunk_ticks = chunk_ticks
        # Chunks of similar length share a program: its buffers are for a multiple of ten ticks.
        self._buffer_ticks = -(-chunk_ticks // 10) * 10
        self._seed = np.array(seed_words(seed), np.uint32)
        specs = scenario.events(self.static)
        self._buffers = Buffers(
            scenario.name,
            {spec.kind: spec.capacity for spec in specs} | dict(scenario.capacities(self.static)),
            # Founders, for example, are emitted once: later chunks should not carry their buffer.
            rare={spec.kind: spec.every for spec in specs if spec.every > ROUNDS_TO_SHRINK * chunk_ticks},
            chunk_ticks=chunk_ticks,
        )
        self._devices = list(devices) if devices else jax.local_devices()
        self._groups = self._deal(scenario.islands(config), group_islands)
        self._states: list[Any] = []
        self._snapshot: tuple[int, list[Any]] | None = None
        self._params: dict[Any, tuple[Any, Any]] = {}
        self.reset(scenario.params(config))

    @property
    def islands(self) -> int:
        """Number of islands."""
        return sum(len(group) for group in self._groups)

    def _deal(self, islands: int, group_islands: int | None) -> list[NDArray[np.uint32]]:
        if group_islands is None:
            on_cpu = self._devices[0].platform == "cpu"
            wanted = max(GPU_CALL_SLOTS // max(self.scenario.slots(self.static), 1), 1)
            group_islands = 1 if on_cpu else max(1, min(wanted, -(-islands // len(self._devices))))
        numbers = np.arange(islands, dtype=np.uint32)
        return [numbers[first : first + group_islands] for first in range(0, islands, group_islands)]

    def _device(self, group: int) -> Any:
        return self._devices[group % len(self._devices)]

    def reset(self, params: Any) -> None:
        """State before tick 0."""
        self.tick, self._snapshot, self._states = 0, None, []
        self._buffers.restart()
        sizes = self._buffers.take()
        for number, islands in enumerate(self._groups):
            stacked, device = len(islands) > 1, self._device(number)
            make = _init(self.scenario, self.static, sizes, stacked, device.platform)
            state = make(self._placed(params, device), self._seed, islands if stacked else islands[0])
            # A copy, because equal leaves may share one buffer, which cannot be donated twice. Committed to its device
            # like the states that chunks return: otherwise the second chunk would compile again.
            self._states.append(jax.device_put(_copy(state), device))

    def _placed(self, params: Any, device: Any) -> Any:
        # Parameters change rarely: they are moved to each device once, not at every dispatch.
        known = self._params.get(device)
        if known is None or known[0] is not params:
            known = (params, jax.device_put(params, device))
            self._params[device] = known
        return known[1]

    def _dispatch(self, ticks: int, params: Any) -> Round:
        outputs = []
        low, high = np.uint32(self.tick & 0xFFFFFFFF), np.uint32(self.tick >> 32)
        capacities = self._buffers.take()
        for number, islands in enumerate(self._groups):
            stacked, device = len(islands) > 1, self._device(number)
            run = _chunk(self.scenario, self.static, capacities, self._buffer_ticks, stacked, device.platform)
            which = islands if stacked else islands[0]
            placed = self._placed(params, device)
            self._states[number], output = run(
                placed, self._states[number], self._seed, low, high, which, np.int32(ticks)
            )
            if device.platform != "cpu":
                for leaf in jax.tree.leaves(output):
                    leaf.copy_to_host_async()
            outputs.append(output)
        first, self.tick = self.tick, self.tick + ticks
        return Round(first, self.tick, tuple(self._groups), tuple(outputs), capacities)

    def run(
        self, end: int, params: Callable[[int], Any], stop: Callable[[int], int] = lambda _: 2**62
    ) -> Iterator[Round]:
        """Advance to tick ``end`` and yield verified rounds in order; one chunk is always in flight.

        ``params(tick)`` returns the params from ``tick`` on and ``stop(tick)`` the next tick at which they may change;
        no chunk crosses it. After a rewind the first round may start before ticks that were yielded already, with the
        same content. Raises BufferStuck if a round still overflows after all replays.
        """
        waiting: deque[Round] = deque()
        shown = self.tick
        while self.tick < end or waiting:
            due = self._snapshot is None or self.tick - self._snapshot[0] >= SNAPSHOT_ROUNDS * self._chunk_ticks
            if self.tick < end and not (due and waiting):
                if due:
                    self._snapshot = None
                    # Only here, where all earlier rounds are verified: a replay that shrank a buffer would overflow
                    # again.
                    self._buffers.shrink(self.tick)
                    self._snapshot = (self.tick, [_copy(state) for state in self._states])
                room = min(end, stop(self.tick)) - self.tick
                waiting.append(self._dispatch(min(room, self._chunk_ticks), params(self.tick)))
                if len(waiting) == 1 and self.tick < end:
                    continue
            done = waiting.popleft()
            needs = done.needs()
            if self._buffers.overflowed(done.first_tick, done.end_tick, done.capacities, needs):
                waiting.clear()
                self.reruns += 1
                self._rewind()
                continue
            self._buffers.measured(done.end_tick, needs)
            if done.end_tick > shown:
                shown = done.end_tick
                yield done

    def _rewind(self) -> None:
        assert self._snapshot is not None
        self.tick = self._snapshot[0]
        self._states = [_copy(state) for state in self._snapshot[1]]

    def host_states(self) -> list[Any]:
        """State of every island as NumPy arrays, in order. Copies: a view would forbid donation of the state."""
        states: list[Any] = []
        for islands, state in zip(self._groups, self._states, strict=True):
            host = jax.tree.map(np.asarray, _copy(state))
            if len(islands) > 1:
                states += [jax.tree.map(lambda leaf, row=row: leaf[row], host) for row in range(len(islands))]
            else:
                states.append(host)
        return states

    def restore(self, tick: int, states: Sequence[Any]) -> None:
        """Load the states of all islands (as `host_states` returned them) at ``tick``."""
        self.tick, self._snapshot = tick, None
        self._states = []
        for number, islands in enumerate(self._groups):
            own = [states[int(island)] for island in islands]
            host = jax.tree.map(lambda *leaves: np.stack(leaves), *own) if len(own) > 1 else own[0]
            self._states.append(_copy(jax.device_put(host, self._device(number))))

    def wait(self) -> None:
        """Block until the devices have finished all dispatched work."""
        jax.block_until_ready(self._states)
