"""``astrocyte simulate``: a scenario into Kafka or into a recorded log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import orjson

from astrocyte.pipeline.console import progress_bar, say
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.simulation.log_sink import LogSink
from astrocyte.pipeline.simulation.publish import Form, KafkaSink
from astrocyte.pipeline.stopping import Stop
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.topics import SIMULATIONS
from astrocyte.simulator.anomalies import planting
from astrocyte.simulator.config import configure
from astrocyte.simulator.emission.emitter import FrameSink
from astrocyte.simulator.run import run_name, simulate
from astrocyte.simulator.scenario import load_scenario

__all__ = [
    "ShuffleSink",
    "SimulationOptions",
    "describe_run",
    "description_of",
    "open_sink",
    "run_simulation",
    "scenario_config",
    "world_settings",
]

_FORMS: Final = ("frames", "json")
_BROKER_TIMEOUT_S: Final = 60.0
"""How long a run waits for a broker to answer for the first time; one that was there is waited for without limit."""
_SETTLED_S: Final = 10.0
_SPREAD_S: Final = 2.0
"""Anomalies at drawn times lie anywhere in the windows of a second that most rules read."""
_WORLDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cells": {"size": 2048},
    "ecology": {"size": 1000},
    "kernels": {"size": 256},
}
"""Sizes for one laptop."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Options of the command line."""

    scenario: str
    ticks: int | None = None
    seconds: float | None = None
    seed: int = 0
    size: int | None = None
    rate: float | None = None
    realtime: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    form: str = "frames"
    partitions: int | None = None
    checkpoint: Path | None = None
    checkpoint_ticks: int | None = None
    resume: bool = False
    overwrite: bool = False
    run: str | None = None
    broker: str | None = None


class ShuffleSink:
    """Sends the rows of every frame in random order and in random pieces; the last piece carries the watermark.

    No row may arrive further out of order without being late, so no result may change.
    """

    def __init__(self, sink: FrameSink, seed: int) -> None:
        self._sink = sink
        self._random = np.random.default_rng(seed)

    def write(self, frame: Frame) -> None:
        """Pass the frame on in pieces."""
        order = self._random.permutation(frame.num_rows)
        cuts = np.sort(self._random.integers(0, frame.num_rows + 1, 3))
        *pieces, last = np.split(order, cuts)
        for rows in pieces:
            if len(rows):
                self._sink.write(replaced(frame.take(rows), watermark_us=None, end=False))
        self._sink.write(frame.take(last))

    def flush(self) -> None:
        """Flush the wrapped sink."""
        self._sink.flush()

    def close(self) -> None:
        """Close the wrapped sink."""
        self._sink.close()


def scenario_config(scenario: str, values: Mapping[str, Any], size: int | None) -> Any:
    """Validated config of a scenario; ``size`` sets the field that the scenario names as its size."""
    world = load_scenario(scenario)
    if size is not None:
        if world.size_setting is None:
            raise InvalidSettings(f"scenario {scenario!r} has no size; leave --size out")
        values = {**values, world.size_setting: size}
    return configure(world.Config, values, scenario=scenario)


def world_settings(scenario: str, seconds: float, *, planted: bool = True, seed: int | None = None) -> dict[str, Any]:
    """Settings of a scenario for a run of ``seconds`` on one laptop: its size, and anomalies of every kind in turn.

    Without ``planted`` nothing is: the quiet world of the same size. Anomalies begin once the founders have settled,
    after a fifth of a short run and `_SETTLED_S` of a long one. With ``seed`` their order is drawn, and their times
    within `_SPREAD_S`.
    """
    world = load_scenario(scenario)
    settings = dict(_WORLDS.get(scenario, {}))
    if not planted:
        return settings | dict(world.quiet)
    kinds = world.Config.plant_kinds
    if kinds:
        tick_us = configure(world.Config, settings, scenario=scenario).tick_us
        first_s = min(seconds / 5, _SETTLED_S)
        settings["plants"] = planting(
            kinds, round(first_s * 1e6 / tick_us), round(seconds * 1e6 / tick_us),
            seed=seed, spread=round(_SPREAD_S * 1e6 / tick_us),
        )  # fmt: skip
    return settings


def describe_run(
    broker: str, description: dict[str, Any], *, replication: int = 1, timeout_s: float = _BROKER_TIMEOUT_S
) -> None:
    """Publish the description of a run, before its first event; waits for a broker that does not answer yet.

    Raises BrokerUnavailable after ``timeout_s`` seconds.
    """
    from astrocyte.pipeline.kafka.client import BrokerUnavailable, ensure_topics, producer_client

    async def send() -> None:
        reported = False
        deadline_s = time.monotonic() + timeout_s
        hint = f"for {timeout_s:g} s. --out FILE simulates into a log without a broker"
        while True:
            try:
                await ensure_topics(broker, {SIMULATIONS: 1}, replication=replication)
                async with producer_client(broker) as producer:
                    await producer.send_and_wait(
                        SIMULATIONS, orjson.dumps(description), key=description["simulation_id"].encode(), partition=0
                    )
            except BrokerUnavailable as error:
                if time.monotonic() >= deadline_s:
                    raise BrokerUnavailable(f"{error}; none answered {hint}") from None
                if not reported:
                    say(f"astrocyte: {error}; waiting for it {hint}")
                    reported = True
                await asyncio.sleep(0.5)
            else:
                return

    asyncio.run(send())


def description_of(world: Any, config: Any, seed: int, experiment: str, run: str | None = None) -> dict[str, Any]:
    """Description of a run, which the stores keep; its configuration holds from the start."""
    return {
        "simulation_id": run or run_name(world, config, seed),
        "experiment_id": experiment,
        "parameters": {"scenario": world.name, "seed": seed},
        "config": config.model_dump(mode="json"),
    }


def open_sink(options: SimulationOptions, settings: Settings) -> LogSink | KafkaSink:
    """Where the frames go: a log file with ``out``, else Kafka."""
    if options.form not in _FORMS:
        raise InvalidSettings(f"--format: expected frames or json, got {options.form!r}")
    form: Form = cast("Form", options.form)
    if options.out is not None:
        return LogSink(
            options.out, partitions=settings.partitions, form=form, overwrite=options.overwrite,
            source=f"astrocyte simulate {options.scenario} --seed {options.seed}",
        )  # fmt: skip
    return KafkaSink(settings.broker, partitions=settings.partitions, replication=settings.replication, form=form)


def run_simulation(options: SimulationOptions, *, quiet: bool = False, stop: Stop | None = None) -> dict[str, Any]:
    """Run a simulation until its end or a stop; returns its summary as JSON values.

    With the experiment to which stores count it, which is None for a run into a log.
    """
    from astrocyte.pipeline.simulation.controls import KafkaControls

    settings = load_settings(broker=options.broker, partitions=options.partitions)
    config = scenario_config(options.scenario, options.settings, options.size)
    sink = open_sink(options, settings)
    world = load_scenario(options.scenario)
    controls = None
    if options.out is None:
        description = description_of(world, config, options.seed, settings.experiment, options.run)
        describe_run(settings.broker, description, replication=settings.replication)
        if world.controls:
            controls = KafkaControls(settings.broker, world.controls, run=description["simulation_id"])
    stop = Stop() if stop is None else stop
    stop.guard(sink.rescue, finishes=True)
    try:
        with progress_bar(f"simulating {options.scenario}") as move:
            summary = simulate(
                world,
                config,
                seed=options.seed,
                ticks=options.ticks,
                seconds=options.seconds if options.ticks is None else None,
                sink=sink,
                run=options.run,
                stop=stop.is_set,
                # A stop ends pacing too: what has been computed is written without waiting for its time.
                sleep=lambda seconds: cast("None", stop.wait(seconds)),
                rate=options.rate,
                speed=1.0 if options.realtime else None,
                control_source=controls,
                on_refused=lambda control: say(f"astrocyte: control {control.name!r} was refused: {control.error}"),
                checkpoint=options.checkpoint,
                checkpoint_ticks=options.checkpoint_ticks,
                resume=options.resume,
                progress=None if quiet else lambda done: move(done.tick, done.end_tick),
            )
    finally:
        if controls is not None and not stop.is_set():  # closing waits for the broker, and a stop has no time for it
            controls.close()
        sink.close()
    for note in summary.notes:
        say(f"astrocyte: {note}")
    return summary.as_dict() | {"experiment": settings.experiment if options.out is None else None}
