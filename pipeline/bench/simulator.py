"""Figures of the simulator: each scenario's speed, the machine's memory bandwidth, streaming, memory of large worlds.

Runs on any device: on a GPU islands are stacked into calls of a million slots, on several devices they are distributed.
Needs only JAX, NumPy, pydantic and pyarrow, so ``python -m astrocyte.pipeline.bench.simulator`` also runs where other
dependencies are not installed (then without a broker). The bandwidth bound counts the bytes that a tick has to move at
least: the traits of all individuals that the equations read, and the values that they write. The speed is wall time;
``per_core_second`` divides by processor time, on which other load on the machine has less effect.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.simulator.config import configure
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.emission.emitter import CallableSink, Emitter, FrameSink
from astrocyte.simulator.runtime.programs import TRACES
from astrocyte.simulator.runtime.world import Round, World
from astrocyte.simulator.scenario import load_scenario
from astrocyte.simulator.scenarios.cells.config import INPUTS, TRAITS

__all__ = ["run"]

CELL_BYTES = (1 + 3 * 4 + 4 * len(TRAITS) + 4 * INPUTS) + (1 + 2 * 4)
"""Bytes of a cell per tick. Read: alive, energy, mass, birth_tick, traits, the weights of one problem.
Written: alive, energy, mass."""
SATURATED = {"initial": 1.0, "supply": 10.0, "hazard": 0.004}
"""Settings of cells with a full world, so that every slot is a living cell."""
LOUD = {"routine_every": 10, "routine_share": 0.05}
"""Settings of cells that emit three million events per second where a million cells run at seventy ticks per second."""
FERTILE = {"regrowth": 0.03, "growth": 0.03}
"""Settings of an ecology that feeds an agent in every slot; by default every second slot is alive."""


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """The figures, one after the other."""
    bandwidth = memory_bandwidth()
    device = jax.devices()[0]
    yield {
        "bench": "simulator_memory",
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "bytes_per_s": bandwidth,
    }
    on_gpu = device.platform != "cpu"
    size = 33_554_432 if on_gpu and not quick else 1_000_000
    yield _cells(size, 50 if quick else 300, bandwidth, chunk_ticks=50)
    yield from _streaming(262_144 if quick else 1_000_000, 40 if quick else 200)
    yield _scenario("axons", {"domains": 100_000, "tick_us": 100_000}, 40 if quick else 200, "spikes")
    for settings in ({"size": 262_144}, {"size": 131_072, **FERTILE}):
        figure = _scenario("ecology", settings, 20 if quick else 100, "alive", settle=50 if quick else 600)
        full = {"bench": "simulator_ecology_full"} if "regrowth" in settings else {}
        yield figure | full | {"agent_steps_per_s": figure.pop("alive_per_s")}
    kernels = {"size": 4096, "initial": 1.0, "merge_every": 50}
    yield _scenario("kernels", kernels, 50 if quick else 200, "alive", totals=("merged",)) | {"merge_every": 50}
    dna = {"size": 100, "generation_ticks": 1, "watched": 0.1}
    figure = _scenario("dna", dna, 1000 if quick else 10_000, None)
    yield figure | {"generations_per_s": figure.pop("ticks_per_s")}
    if not quick and not on_gpu:
        yield _large(10_000_000)


def memory_bandwidth() -> float:
    """Bytes per second of copying, read plus written; the best of several runs on all cores or devices."""
    if jax.devices()[0].platform != "cpu":
        words = jnp.zeros(1 << 28, jnp.float32)
        add = jax.jit(lambda values: values + 1.0, donate_argnums=0)
        words = add(words).block_until_ready()
        best = 0.0
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(10):
                words = add(words)
            words.block_until_ready()
            best = max(best, 10 * 2 * words.nbytes / (time.perf_counter() - start))
        return best * len(jax.devices())
    cores = len(os.sched_getaffinity(0))
    sources = [np.ones(1 << 24, np.float64) for _ in range(cores)]
    targets = [np.zeros_like(source) for source in sources]

    def copy(core: int) -> None:
        for _ in range(4):
            np.copyto(targets[core], sources[core])

    best = 0.0
    for _ in range(4):
        threads = [threading.Thread(target=copy, args=(core,)) for core in range(cores)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, 4 * 2 * cores * sources[0].nbytes / (time.perf_counter() - start))
    return best


class _Timed:
    """A world that is warmed up (everything compiled), and the time of a run from there in seconds."""

    def __init__(
        self, name: str, settings: dict[str, Any], ticks: int, *, chunk_ticks: int = 10, settle: int = 0
    ) -> None:
        scenario = load_scenario(name)
        self.config = configure(scenario.Config, settings, scenario=name)
        self.scenario, self.ticks = scenario, ticks
        self.world = World(scenario, self.config, 7, chunk_ticks=chunk_ticks)
        params = scenario.params(self.config)
        self.params: Callable[[int], Any] = lambda _: params
        self.slots = self.world.islands * scenario.slots(self.world.static)
        self.seconds = self.core_seconds = 0.0
        traces = -1
        for _ in self.world.run(settle, self.params):
            pass
        while traces != TRACES[scenario.name]:
            traces = TRACES[scenario.name]
            for _ in self.world.run(self.world.tick + max(ticks, 4 * chunk_ticks), self.params):
                pass
            self.world.wait()

    def run(self, take: Callable[[Round], object]) -> None:
        """Advance, passing every round to ``take``; sets ``seconds`` and ``core_seconds``."""
        before = TRACES[self.scenario.name]
        wall, core = time.perf_counter(), time.process_time()
        for done in self.world.run(self.world.tick + self.ticks, self.params):
            take(done)
        self.world.wait()
        self.seconds, self.core_seconds = time.perf_counter() - wall, time.process_time() - core
        if TRACES[self.scenario.name] != before:
            self.run(take)  # A buffer grew, so a compilation was measured: repeat.

    def metric(self, done: Round, name: str) -> float:
        """Sum over islands, mean over ticks, of an integer metric of a round."""
        lane = list(self.scenario.lanes()).index(name)
        ticks = done.end_tick - done.first_tick
        return sum(float(np.asarray(output.ints)[:ticks, ..., lane].sum()) for output in done.outputs) / ticks


def _cells(size: int, ticks: int, bandwidth: float, *, chunk_ticks: int) -> dict[str, Any]:
    timed = _Timed("cells", {"size": size, **SATURATED}, ticks, chunk_ticks=chunk_ticks)
    rounds: list[Round] = []
    timed.run(rounds.append)
    alive, births = timed.metric(rounds[-1], "alive"), timed.metric(rounds[-1], "births")
    rate = alive * ticks / timed.seconds
    state = sum(leaf.nbytes for group in timed.world.host_states() for leaf in jax.tree.leaves(group))
    return {
        "bench": "simulator_cells",
        "cells": int(alive),
        "ticks": ticks,
        "seconds": timed.seconds,
        "cell_ticks_per_s": rate,
        "per_core_second": alive * ticks / timed.core_seconds,
        "births_per_s": births * ticks / timed.seconds,
        "bytes_per_cell_tick": CELL_BYTES,
        "fraction_of_bandwidth": rate * CELL_BYTES / bandwidth,
        "state_bytes_per_cell": state / timed.slots,
        "reruns": timed.world.reruns,
    }


class _Counted:
    """A sink that encodes every frame and discards it."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def __call__(self, frame: Frame) -> None:
        self.size_bytes += len(encode_frame(frame))


def _streaming(size: int, ticks: int) -> Iterator[dict[str, Any]]:
    """Cost for the simulation of encoding every event in frames, and of delivery to a broker.

    Runs in turn: without output, encoding, into the broker, which is another process on the same machine. ``slowdown``
    refers to wall time from the first tick until the last frame is confirmed; if all cores are busy, it includes the
    processor time of the broker. ``core_slowdown`` refers to the processor time of this process: assembling, encoding
    and sending.
    """
    timed = _Timed("cells", {"size": size, **SATURATED, **LOUD}, ticks)
    with ExitStack() as stack:
        counted = _Counted()
        sinks: dict[str, FrameSink | None] = {"silent": None, "encode": CallableSink(counted)}
        if find_spec("aiokafka"):
            from astrocyte.pipeline.broker import BrokerProcess
            from astrocyte.pipeline.simulation.publish import KafkaSink

            broker = BrokerProcess(stack.enter_context(tempfile.TemporaryDirectory()), auto_create_topics=False)
            broker.start()
            stack.callback(broker.stop)
            sinks["broker"] = stack.enter_context(KafkaSink(broker.address))
        wall: dict[str, list[float]] = {name: [] for name in sinks}
        core: dict[str, list[float]] = {name: [] for name in sinks}
        events = size_bytes = 0
        for turn in range(4):
            for name, sink in sinks.items():
                counted.size_bytes = 0
                start, start_core = time.perf_counter(), time.process_time()
                if sink is None:
                    timed.run(lambda _: None)
                else:
                    assembler = Assembler(
                        timed.scenario, timed.config, f"bench-{name}-{turn}", next_tick=timed.world.tick
                    )
                    with Emitter(assembler, sink) as emitter:
                        timed.run(emitter.put)
                    sink.flush()
                    events = sum(assembler.sequences.values())
                if turn:  # The first turn creates topics and fills caches.
                    wall[name].append(time.perf_counter() - start)
                    core[name].append(time.process_time() - start_core)
                size_bytes = counted.size_bytes or size_bytes
    median = {name: (sorted(wall[name])[1], sorted(core[name])[1]) for name in sinks}
    for name in list(sinks)[1:]:
        yield {
            "bench": "simulator_streaming" if name == "encode" else "simulator_streaming_to_broker",
            "cells": size,
            "ticks": ticks,
            "events": events,
            "seconds": median[name][0],
            "events_per_s": events / median[name][0],
            "bytes_per_event": size_bytes / max(events, 1),
            "slowdown": median[name][0] / median["silent"][0] - 1.0,
            "core_slowdown": median[name][1] / median["silent"][1] - 1.0,
        }


def _scenario(
    name: str,
    settings: dict[str, Any],
    ticks: int,
    metric: str | None,
    *,
    settle: int = 0,
    totals: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Speed of a scenario after ``settle`` ticks; ``totals`` are metrics to be summed over the ticks."""
    timed = _Timed(name, settings, ticks, settle=settle)
    rounds: list[Round] = []
    timed.run(rounds.append)
    figure: dict[str, Any] = {
        "bench": f"simulator_{name}",
        "slots": timed.slots,
        "ticks": ticks,
        "seconds": timed.seconds,
    }
    figure["ticks_per_s"] = ticks / timed.seconds
    if metric is not None:
        figure[metric] = timed.metric(rounds[-1], metric)
        figure[f"{metric}_per_s"] = figure[metric] * ticks / timed.seconds
        figure["per_core_second"] = figure[metric] * ticks / timed.core_seconds
    for total in totals:
        figure[total] = sum(timed.metric(done, total) * (done.end_tick - done.first_tick) for done in rounds)
    return figure


def _large(size: int) -> dict[str, Any]:
    """Peak memory of this process with a large world, including the snapshot for rewinding."""
    timed = _Timed("cells", {"size": size, **SATURATED}, 20)
    timed.run(lambda _: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "bench": "simulator_memory_of_cells",
        "cells": size,
        "seconds": timed.seconds,
        "cell_ticks_per_s": timed.slots * 20 / timed.seconds,
        "peak_bytes": peak,
        "peak_bytes_per_cell": peak / timed.slots,
    }


if __name__ == "__main__":
    for figures in run("--quick" in sys.argv):
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()
