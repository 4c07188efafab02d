"""Part of the study ``control`` about dna: what the genetic controller does to a genetic algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.controllers.genetic import GeneticController, GeneticState
from astrocyte.pipeline.studies.intervals import mean_interval
from astrocyte.pipeline.studies.report import Table, interval_text, number
from astrocyte.pipeline.studies.steered import Governor, SteeredAgents
from astrocyte.pipeline.studies.study import StudyRun
from astrocyte.schemas.events import ControlEvent
from astrocyte.schemas.frames import Frame
from astrocyte.simulator.batch import BatchWorld
from astrocyte.simulator.scenarios.dna.batch import dna_observed

__all__ = ["Arm", "evolved", "evolved_table"]

Numbers = NDArray[np.float64]
_TICK_US: Final = 100_000
_DELAY_US: Final = 2_000_000
_REACHED: Final = 0.9
"""Mean score whose time says how fast a population evolves."""
_ALL: Final = ("elite", "retire", "crossover", "mutation_rate")
_RATES: Final = (0.1, 0.5)
"""Mutation rates of the scenario: its default, and one that is much too high."""
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "elite pool alone": ("elite", "retire"),
    "crossover alone": ("crossover",),
    "mutation rate alone": ("mutation_rate",),
    "all": _ALL,
}


@dataclass(frozen=True, slots=True)
class _Some(GeneticController):
    """The genetic controller, of whose commands only some actions are given."""

    actions: tuple[str, ...] = _ALL

    def step(self, state: GeneticState, frame: Frame) -> tuple[GeneticState, list[ControlEvent]]:
        """State and commands as without the limit, but for the commands of other actions."""
        after, commands = GeneticController.step(self, state, frame)
        return after, [command for command in commands if command.values["action"] in self.actions]


@dataclass(frozen=True, slots=True)
class Arm:
    """Worlds of one mutation rate, with some actions or none; arrays [worlds]."""

    rate: float
    control: str
    mean: Numbers
    """Mean score of all agents, over the last ten seconds."""
    best: Numbers
    """Best score of an agent, mean over the last ten seconds."""
    reached_s: Numbers
    """Until the mean score of all agents reached 0.9; the length of the run where it did not."""
    commands: Numbers
    seconds: int
    """Length of the run."""


def evolved(run: StudyRun, seeds: Sequence[int]) -> list[Arm]:
    """Worlds with every part of the controller, and the same worlds left alone."""
    seconds = 20 if run.quick else 60
    plan = [(rate, name) for rate in _RATES for name in ("none", *_PARTS)]
    if run.quick:
        plan = [(_RATES[1], "none"), (_RATES[1], "all")]
    worlds: list[BatchWorld] = []
    governors: list[Governor | None] = []
    for rate, name in plan:
        # What a user sets is for cells: both scenarios have settings of the same name.
        config = replace(run, settings={}).config("dna", {}, {"tick_us": _TICK_US, "mutation_rate": rate})
        worlds += [BatchWorld(config, seed) for seed in seeds]
        governors += [None if name == "none" else Governor(_Some(actions=_PARTS[name]), "ga", _DELAY_US) for _ in seeds]
    second = 1_000_000 // _TICK_US
    found = run.worlds(
        "dna", worlds, ticks=seconds * second, every=1, observe=dna_observed, what="genetic algorithms",
        steer=SteeredAgents(governors, tick_us=_TICK_US),
    )  # fmt: skip
    karma = found["karma"].astype(np.float64)
    mean = karma.mean(axis=2)
    best = karma.max(axis=2)
    reached = np.where((mean >= _REACHED).any(axis=1), np.argmax(mean >= _REACHED, axis=1), mean.shape[1]) / second
    given = np.array([len(governor.given) if governor else 0 for governor in governors], float)
    late = slice(-10 * second, None)
    arms = []
    for place, (rate, name) in enumerate(plan):
        own = slice(place * len(seeds), (place + 1) * len(seeds))
        arms.append(
            Arm(
                rate,
                name,
                mean[own, late].mean(axis=1),
                best[own, late].mean(axis=1),
                reached[own],
                given[own],
                seconds,
            )
        )
    return arms


def evolved_table(arms: Sequence[Arm]) -> Table:
    """Scores and speed of each arm, and the differences from the same seeds without control."""
    left = {arm.rate: arm for arm in arms if arm.control == "none"}
    rows: list[tuple[Any, ...]] = []
    for arm in arms:
        without = left[arm.rate]
        paired = [
            "-" if arm is without else interval_text(*mean_interval(one - other, low=-most, high=most), digits=2)
            for one, other, most in (
                (arm.mean, without.mean, 1.0), (arm.best, without.best, 1.0),
                (arm.reached_s, without.reached_s, float(arm.seconds)),
            )
        ]  # fmt: skip
        rows.append((
            number(arm.rate), arm.control, number(float(arm.mean.mean())), paired[0], number(float(arm.best.mean())),
            paired[1], number(float(arm.reached_s.mean())), paired[2], number(float(arm.commands.mean())),
        ))  # fmt: skip
    return Table(
        "Genetic algorithms with and without control (differences are from the same seeds without)",
        ("mutation rate at first", "control", "mean score", "difference", "best score", "difference",
         f"seconds to a mean of {_REACHED}", "difference", "commands"),
        rows,
    )  # fmt: skip
