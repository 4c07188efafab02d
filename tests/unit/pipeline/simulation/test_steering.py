"""Controllers that steer a simulation in the same process: what they read, and when their commands apply."""

from __future__ import annotations

from typing import Any

import pytest

from astrocyte import RuleSet, load_rules
from astrocyte.agents.controllers.base import CONTROLLERS
from astrocyte.agents.controllers.difficulty import DifficultyController
from astrocyte.pipeline.simulation.run import description_of, scenario_config
from astrocyte.pipeline.simulation.steering import DELAY_US, Steering
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.frames import Frame, encode_frame
from astrocyte.simulator.emission.emitter import EmissionFailed
from astrocyte.simulator.run import RunSummary
from astrocyte.simulator.scenario import load_scenario
from tests.support.small_worlds import SMALL_WORLDS

WINDOWS = """
windows:
  - name: population_second
    from: population_metrics
    by: simulation_id
    every: 1s
    select: {accuracy: "mean(avg_accuracy)"}
"""


def test_the_description_of_a_run_follows_from_its_world_settings_and_seed_alone():
    world = load_scenario("cells")
    config = scenario_config("cells", {}, None)
    known = description_of(world, config, 4, "exp", "run-1")
    assert known == {
        "simulation_id": "run-1", "experiment_id": "exp", "parameters": {"scenario": "cells", "seed": 4},
        "config": config.model_dump(mode="json"),
    }  # fmt: skip


def steered(
    scenario: str, rules: RuleSet, sink: Any, seconds: float = 6.0, **changed: Any
) -> tuple[Steering, RunSummary]:
    world = load_scenario(scenario)
    config = scenario_config(scenario, {**SMALL_WORLDS[scenario][1], "plants": (), **changed}, None)
    steering = Steering(sink, world, config, rules)
    summary = simulate(
        world, config, seed=4, seconds=seconds, sink=steering, control_source=steering.commands,
        progress=steering.progress,
    )  # fmt: skip
    return steering, summary


def test_a_command_applies_a_second_after_the_window_that_caused_it_and_the_run_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every_window = {**CONTROLLERS._loaded, "difficulty": DifficultyController(deadband=0.0)}
    monkeypatch.setattr(CONTROLLERS, "_loaded", every_window)
    kept, again = MemorySink(), MemorySink()
    _, summary = steered("cells", load_rules(WINDOWS), kept)
    steered("cells", load_rules(WINDOWS), again)
    assert [encode_frame(frame) for frame in kept.frames] == [encode_frame(frame) for frame in again.frames]
    assert {(each.name, each.error) for each in summary.controls} == {("difficulty", None)}
    # From the first chunk, of ten ticks, that begins a second or more after the window; one is under way then.
    late = [
        each.tick - end - DELAY_US // 10_000 for each, end in zip(summary.controls, range(100, 500, 100), strict=True)
    ]
    assert all(0 <= ticks <= 20 for ticks in late), late
    applied = [row for frame in kept.of("simulation_controls") for row in frame.rows()]
    assert [row["type"] for row in applied] == ["applied"] * 4


def test_a_controller_reads_a_stream_of_the_world_as_well() -> None:
    steering, summary = steered("dna", load_rules("rules: []"), MemorySink(), 15.0)
    assert steering.idle == []
    assert {each.name for each in summary.controls} == {"ga"}


def test_a_controller_without_its_window_is_named_and_nothing_waits_for_it() -> None:
    steering, summary = steered("cells", load_rules("rules: []"), MemorySink(), 2.0)
    assert steering.idle == ["controller 'difficulty': its window 'population_second' is not in the rule files"]
    assert summary.controls == ()


def test_a_sink_that_fails_ends_the_run_at_once() -> None:
    class Full(MemorySink):
        def write(self, frame: Frame) -> None:
            if len(self.frames) == 50:
                raise OSError("no space left")
            super().write(frame)

    with pytest.raises(EmissionFailed, match="no space left"):
        steered("cells", load_rules(WINDOWS), Full())
