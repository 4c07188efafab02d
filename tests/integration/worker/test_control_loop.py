"""Controllers and simulations in a closed loop: commands are applied, and the recorded ones repeat the run."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from astrocyte.agents.controllers.difficulty import DifficultyController
from astrocyte.agents.controllers.genetic import GeneticController
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
    """The population's accuracy as the results of windows, and their series."""

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self.accuracy: list[float] = []

    def read(self, frame: Frame) -> Frame:
        if frame.stream != "population_metrics":
            return frame
        columns = {"timestamp": frame.timestamps(), "key": [frame.run] * frame.num_rows}
        accuracy = np.nan_to_num(frame.column("avg_accuracy").to_numpy(zero_copy_only=False))
        self.accuracy += accuracy.tolist()
        return Frame.from_columns("population_second", frame.run, {**columns, "accuracy": accuracy})


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


def test_difficulty_holds_the_accuracy_of_the_population_that_it_makes() -> None:
    # Results come every tenth of a second, so the loop may be ten times as fast as with seconds.
    loop = AccuracyLoop(DifficultyController(response_s=2.0, delay_s=0.2))
    config = {"size": 256, "metrics_every": 10, "difficulty": 3.0}
    summary = closed("cells", config, loop, 3_000)
    factors = [control.message["difficulty"] for control in summary.controls]
    assert factors[-1] < 0.5
    assert np.mean(loop.accuracy[:10]) < 0.3
    late = np.array(loop.accuracy[-200:]).reshape(4, 50).mean(axis=1)
    assert (np.abs(late - 0.6) < 0.05).all(), late
