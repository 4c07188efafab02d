"""The simulator of a demo on a thread of its own: it compiles the world while the workers start."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from astrocyte.pipeline.demo.options import DemoOptions
from astrocyte.pipeline.demo.world import WorldSink
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.simulation.compilations import is_compiled, note_compiled
from astrocyte.pipeline.simulation.run import ShuffleSink, describe_run, description_of
from astrocyte.schemas.frames import Frame

__all__ = ["Simulation"]


class Simulation(threading.Thread):
    """Simulates in real time into Kafka, from `begin` on; before that it only compiles, which needs no broker."""

    def __init__(self, options: DemoOptions, config: Any) -> None:
        super().__init__(name="simulation", daemon=True)
        self._options, self._config = options, config
        self._settings: Settings | None = None
        self.emitted = 0
        self.simulated_s = 0.0
        self.run_name = ""
        self.preparing: tuple[str, ...] = ("loading the world",)
        """What is done before the first event."""
        self.world: WorldSink | None = None
        self.failure: BaseException | None = None
        self._begin = threading.Event()
        self._stop_early = threading.Event()

    def run(self) -> None:
        """Compile, wait for `begin`, simulate."""
        try:
            self._simulate()
        except BaseException as error:  # noqa: BLE001  raised again by the thread that watches
            self.failure = error

    @property
    def world_now(self) -> Mapping[str, float]:
        """Newest value of each quantity that is shown of the world."""
        return self.world.now if self.world is not None else {}

    @property
    def sent(self) -> int:
        """Events so far."""
        return self.world.events if self.world is not None else 0

    @property
    def first_s(self) -> float | None:
        """When the first event was sent, by the monotonic clock."""
        return self.world.first_s if self.world is not None else None

    def begin(self, settings: Settings) -> None:
        """Send events from now on, or as soon as the world is compiled."""
        self._settings = settings
        self._begin.set()

    def stop(self) -> None:
        """End the run after the current chunk."""
        self._stop_early.set()
        self._begin.set()

    def _simulate(self) -> None:
        from astrocyte.pipeline.simulation.controls import KafkaControls
        from astrocyte.pipeline.simulation.publish import KafkaSink
        from astrocyte.simulator.run import simulate
        from astrocyte.simulator.scenario import load_scenario

        options, config = self._options, self._config
        world = load_scenario(options.scenario)
        static = world.static(config)
        if not is_compiled(world.name, static):
            self.preparing = ("compiling the world, 10 to 20 s the first time on this machine",)
        simulate(world, config, seed=options.seed, ticks=1, sink=_Nowhere(), stop=self._stop_early.is_set)
        note_compiled(world.name, static)
        self.preparing = ()
        self._begin.wait()
        settings = self._settings
        if self._stop_early.is_set() or settings is None:
            return
        description = description_of(world, config, options.seed, settings.experiment)
        describe_run(settings.broker, description)
        kafka = KafkaSink(settings.broker, partitions=settings.partitions)
        self.world = sink = WorldSink(
            ShuffleSink(kafka, options.seed) if options.shuffle else kafka, options.scenario, clock=time.monotonic
        )
        name = description["simulation_id"]
        controls = KafkaControls(settings.broker, world.controls, run=name) if world.controls else None

        def progress(done: Any) -> None:
            self.simulated_s = done.simulated_s

        try:
            summary = simulate(
                world,
                config,
                seed=options.seed,
                seconds=options.seconds,
                speed=1.0,
                sink=sink,
                control_source=controls,
                progress=progress,
                stop=self._stop_early.is_set,
            )
        finally:
            if controls is not None:
                controls.close()
            sink.close()
        self.run_name = summary.run
        self.emitted = sum(summary.events.values())


class _Nowhere:
    """A sink that keeps nothing: what is run for its compilation only."""

    def write(self, frame: Frame) -> None:
        """Drop the frame."""

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""
