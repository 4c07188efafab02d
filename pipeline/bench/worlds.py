"""Long runs of every world with all of its planted anomalies at random ticks, and what must not happen in them.

Each run is a process of its own. All frames are encoded and checked, every thousand ticks the state is too. By itself:

    python -m astrocyte.pipeline.bench.worlds cells 16384 --ticks 20000 --seconds 600
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import jax
import numpy as np

from astrocyte.pipeline.bench.processes import resident_mb
from astrocyte.pipeline.roles.parent import killed_with_parent
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.simulator.config import configure
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import Scenario, load_scenario
from astrocyte.simulator.testing import FrameOrder

__all__ = ["long_run", "run"]

SIZES: Final = (1_024, 16_384, 131_072, 1_048_576)
TICKS: Final = 20_000
SECONDS: Final = 600.0
CHECK_TICKS: Final = 1_000
WARM_ROUNDS: Final = 20
"""Rounds after which the run itself compiles nothing any more."""
_LARGEST: Final = {"kernels": 4_096}
_POPULATION: Final = 1_024


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """One figure for each world and size."""
    for name in ("axons", "cells", "ecology", "kernels", "dna"):
        sizes = sorted({min(size, _LARGEST.get(name, size)) for size in SIZES})
        for size in sizes[:1] if quick else sizes:
            yield _in_process(name, size, 1_000 if quick else TICKS, SECONDS)


def _in_process(name: str, size: int, ticks: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, name, str(size), "--ticks", str(ticks), "--seconds", str(seconds)]
    done = subprocess.run(killed_with_parent(command), check=True, stdout=subprocess.PIPE, text=True)
    figure: dict[str, Any] = json.loads(done.stdout)
    return figure


def long_run(
    scenario: str | Scenario, size: int | None, *, ticks: int, seconds: float = SECONDS, seed: int = 1
) -> dict[str, Any]:
    """Run a world up to ``ticks``, or for ``seconds``; returns what happened.

    ``late_compilations`` are those that the run waited for after its first rounds, ``pause_s`` is its longest wait for
    a round after them, ``wrong`` lists violations, ``quarters_mb`` is the median resident memory of each quarter of the
    ticks, and ``growth_mb`` that of the last one less that of the second.
    """
    world_of = load_scenario(scenario)
    draw = np.random.default_rng([seed, size or 0])
    settings = {**_settings(world_of, size), "plants": _plants(world_of, ticks, draw)}
    config = configure(world_of.Config, settings, scenario=world_of.name)
    compiled: list[str] = []

    def note(event: str, _duration_s: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(note)
    began = time.perf_counter()
    world = World(world_of, config, seed, prepare=True)
    assembler, order, params = Assembler(world_of, config, "long"), FrameOrder(), world_of.params(config)
    wrong: list[str] = []
    memory: list[float] = []
    pause = 0.0
    early = rounds = encoded = 0

    def take(frames: Iterator[Frame]) -> None:
        nonlocal encoded
        for frame in frames:
            encoded += len(encode_frame(frame))
            wrong.extend(f"tick {world.tick}: {text}" for text in order.add(frame))

    take(assembler.begin())
    while world.tick < ticks and time.perf_counter() - began < seconds:
        waited = time.perf_counter()
        for done in world.run(min(world.tick + CHECK_TICKS, ticks), lambda _: params):
            rounds += 1
            if rounds <= WARM_ROUNDS:
                if rounds == WARM_ROUNDS:
                    world.wait()  # for the spill program; a run waits only for one that it needs
                early = compiled.count(threading.current_thread().name)
            else:
                pause = max(pause, time.perf_counter() - waited)
            take(assembler.add(done))
            waited = time.perf_counter()
        wrong += _violations(world_of, config, world, assembler)
        memory.append(resident_mb())
    take(assembler.finish())
    wrong += order.end()
    quarters = [statistics.median(part) for part in np.array_split(np.array(memory), 4) if len(part)]
    return {
        "bench": "simulator_long_run",
        "scenario": world_of.name,
        "size": size,
        "ticks": world.tick,
        "seconds": time.perf_counter() - began,
        "events": sum(assembler.sequences.values()),
        "encoded_mb": encoded / 1e6,
        "plants": len(config.plants),
        "reruns": world.reruns,
        "compilations": len(compiled),
        "late_compilations": compiled.count(threading.current_thread().name) - early,
        "pause_s": pause,
        "resident_mb": memory[-1],
        "quarters_mb": quarters,
        "growth_mb": quarters[-1] - quarters[min(1, len(quarters) - 1)],
        "wrong": wrong[:10],
    }


def _settings(scenario: Scenario, size: int | None) -> dict[str, Any]:
    if scenario.size_setting is None or size is None:
        return {}
    if scenario.name == "dna" and size > _POPULATION:
        return {"size": _POPULATION, "populations": size // _POPULATION, "watched": 0.1}
    return {scenario.size_setting: size}


def _plants(scenario: Scenario, ticks: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    """Eight of each kind at random ticks; no strength of 1, after which nobody might be left."""
    return [
        {
            "kind": kind,
            "at_tick": int(draw.integers(ticks)),
            "ticks": int(draw.choice((1, 5, 50, 200))),
            "strength": float(draw.choice((0.3, 0.6, 0.9))),
        }
        for kind in scenario.Config.plant_kinds
        for _ in range(8)
    ]


def _violations(scenario: Scenario, config: Any, world: World, assembler: Assembler) -> Iterator[str]:
    interval = assembler.last
    if interval is None or interval.end_tick != world.tick:
        yield f"tick {world.tick}: the frames end at tick {interval.end_tick if interval else 0}"
        return
    for island, state in enumerate(world.host_states()):
        for text in scenario.violations(config, state, interval):
            yield f"tick {world.tick}, island {island}: {text}"


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario")
    parser.add_argument("size", type=int)
    parser.add_argument("--ticks", type=int, default=TICKS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    figure = long_run(options.scenario, options.size, ticks=options.ticks, seconds=options.seconds, seed=options.seed)
    sys.stdout.write(json.dumps(figure) + "\n")


if __name__ == "__main__":
    _main()
