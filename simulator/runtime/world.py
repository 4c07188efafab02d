"""A world on its devices: islands in groups, chunks of ticks, growable buffers with rewind.

Islands are stepped independently. On a CPU each is one call (its state stays in cache over the chunk, which ran twice
as fast as one large array); on a GPU islands are stacked until a call has about a million slots. Groups are assigned to
the devices in turn.

States are donated from chunk to chunk. If a buffer is too small, the world returns to its last snapshot and runs the
ticks that overflowed again, with the spill program (`simulator.runtime.buffers`). The counts of a chunk are checked
before it is yielded, so no rows are lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from astrocyte.schemas.errors import AstrocyteError, PluginError
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.context import Outputs
from astrocyte.simulator.rng import seed_words
from astrocyte.simulator.runtime.buffers import Buffers, Sizes
from astrocyte.simulator.runtime.programs import Compilation, chunk_program, copy_state, init_program
from astrocyte.simulator.scenario import Scenario

__all__ = ["SNAPSHOT_ROUNDS", "Round", "RoundStuck", "World"]

GPU_CALL_SLOTS = 1 << 20
SNAPSHOT_ROUNDS = 16
SPILL_TICKS = 1
"""Ticks of a round of the spill program: its buffers are large, and few ticks need them."""
SPILL_CALLS = 4
"""Calls of the spill program whose whole buffers are in memory at the same time."""


class RoundStuck(AstrocyteError):
    """A round without ticks: the run would never end."""


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

    def trimmed(self) -> Round:
        """The round without the unused rows of its buffers."""
        return replace(self, outputs=tuple(map(_trimmed, self.outputs)))


def _trimmed(output: Outputs) -> Outputs:
    used = {kind: int(np.asarray(counts).max()) for kind, counts in output.counts.items()}
    return output._replace(
        events={kind: np.asarray(packed)[..., : used[kind]].copy() for kind, packed in output.events.items()}
    )


class World:
    """The state of a scenario on the devices; `run` advances it.

    With ``prepare`` the spill program is compiled in the background from the first round on, so that a burst does not
    stop the run for the seconds of a compilation: for runs that last longer than that.
    """

    def __init__(
        self,
        scenario: Scenario,
        config: ScenarioConfig,
        seed: int,
        *,
        chunk_ticks: int = 10,
        devices: Sequence[Any] | None = None,
        group_islands: int | None = None,
        prepare: bool = False,
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
        initial = {spec.kind: spec.capacity for spec in scenario.events(self.static)}
        initial |= scenario.capacities(self.static)
        slots = scenario.slots(self.static)
        largest = dict.fromkeys(initial, slots) | dict(scenario.largest(self.static))
        self._buffers = Buffers(scenario.name, initial, largest)
        self._prepare = prepare
        self._compiled: set[tuple[Sizes, int]] = set()
        self._compilation: Compilation | None = None
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
        if islands < 1:
            raise PluginError(f"islands() of scenario {self.scenario.name!r} returned {islands}; expected 1 or more")
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
            make = init_program(self.scenario, self.static, sizes, stacked, device.platform)
            state = make(self._placed(params, device), self._seed, islands if stacked else islands[0])
            # A copy, because equal leaves may share one buffer, which cannot be donated twice. Committed to its device
            # like the states that chunks return: otherwise the second chunk would compile again.
            self._states.append(jax.device_put(copy_state(state), device))

    def _placed(self, params: Any, device: Any) -> Any:
        # Parameters change rarely: they are moved to each device once, not at every dispatch.
        known = self._params.get(device)
        if known is None or known[0] is not params:
            known = (params, jax.device_put(params, device))
            self._params[device] = known
        return known[1]

    def _dispatch(self, ticks: int, params: Any) -> Round:
        outputs: list[Outputs] = []
        spilled = self._buffers.spills(self.tick)
        sizes = self._buffers.spill_sizes() if spilled else self._buffers.take()
        length = SPILL_TICKS if spilled else self._buffer_ticks
        self._await_compilation(sizes, length)
        for number in range(len(self._groups)):
            placed = self._placed(params, self._device(number))
            self._states[number], output = self._call(
                number, sizes, length, placed, self._states[number], self.tick, min(ticks, length)
            )
            if self._device(number).platform != "cpu":
                for leaf in jax.tree.leaves(output):
                    leaf.copy_to_host_async()
            outputs.append(output)
            if spilled and number >= SPILL_CALLS:
                outputs[number - SPILL_CALLS] = _trimmed(outputs[number - SPILL_CALLS])
        self._compiled.add((sizes, length))
        first, self.tick = self.tick, self.tick + min(ticks, length)
        return Round(first, self.tick, tuple(self._groups), tuple(outputs), sizes)

    def _call(
        self, number: int, sizes: Sizes, length: int, params: Any, state: Any, tick: int, ticks: int
    ) -> tuple[Any, Outputs]:
        """State of a group after ``ticks`` ticks, by the program of these sizes; ``state`` is donated."""
        islands = self._groups[number]
        stacked, platform = len(islands) > 1, self._device(number).platform
        run = chunk_program(self.scenario, self.static, sizes, length, stacked, platform)
        low, high = np.uint32(tick & 0xFFFFFFFF), np.uint32(tick >> 32)
        after: tuple[Any, Outputs] = run(
            params, state, self._seed, low, high, islands if stacked else islands[0], np.int32(ticks)
        )
        return after

    def _compile_next(self) -> None:
        """Compile in the background what will be needed: the spill program, or ordinary sizes that suit better."""
        if self._compilation is not None:
            return
        needed = [(self._buffers.spill_sizes(), SPILL_TICKS)] if self._prepare and self._buffers.may_spill else []
        wanted = self._buffers.wanted()
        needed += [(wanted, self._buffer_ticks)] if wanted is not None else []
        missing = [program for program in needed if program not in self._compiled]
        if not missing or self._snapshot is None:
            return
        sizes, length = missing[0]
        # One call for each device and number of islands. The snapshot's states are never donated, so they can be
        # copied on any thread.
        groups = {(len(group), self._device(number)): number for number, group in enumerate(self._groups)}
        states = self._snapshot[1]

        def compile_all() -> None:
            for number in groups.values():
                params = self._params[self._device(number)][1]
                jax.block_until_ready(self._call(number, sizes, length, params, copy_state(states[number]), 0, 0))

        self._compilation = Compilation(sizes, length, compile_all)

    def _await_compilation(self, sizes: Sizes, length: int) -> None:
        """Wait for the compilation in the background if it is the one that is needed now."""
        known = self._compilation
        if known is not None and (known.sizes, known.length) == (sizes, length):
            self._end_compilation(known)

    def _end_compilation(self, known: Compilation) -> None:
        known.wait()
        self._compilation = None
        self._compiled.add((known.sizes, known.length))

    def _take_snapshot(self) -> None:
        """Snapshot of the present tick. All earlier rounds are verified, so sizes may change here, and only here."""
        self._snapshot = None
        self._buffers.consider_shrinking()
        ended = self._compilation
        if ended is not None and ended.done:
            self._end_compilation(ended)
            if ended.length == self._buffer_ticks:
                self._buffers.compiled(ended.sizes, self.tick)
        wanted = self._buffers.wanted()
        if wanted is not None and (wanted, self._buffer_ticks) in self._compiled:
            self._buffers.compiled(wanted, self.tick)
        self._snapshot = (self.tick, [copy_state(state) for state in self._states])

    def _snapshot_due(self) -> bool:
        if self._snapshot is None:
            return True
        taken = self._snapshot[0]
        # After the ticks of the spill program too: a later overflow must not run them again by the ordinary one.
        spill_ended = taken < self._buffers.spill_end <= self.tick
        return spill_ended or self.tick - taken >= SNAPSHOT_ROUNDS * self._chunk_ticks

    def run(
        self, end: int, params: Callable[[int], Any], stop: Callable[[int], int] = lambda _: 2**62
    ) -> Iterator[Round]:
        """Advance to tick ``end`` and yield verified rounds in order; one chunk is always in flight.

        ``params(tick)`` returns the params from ``tick`` on and ``stop(tick)`` the next tick at which they may change;
        no chunk crosses it. After a rewind the first round may start before ticks that were yielded already, with the
        same content. Raises BufferStuck if a round still overflows after all replays, RoundStuck for a round without
        ticks.
        """
        waiting: deque[Round] = deque()
        shown = self.tick
        while self.tick < end or waiting:
            due = self._snapshot_due()
            if self.tick < end and not (due and waiting):
                if due:
                    self._take_snapshot()
                waiting.append(self._dispatch(self._room(end, stop(self.tick)), params(self.tick)))
                if len(waiting) == 1 and self.tick < end:
                    continue
            done = waiting.popleft()
            needs = done.needs()
            if self._buffers.overflowed(done.first_tick, done.end_tick, done.capacities, needs):
                waiting.clear()
                self.reruns += 1
                self._rewind()
                continue
            spilled = self._buffers.spills(done.first_tick)
            self._buffers.measured(done.first_tick, done.end_tick, needs)
            self._compile_next()
            if done.end_tick > shown:
                shown = done.end_tick
                yield done.trimmed() if spilled else done

    def _room(self, end: int, change: int) -> int:
        ticks = min(end, change, self._buffers.turn(self.tick)) - self.tick
        if ticks < 1:
            raise RoundStuck(
                f"scenario {self.scenario.name!r}: the round at tick {self.tick} does not advance: its params may "
                f"change at tick {change}, expected a later tick; its buffers are {dict(self._buffers.take())}"
            )
        return min(ticks, self._chunk_ticks)

    def _rewind(self) -> None:
        assert self._snapshot is not None
        self.tick = self._snapshot[0]
        self._states = [copy_state(state) for state in self._snapshot[1]]

    def host_states(self) -> list[Any]:
        """State of every island as NumPy arrays, in order. Copies: a view would forbid donation of the state."""
        states: list[Any] = []
        for islands, state in zip(self._groups, self._states, strict=True):
            host = jax.tree.map(np.asarray, copy_state(state))
            if len(islands) > 1:
                states += [jax.tree.map(lambda leaf, row=row: leaf[row], host) for row in range(len(islands))]
            else:
                states.append(host)
        return states

    def restore(self, tick: int, states: Sequence[Any]) -> None:
        """Load the states of all islands (as `host_states` returned them) at ``tick``."""
        self.tick, self._snapshot = tick, None
        self._buffers.restart()
        self._states = []
        for number, islands in enumerate(self._groups):
            own = [states[int(island)] for island in islands]
            host = jax.tree.map(lambda *leaves: np.stack(leaves), *own) if len(own) > 1 else own[0]
            self._states.append(copy_state(jax.device_put(host, self._device(number))))

    def wait(self) -> None:
        """Block until the devices have finished all dispatched work, and the compiler what it is at."""
        jax.block_until_ready(self._states)
        if self._compilation is not None:
            self._compilation.wait()
