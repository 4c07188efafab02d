"""Controllers and simulations in a closed loop: commands are applied, and the recorded ones repeat the run."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from astrocyte.agents.controllers.controllers import DifficultyController, GeneticController
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.simulator.run import RunSummary


class Loop(MemorySink):
    """Keeps the frames, and passes the commands that a controller makes of them to the run."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        self._controller, self._state = controller, controller.initial()
        self._wishes: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def write(self, frame: Frame) -> None:
        super().write(frame)
        if frame.num_rows:
            self._state, messages = self._controller.step(self._state, self.read(frame))
            for message in messages:
                self._wishes.put((message.control, message.values))

    def read(self, frame: Frame) -> Frame:
        return frame

    def commands(self) -> Iterator[tuple[str, Any]]:
        while not self._wishes.empty():
            yield self._wishes.get()


class AccuracyLoop(Loop):
    """The population's accuracy as the result of a window."""

    def read(self, frame: Frame) -> Frame:
        if frame.stream != "population_metrics":
            return frame
        columns = {"timestamp": frame.timestamps(), "key": [frame.run] * frame.num_rows}
        accuracy = np.nan_to_num(frame.column("avg_accuracy").to_numpy(zero_copy_only=False))
        return Frame.from_columns("population_stats", frame.run, {**columns, "mean_accuracy": accuracy})


def closed(scenario: str, config: dict[str, Any], loop: Loop, ticks: int) -> RunSummary:
    summary = simulate(scenario, config, seed=2, ticks=ticks, sink=loop, control_source=loop.commands, queue_rounds=1)
    again = MemorySink()
    simulate(scenario, config, seed=2, ticks=ticks, sink=again, controls=summary.controls)
    assert [encode_frame(frame) for frame in loop.frames] == [encode_frame(frame) for frame in again.frames]
    assert [control.error for control in summary.controls if control.error] == []
    return summary


def test_the_genetic_controller_changes_the_simulation_that_it_reads() -> None:
    summary = closed("dna", {"size": 24, "generation_ticks": 4}, Loop(GeneticController(trial=5)), 200)
    actions = {control.message["action"] for control in summary.controls}
    assert actions >= {"elite", "crossover", "mutation_rate"}


def test_difficulty_follows_the_accuracy_of_the_population_that_it_makes() -> None:
    loop = AccuracyLoop(DifficultyController(target=0.5, deadband=0.0, gain=0.5))
    summary = closed("cells", {"size": 1024, "routine_share": 0.2}, loop, 400)
    factors = [control.message["difficulty"] for control in summary.controls]
    assert len(factors) >= 2
    # Each message moves it by exp(gain (accuracy - target)).
    steps = np.diff(np.log(factors))
    assert (np.abs(steps) <= 0.25).all()
    assert np.any(steps != 0)
