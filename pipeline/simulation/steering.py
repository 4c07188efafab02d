"""A simulation steered by controllers in the same process, as the role ``control`` steers one through Kafka.

Frames pass on to a sink. The windows that controllers read are computed from them; a command applies from the first
chunk of ticks that begins `DELAY_US` of simulated time or more after the event or result that caused it, so that it
does not depend on how fast frames are written.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from astrocyte.agents.controllers.base import CONTROLLERS, Controller, stepped
from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.rules.graph.links import needed_for
from astrocyte.agents.rules.model import RuleSet
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import NEVER_US, time_us
from astrocyte.schemas.topics import metrics_topic
from astrocyte.simulator.config import ScenarioConfig
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.emission.emitter import FrameSink
from astrocyte.simulator.run import Progress
from astrocyte.simulator.scenario import Scenario

__all__ = ["Steering"]

DELAY_US: Final = 1_000_000
_DELAY_TICKS: Final = 20
"""The delay is at least so many ticks: frames of ten ticks, and the chunk that is computed meanwhile."""
_WAIT_S: Final = 60.0


class Steering:
    """Sink, control source and progress of one `simulate`.

    ::

        steering = Steering(sink, world, config, ruleset)
        simulate(world, config, sink=steering, control_source=steering.commands, progress=steering.progress)

    ``idle`` says which controllers of the scenario's controls do nothing here, and why. The sink stays open.
    """

    def __init__(self, sink: FrameSink, world: Scenario, config: ScenarioConfig, ruleset: RuleSet) -> None:
        self._sink, self._config = sink, config
        streams = Assembler(world, config, "").streams
        known = {window.name for window in ruleset.windows}
        self.idle: list[str] = []
        self._controllers: dict[str, Controller] = {}
        for name, controller in CONTROLLERS.items():
            if name not in world.controls:
                continue
            if _reads_window(controller) and controller.stream not in known:
                self.idle.append(f"controller {name!r}: its window {controller.stream!r} is not in the rule files")
            elif not _reads_window(controller) and controller.stream not in streams:
                self.idle.append(f"controller {name!r}: {world.name} has no stream {controller.stream!r}")
            else:
                self._controllers[name] = controller
        self._states = {name: controller.initial() for name, controller in self._controllers.items()}
        read = {each.stream for each in self._controllers.values() if _reads_window(each)}
        self._engine = Engine(_needed(ruleset, read))
        self._watermarks = dict.fromkeys(self._engine.streams & set(streams), NEVER_US)
        self._read = {*self._watermarks, *(each.stream for each in self._controllers.values())} & set(streams)
        self._seen = dict.fromkeys(self._read, NEVER_US)
        self._delay_us = max(DELAY_US, _DELAY_TICKS * config.tick_us)
        self._written = threading.Condition()
        self._due: list[tuple[int, str, Mapping[str, Any]]] = []
        self._now_us = config.epoch_us
        self._failed = False

    def write(self, frame: Frame) -> None:
        """Pass the frame on, and let the controllers read it."""
        try:
            self._write(frame)
        except BaseException:
            with self._written:
                self._failed = True  # `simulate` raises the error; nobody may wait for more frames
                self._written.notify_all()
            raise

    def _write(self, frame: Frame) -> None:
        self._sink.write(frame)
        if frame.stream not in self._read:
            return
        found = list(self._step(frame))
        if frame.stream in self._watermarks:
            self._engine.push(frame)
            if frame.watermark_us is not None:
                self._watermarks[frame.stream] = frame.watermark_us
                for result in self._engine.advance(min(self._watermarks.values())).frames:
                    found += self._step(result)
        with self._written:
            self._due += found
            if frame.watermark_us is not None:
                self._seen[frame.stream] = frame.watermark_us
            self._written.notify_all()

    def flush(self) -> None:
        """Flush the wrapped sink."""
        self._sink.flush()

    def close(self) -> None:
        """The wrapped sink is closed by its owner."""

    def progress(self, done: Progress) -> None:
        """All ticks before that of ``done`` are on their way to `write`."""
        self._now_us = self._config.tick_time_us(done.tick)

    def commands(self) -> Iterator[tuple[str, Any]]:
        """Commands that are due. Waits until everything that can have caused one has been written."""
        needed_us = self._now_us - self._delay_us
        with self._written:
            if not self._written.wait_for(lambda: self._failed or self._complete(needed_us), _WAIT_S):
                raise AstrocyteError(f"no frame was written for {_WAIT_S:g} s, while controllers waited for it")
            due = [each for each in self._due if each[0] <= self._now_us]
            self._due = [each for each in self._due if each[0] > self._now_us]
        for _, name, values in sorted(due, key=lambda each: each[:2]):
            yield name, values

    def _complete(self, until_us: int) -> bool:
        return all(seen_us >= until_us for seen_us in self._seen.values())

    def _step(self, frame: Frame) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        for name, controller in self._controllers.items():
            if frame.num_rows and controller.stream == frame.stream:
                self._states[name], commands = stepped(name, controller, self._states[name], frame)
                for command in commands:
                    yield time_us(command.timestamp) + self._delay_us, command.control, command.values


def _reads_window(controller: Controller) -> bool:
    return controller.topic == metrics_topic(controller.stream)


def _needed(ruleset: RuleSet, names: Collection[str]) -> RuleSet:
    """The windows of these names, with the windows and rules that they read."""
    return needed_for(ruleset.model_copy(update={"insight": ()}), names)
