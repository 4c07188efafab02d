"""Controllers of a batch's worlds read what those of a simulation read, and their commands come as late as stated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from astrocyte.agents.controllers.base import Controller
from astrocyte.pipeline.studies.steered import Governor, SteeredAgents, SteeredCells
from astrocyte.scenario import MemorySink, configure, load_scenario, simulate
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.batch import BatchWorld, run_batch
from astrocyte.simulator.scenarios.dna.batch import dna_observed


@dataclass
class Recorder(Controller):
    """Keeps what it reads, and commands the number of its rows so far."""

    stream: str = "population_second"
    rows: list[dict[str, Any]] = field(default_factory=list)

    def step(self, state: Any, frame: Frame) -> tuple[Any, list[ControlEvent]]:
        self.rows += frame.rows()
        return state, [self.command("difficulty", frame, {"difficulty": float(len(self.rows))})]


def test_windows_are_means_of_their_calls_and_commands_wait_for_their_delay():
    governors = [Governor(Recorder(), "difficulty", 1_500_000), None, Governor(Recorder(), "difficulty", 0)]
    loop = SteeredCells(governors, [2, 1, 3], tick_us=10_000)
    given = []
    for call in range(1, 7):
        accuracy = np.full((3, 10), 0.1 * call)
        given += [
            (call, world, values["difficulty"]) for world, _, values in loop(0, 100 * call, {"accuracy": accuracy})
        ]
    rows = governors[0].controller.rows
    assert [row["accuracy"] for row in rows] == pytest.approx([0.15, 0.35, 0.55])
    assert [(row["window_start"], row["window_end"]) for row in rows] == [
        (0, 2_000_000), (2_000_000, 4_000_000), (4_000_000, 6_000_000),
    ]  # fmt: skip
    # A window that ends at 2 s, and 1.5 s of delay: from 4 s on, the first call after that.
    assert [each for each in given if each[1] == 0] == [(4, 0, 1.0), (6, 0, 2.0)]
    assert [each for each in given if each[1] == 2] == [(3, 2, 1.0), (6, 2, 2.0)]


@pytest.mark.time_limit(180, "compiles a world and a program of worlds")
def test_scores_made_of_a_batch_are_those_that_the_simulation_emits():
    settings = {"size": 24, "generation_ticks": 4, "rollback": 0.5, "save": 0.02}
    config = configure(load_scenario("dna").Config, settings)
    kept = MemorySink()
    simulate("dna", settings, seed=5, ticks=60, sink=kept)
    emitted = [row for frame in kept.of("dna.karma_updated") for row in frame.rows()]
    governor = Governor(Recorder("dna.karma_updated"), "ga", 10**12)
    loop = SteeredAgents([governor], tick_us=100_000)
    run_batch("dna", [BatchWorld(config, 5)], ticks=70, every=1, observe=dna_observed, steer=loop)
    made = [row for row in governor.controller.rows if row["timestamp"] < 60 * 100_000]
    assert len(made) > 100

    def scores(rows: list[dict[str, Any]], epoch_us: int) -> tuple[list[tuple[int, str]], np.ndarray]:
        """Who was scored and when, and by what; a first score has no difference."""
        rows = sorted(rows, key=lambda each: (each["timestamp"], each["agent_id"]))
        places = [(row["timestamp"] - epoch_us, row["agent_id"]) for row in rows]
        numbers = [[row[name] for name in ("karma_score", "score_delta")] for row in rows]
        return places, np.nan_to_num(np.array(numbers, float))

    (made_at, made_of), (emitted_at, emitted_of) = scores(made, 0), scores(emitted, config.epoch_us)
    assert made_at == emitted_at
    np.testing.assert_allclose(made_of, emitted_of, atol=1e-6)  # the simulation subtracts before it rounds
