"""Controllers in a closed loop with the worlds of a batch, as the role ``control`` is with a simulation.

The controllers are those of the product, and are given frames of the form that they read. What a batch's world does not
emit is made from what is observed of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.controllers.base import Controller
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.times import time_us
from astrocyte.simulator.batch import Command

__all__ = ["Governor", "SteeredAgents", "SteeredCells"]

_RUN: Final = "world"
"""Every governor has one world, so all may have the same name."""


@dataclass(slots=True)
class Governor:
    """A controller of one world, and the commands that it has given: those that wait for their time, and all."""

    controller: Controller
    control: str
    delay_us: int
    """From the time of a command until it applies."""
    state: Any = None
    waiting: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    given: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    """Time at which each command applied, and its values."""

    def read(self, frame: Frame) -> None:
        """Let the controller read a frame."""
        if self.state is None:
            self.state = self.controller.initial()
        self.state, commands = self.controller.step(self.state, frame)
        self.waiting += [(time_us(command.timestamp) + self.delay_us, command.values) for command in commands]

    def due(self, now_us: int) -> Iterator[Mapping[str, Any]]:
        """Values of the commands that apply now, in their order."""
        while self.waiting and self.waiting[0][0] <= now_us:
            _, values = self.waiting.pop(0)
            self.given.append((now_us, values))
            yield values


class SteeredCells:
    """Difficulty controllers over a batch of cells: results of windows over the accuracy of all attempts.

    ``windows`` are lengths in calls of the batch, each `astrocyte.simulator.batch.INTERVALS` of its intervals. A world
    without a governor is left alone.
    """

    def __init__(self, governors: Sequence[Governor | None], windows: Sequence[int], *, tick_us: int) -> None:
        self._governors, self._windows, self._tick_us = governors, windows, tick_us
        self._seen: list[list[float]] = [[] for _ in governors]
        self._began_us = [0] * len(governors)

    def __call__(self, first: int, tick: int, seen: Mapping[str, NDArray[Any]]) -> Iterator[Command]:
        """See `astrocyte.simulator.batch.Steer`."""
        now_us = tick * self._tick_us
        for world, accuracy in enumerate(seen["accuracy"].mean(axis=1).tolist(), first):
            governor = self._governors[world]
            if governor is None:
                continue
            values = self._seen[world]
            values.append(accuracy)
            if len(values) == self._windows[world]:
                governor.read(_window(governor.controller.stream, self._began_us[world], now_us, values))
                values.clear()
                self._began_us[world] = now_us
            for command in governor.due(now_us):
                yield world, governor.control, command


class SteeredAgents:
    """Genetic controllers over a batch of dna, observed in every tick by `dna_observed`: scores of its agents."""

    def __init__(self, governors: Sequence[Governor | None], *, tick_us: int) -> None:
        self._governors, self._tick_us = governors, tick_us
        self._last: dict[int, dict[str, NDArray[Any]]] = {}

    def __call__(self, first: int, tick: int, seen: Mapping[str, NDArray[Any]]) -> Iterator[Command]:
        """See `astrocyte.simulator.batch.Steer`."""
        intervals = seen["karma"].shape[1]
        for place in range(len(seen["karma"])):
            world = first + place
            governor = self._governors[world]
            if governor is None:
                continue
            for interval in range(intervals):
                now = {name: values[place, interval] for name, values in seen.items()}
                last = self._last.get(world)
                self._last[world] = now
                if last is not None and last["due"].any():
                    time_us = (tick - intervals + interval) * self._tick_us
                    governor.read(_scores(governor.controller.stream, time_us, last, now))
            for command in governor.due(tick * self._tick_us):
                yield world, governor.control, command


def _window(stream: str, start_us: int, end_us: int, accuracy: Sequence[float]) -> Frame:
    columns = {
        "timestamp": np.array([end_us]), "key": [_RUN], "simulation_id": [_RUN], "window_start": np.array([start_us]),
        "window_end": np.array([end_us]), "accuracy": np.array([np.mean(accuracy)]),
    }  # fmt: skip
    return Frame.from_columns(stream, _RUN, columns)


def _scores(stream: str, time_us: int, last: Mapping[str, NDArray[Any]], now: Mapping[str, NDArray[Any]]) -> Frame:
    """Scores of the snapshots that waited for one after the tick before; a first score has no difference."""
    (agents,) = np.nonzero(last["due"])
    karma = now["karma"][agents].astype(np.float64)
    names = [f"agent-{agent:05d}" for agent in agents.tolist()]
    columns = {
        "timestamp": np.full(len(agents), time_us), "key": names, "agent_id": names,
        "snapshot_id": last["snapshot"][agents].astype(np.int64) << 25 | agents, "karma_score": karma,
        "score_delta": np.where(last["scored"][agents], now["karma"][agents] - last["karma"][agents], np.nan),
    }  # fmt: skip
    return Frame.from_columns(stream, _RUN, columns)
