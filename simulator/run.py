"""`simulate`: a scenario run from a seed into a sink, with checkpoints, controls and pacing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.config import ScenarioConfig, configure, fingerprint
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.emission.emitter import Emitter, FrameSink, Pace
from astrocyte.simulator.runtime.checkpoint import Checkpoint, backend, load_checkpoint, save_checkpoint
from astrocyte.simulator.runtime.controls import Control, ControlSource, Plan
from astrocyte.simulator.runtime.world import World
from astrocyte.simulator.scenario import Scenario, load_scenario

__all__ = ["Progress", "RunSummary", "run_name", "simulate"]

PREPARE_ROUNDS = 128
"""Length of runs for which the program for bursts is compiled beforehand: a shorter run would end before it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come; passed to ``progress`` after each chunk."""

    run: str
    tick: int
    end_tick: int | None
    simulated_s: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Summary of a finished run."""

    run: str
    scenario: str
    seed: int
    first_tick: int
    """Tick at which this call started: above 0 when it resumed from a checkpoint."""
    end_tick: int
    simulated_s: float
    wall_s: float
    events: Mapping[str, int]
    """Rows by stream since tick 0."""
    frames: int
    reruns: int
    """How often a chunk was run again because a buffer was too small; no rows were lost."""
    controls: tuple[Control, ...]
    """All control messages with the tick from which they applied; scheduling them repeats the run. Refused ones have
    an error."""
    metrics: Mapping[str, float]
    """Last tick's metrics, summed over islands; vectors are left out, and sums, which are in the scenario's own fixed
    point."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self)


def run_name(scenario: Scenario, config: ScenarioConfig, seed: int) -> str:
    """Name of the run of that scenario, config and seed; the same inputs give the same event ids."""
    return f"{scenario.name}-{seed}-{fingerprint(config)}"


def simulate(
    scenario: str | Scenario,
    config: ScenarioConfig | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    ticks: int | None = None,
    seconds: float | None = None,
    sink: FrameSink,
    run: str | None = None,
    stop: Callable[[], bool] | None = None,
    rate: float | None = None,
    speed: float | None = None,
    controls: Sequence[Control] = (),
    control_source: ControlSource | None = None,
    on_refused: Callable[[Control], None] | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_ticks: int | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    chunk_ticks: int = 10,
    frame_ticks: int = 10,
    frame_rows: int = 65_536,
    queue_rounds: int = 2,
    group_islands: int | None = None,
    devices: Sequence[Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunSummary:
    """Run ``scenario`` up to tick ``ticks`` (or ``seconds`` of simulated time) and write its frames to ``sink``.

    The content of frames depends on scenario, config and seed only; ``frame_ticks`` and ``frame_rows`` decide where
    they are divided. It does not depend on ``chunk_ticks``, on the speed of the sink, on ``rate`` (events per second)
    or ``speed`` (simulated seconds per second), nor on how islands are assigned to ``devices``.

    ``stop`` is called after each chunk; when it returns true, the run ends early. ``checkpoint`` names a file written
    every ``checkpoint_ticks`` ticks (rounded up to ``frame_ticks``) and at the end, each time after the sink confirmed
    all earlier frames; with ``resume`` the run continues from that file if it exists. ``controls`` apply from their
    ticks, ``control_source`` is called before each chunk; refused messages go to ``on_refused`` and the run continues.
    The sink is flushed at the end and stays open.

    Raises InvalidSettings, CheckpointMismatch (before anything is written) and EmissionFailed.
    """
    world_of = load_scenario(scenario)
    settings = _settings(world_of, config)
    end = _end_tick(settings, ticks, seconds, stop)
    _check_options(
        seed=seed, rate=rate, speed=speed, chunk_ticks=chunk_ticks, frame_ticks=frame_ticks, frame_rows=frame_rows,
        checkpoint_ticks=checkpoint_ticks, queue_rounds=queue_rounds,
    )  # fmt: skip
    path = Path(checkpoint) if checkpoint is not None else None
    world = World(
        world_of, settings, seed, chunk_ticks=chunk_ticks, devices=devices, group_islands=group_islands,
        prepare=end >= PREPARE_ROUNDS * chunk_ticks,
    )  # fmt: skip
    name = run or run_name(world_of, settings, seed)
    notes: list[str] = []
    before = _resumed(path, world, seed, notes) if resume and path is not None and path.exists() else None
    name = before.run if before else name
    scheduled = [control for control in (before.controls if before else ()) if control.error is None]
    plan = Plan(world_of, settings, scheduled=(*scheduled, *controls), source=control_source, on_refused=on_refused)
    assembler = Assembler(
        world_of,
        settings,
        name,
        frame_ticks=frame_ticks,
        frame_rows=frame_rows,
        next_tick=world.tick,
        sequences=before.sequences if before else None,
        memory=before.memory if before else None,
        controls=plan.controls,
    )
    pace = Pace(clock, sleep, rate=rate, speed=speed) if rate is not None or speed is not None else None
    began, first_tick = clock(), world.tick

    def saver(tick: int, states: list[Any]) -> Callable[[Assembler], None]:
        def save(done: Assembler) -> None:
            assert path is not None
            assert done.next_tick == tick
            known = tuple(control for control in plan.controls if control.tick < tick)
            config_values = settings.model_dump(mode="json")
            whole = Checkpoint(
                world_of.name, config_values, seed, name, tick, done.sequences, done.memory, known, "", states
            )
            save_checkpoint(path, whole)

        return save

    with Emitter(assembler, sink, pace=pace, queue_rounds=queue_rounds) as emitter:
        stopped = False
        for target in _targets(world.tick, end, path is not None, checkpoint_ticks, frame_ticks):
            for done in world.run(target, plan.params, plan.stop):
                emitter.put(done)
                if progress is not None:
                    seconds_done = done.end_tick * settings.tick_us / 1e6
                    progress(Progress(name, done.end_tick, end if ticks or seconds else None, seconds_done))
                if stop is not None and stop():
                    stopped = True
                    break
            if stopped:
                break
            if path is not None and target % frame_ticks == 0 and target > first_tick:
                emitter.put(saver(target, world.host_states()))
    return RunSummary(
        run=name,
        scenario=world_of.name,
        seed=seed,
        first_tick=first_tick,
        end_tick=assembler.next_tick,
        simulated_s=assembler.next_tick * settings.tick_us / 1e6,
        wall_s=clock() - began,
        events=dict(assembler.sequences),
        frames=emitter.frames,
        reruns=world.reruns,
        controls=tuple(plan.controls),
        metrics=_last_metrics(world_of, assembler),
        notes=tuple(notes),
    )


def _settings(scenario: Scenario, config: ScenarioConfig | Mapping[str, Any] | None) -> ScenarioConfig:
    if isinstance(config, scenario.Config):
        return config
    if isinstance(config, ScenarioConfig):
        raise InvalidSettings(
            f"scenario {scenario.name!r}: expected a {scenario.Config.__name__}, got a {type(config).__name__}"
        )
    return configure(scenario.Config, config, scenario=scenario.name)


def _end_tick(config: ScenarioConfig, ticks: int | None, seconds: float | None, stop: Callable[[], bool] | None) -> int:
    if ticks is not None and seconds is not None:
        raise InvalidSettings(f"both ticks ({ticks}) and seconds ({seconds}) were given; give one of them")
    if ticks is None and seconds is None and stop is None:
        raise InvalidSettings("neither ticks, seconds nor a stop function was given; the run would never end")
    for name, value in (("ticks", ticks), ("seconds", seconds)):
        if value is not None and not 0 < value < 2**53:
            raise InvalidSettings(f"{name}: expected a number above 0 and below 2**53, got {value!r}")
    if seconds is not None:
        return math.ceil(seconds * 1e6 / config.tick_us)
    return 2**53 if ticks is None else ticks


def _check_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and (value < 0 or (value == 0 and name != "seed")):
            expected = "0 or a number above it" if name == "seed" else "a number above 0"
            raise InvalidSettings(f"{name}: expected {expected}, got {value!r}")
    if options["seed"] >= 2**63:
        raise InvalidSettings(f"seed: expected a number from 0 to {2**63 - 1}, got {options['seed']}")


def _resumed(path: Path, world: World, seed: int, notes: list[str]) -> Checkpoint:
    found = load_checkpoint(path, world.scenario, world.config, seed, world.host_states())
    if found.backend != backend():
        notes.append(
            f"the checkpoint was made by {found.backend}, this is {backend()}: "
            "events after it may differ from those of an uninterrupted run"
        )
    world.restore(found.tick, found.states)
    return found


def _targets(tick: int, end: int, saving: bool, every: int | None, frame_ticks: int) -> list[int] | range:
    """Ticks up to which the world is run in one go; a checkpoint is made at those on a frame boundary."""
    if not saving:
        return [end]
    last = end // frame_ticks * frame_ticks
    step = -(-every // frame_ticks) * frame_ticks if every else max(last, frame_ticks)
    first = (tick // step + 1) * step
    inner: list[int] | range = range(first, last, step)
    if len(inner) > 1_000_000:  # a run without an end
        return inner
    return [target for target in dict.fromkeys((*inner, last, end)) if target > tick]


def _last_metrics(scenario: Scenario, assembler: Assembler) -> dict[str, float]:
    if assembler.last is None:
        return {}
    plain = (*scenario.int_metrics, *scenario.float_metrics)
    return {name: float(np.sum(assembler.last.metrics[name][-1])) for name in plain}
