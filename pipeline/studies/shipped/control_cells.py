"""Parts of the study ``control`` about cells: sensitivity, disturbances, lengths of window, rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.controllers.difficulty import DifficultyController
from astrocyte.pipeline.studies.cells import NEVER, cells_observed
from astrocyte.pipeline.studies.intervals import mean_interval
from astrocyte.pipeline.studies.loop_measures import Held, measure_loop
from astrocyte.pipeline.studies.report import Table, interval_text, number
from astrocyte.pipeline.studies.steered import Governor, SteeredCells
from astrocyte.pipeline.studies.study import StudyRun
from astrocyte.simulator.batch import INTERVALS, BatchWorld

__all__ = [
    "BAND",
    "CONTROLLER",
    "DISTURBANCE_TEXT",
    "Disturbed",
    "bias_text",
    "disturbed",
    "disturbed_table",
    "effect_text",
    "rewarded",
    "sensed",
    "settling_text",
    "windowed",
]

Numbers = NDArray[np.float64]
CONTROLLER: Final = DifficultyController()
BAND: Final = 0.05
"""Settled means within this of the target."""
_TICK_US: Final = 10_000
_EVERY: Final = 10
_SECOND: Final = INTERVALS * _EVERY
"""Ticks of a second: one call of the batch."""
_BASE: Final = {"size": 256, "routine_every": NEVER, "metrics_every": NEVER}
_FIXED: Final = {"tick_us": _TICK_US}
_FACTOR: Final = 3.0
DISTURBANCE_TEXT: Final[Mapping[str, str]] = {
    "nothing": "*nothing*",
    "harder": "problems three times as hard at once (*harder*)",
    "easier": "problems a third as hard at once (*easier*)",
    "drift": "a *drift* to three times the difficulty",
    "collapse": "the planted anomaly *collapse*",
    "breakthrough": "the planted anomaly *breakthrough*",
}
_DIFFICULTIES: Final = (0.3, 1.0, 3.0)
_WINDOWS: Final = ((1, 1), (1, 2), (10, 1), (10, 11), (60, 1), (60, 61))
"""Length and delay in seconds: a command that applies a second after its window, and one that takes a window more."""
_QUICK_WINDOWS: Final = ((1, 1), (10, 11))
_LIMITED_BY: Final[Mapping[str, Mapping[str, float]]] = {
    "supply": {},
    "reward": {"supply": 1_000.0, "reward": 2.0},
}
"""With a reward of 2, cells that are right in less than a third of their problems spend more than they earn."""
_STILL: Final = 1e-9
"""Fluctuation of what does not fluctuate, but for rounding."""
_LENGTHS_S: Final = {1: 60, 10: 120, 60: 480}


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What came of one disturbance, with control and without."""

    controlled: Held
    left: Held
    commands: Numbers
    accuracy: Numbers
    """Accuracy by second under control, [worlds, seconds]."""
    half_s: int
    """Seconds before the disturbance, and after it."""


def sensed(run: StudyRun, seeds: Sequence[int]) -> tuple[Numbers, Table]:
    """Fall of the log-odds of accuracy by ln(difficulty), by seed; a line through worlds of several difficulties."""
    ticks = 500 if run.quick else 2_000
    configs = [run.config("cells", _BASE, {**_FIXED, "difficulty": level}) for level in _DIFFICULTIES]
    worlds = [BatchWorld(config, seed) for config in configs for seed in seeds]
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=_EVERY, observe=cells_observed, what="constant difficulties"
    )  # fmt: skip
    accuracy = found["accuracy"].astype(np.float64).reshape(len(configs), len(seeds), -1).mean(axis=2)
    slope = sensitivity(accuracy)
    rows = [
        (number(level), interval_text(*mean_interval(values, low=0.0, high=1.0)))
        for level, values in zip(_DIFFICULTIES, accuracy, strict=True)
    ]
    return slope, Table("Accuracy at a constant difficulty", ("difficulty", "accuracy"), rows)


def sensitivity(accuracy: Numbers) -> Numbers:
    """Slope of the least-squares line of -logit(accuracy) on ln(difficulty); accuracy [difficulties, worlds]."""
    x = np.log(np.array(_DIFFICULTIES))
    x = x - x.mean()
    slope: Numbers = -(x @ np.log(accuracy / (1.0 - accuracy))) / (x @ x)
    return slope


def disturbed(run: StudyRun, seeds: Sequence[int]) -> dict[str, Disturbed]:
    """Worlds with each disturbance in their middle, under control and left alone."""
    half_s = 20 if run.quick else 40
    at = half_s * _SECOND
    kinds = ("harder", "collapse") if run.quick else tuple(DISTURBANCE_TEXT)
    worlds = [world for kind in kinds for _ in range(2) for world in _worlds(run, kind, seeds, at)]
    governors = [
        _governor(CONTROLLER, 1) if steered else None for _ in kinds for steered in (True, False) for _ in seeds
    ]
    accuracy = _accuracy(run, worlds, governors, window=1, seconds=2 * half_s, what="disturbances")
    accuracy = accuracy.reshape(len(kinds), 2, len(seeds), -1)
    given = np.array([len(governor.given) if governor else 0 for governor in governors], float)
    given = given.reshape(len(kinds), 2, len(seeds))
    return {
        kind: Disturbed(_measured(both[0], half_s), _measured(both[1], half_s), commands[0], both[0], half_s)
        for kind, both, commands in zip(kinds, accuracy, given, strict=True)
    }


def disturbed_table(found: Mapping[str, Disturbed]) -> Table:
    """Errors, overshoot and settling times, with control and without."""
    rows = []
    for kind, each in found.items():
        for name, held in (("control", each.controlled), ("none", each.left)):
            rows.append((
                kind, name, bias_text(held.bias), number(float(held.error.mean()), 2),
                number(float(held.overshoot.mean()), 2), *settled_cells(held, each.half_s, each.half_s // 2),
                number(float(each.commands.mean()), 2) if name == "control" else "-",
            ))  # fmt: skip
    return Table(
        f"Accuracy after a disturbance, target {CONTROLLER.target}",
        ("disturbance", "control", "bias at the end", "error at the end", "overshoot", "settled", "settling time, s",
         "commands"),
        rows,
    )  # fmt: skip


def bias_text(bias: Numbers) -> str:
    """Mean distance of the accuracy from its target, with its interval; accuracy is between 0 and 1."""
    target = CONTROLLER.target
    return interval_text(*mean_interval(bias, low=-target, high=1.0 - target), digits=2)


def settled_cells(held: Held, seconds: int, last_s: int) -> tuple[str, str]:
    """How many series settled, and their settling time: mean with its interval, and the longest.

    ``seconds`` are all after the disturbance; how many settled in the last ``last_s`` of them is said, since the error
    at the end is measured over these.
    """
    times = held.settling_s[~np.isnan(held.settling_s)]
    count = f"{len(times)} of {len(held.settling_s)}"
    if not len(times):
        return count, "-"
    late = int((times > seconds - last_s).sum())
    if late:
        count += f", {late} during the end"
    return count, f"{settling_text(times, seconds)}, at most {number(float(times.max()), 2)}"


def settling_text(times: Numbers, seconds: int) -> str:
    """Mean settling time of the series that settled within ``seconds``, with its interval."""
    return interval_text(*mean_interval(times, low=0.0, high=float(seconds)), digits=2)


def windowed(run: StudyRun, seeds: Sequence[int]) -> Table:
    """Worlds of three times the difficulty from the beginning, controlled by windows of several lengths and delays."""
    config = run.config("cells", _BASE, {**_FIXED, "difficulty": _FACTOR})
    rows = []
    for length, delay in _QUICK_WINDOWS if run.quick else _WINDOWS:
        seconds = _LENGTHS_S[length]
        controller = replace(CONTROLLER, delay_s=float(delay))
        worlds = [BatchWorld(config, seed) for seed in seeds]
        governors = [_governor(controller, delay) for _ in seeds]
        accuracy = _accuracy(
            run, worlds, governors, window=length, seconds=seconds, what=f"windows of {length} s, delay {delay} s"
        )
        last = max(seconds // 4, length)
        held = measure_loop(accuracy, target=controller.target, band=BAND, at=0, last=last)
        rows.append((
            f"{length} s", f"{delay} s", f"{seconds} s", bias_text(held.bias), number(float(held.error.mean()), 2),
            number(float(held.overshoot.mean()), 2), *settled_cells(held, seconds, last),
        ))  # fmt: skip
    return Table(
        f"By length of window and delay of commands: worlds of {_FACTOR:g} times the difficulty from the beginning",
        ("window", "delay", "run", "bias at the end", "error at the end", "overshoot", "settled", "settling time, s"),
        rows,
    )


def rewarded(run: StudyRun, seeds: Sequence[int]) -> tuple[Mapping[str, Mapping[str, Numbers]], Table]:
    """Worlds that become harder, whose reward alone is controlled, beside the same worlds without control.

    In one kind energy is limited by the supply of the whole world, in the other by what each cell is rewarded.
    """
    half_s = 20 if run.quick else 40
    at = half_s * _SECOND
    controller = replace(CONTROLLER, deadband=1.0)  # an accuracy is never so far from its target
    effects: dict[str, dict[str, Numbers]] = {}
    rows: list[tuple[str, ...]] = []
    for kind, settings in _LIMITED_BY.items():
        worlds = [world for _ in range(2) for world in _worlds(run, "harder", seeds, at, settings)]
        steered = [_governor(controller, 1) for _ in seeds]
        loop = SteeredCells([*steered, *[None] * len(seeds)], [1] * len(worlds), tick_us=_TICK_US)
        found = run.worlds(
            "cells", worlds, ticks=2 * at, every=_EVERY, observe=cells_observed, steer=loop, what=f"rewards, {kind}"
        )  # fmt: skip
        rewards = [[values["reward"] for _, values in each.given][-1:] or [1.0] for each in steered]
        effects[kind] = {
            "reward": np.array(rewards, float)[:, 0],
            "slots": np.array([float(run.config("cells", _BASE).size)]),
        }
        for name in ("energy", "population"):
            values = found[name].astype(np.float64).reshape(2, len(seeds), 2 * half_s, INTERVALS).mean(axis=3)
            late = values[:, :, -half_s // 2 :].mean(axis=2)
            effects[kind][name] = late[0] - late[1]
            most = math.inf if name == "energy" else float(effects[kind]["slots"][0])
            rows.append((
                kind, name, *(interval_text(*mean_interval(each, low=0.0, high=most)) for each in late),
                effect_text(effects[kind], name),
                *(number(_growth(each, half_s // 2), 2) for each in values),
            ))  # fmt: skip
    return effects, Table(
        f"Rewards from the rolling average, after problems became {_FACTOR:g} times as hard: means of the last quarter",
        ("energy is limited by", "of", "reward controlled", "constant reward", "effect",
         "growth of fluctuation, controlled", "constant"),
        rows,
    )  # fmt: skip


def effect_text(effects: Mapping[str, Numbers], name: str) -> str:
    """Mean difference that control makes, with its interval; two populations differ by no more than the slots."""
    most = math.inf if name == "energy" else float(effects["slots"][0])
    return interval_text(*mean_interval(effects[name], low=-most, high=most), digits=2)


def _growth(values: Numbers, last: int) -> float:
    """Fluctuation around a line in the last samples, relative to that in as many before; medians over worlds."""
    time = np.arange(last) - (last - 1) / 2

    def spread(part: Numbers) -> Numbers:
        slope = (part @ time) / (time @ time)
        around: Numbers = (part - part.mean(axis=1, keepdims=True) - slope[:, None] * time).std(axis=1)
        return around

    before, after = (float(np.median(spread(part))) for part in (values[:, -2 * last : -last], values[:, -last:]))
    return after / before if before > _STILL else math.nan


def _worlds(
    run: StudyRun, kind: str, seeds: Sequence[int], at: int, settings: Mapping[str, float] | None = None
) -> list[BatchWorld]:
    planted = kind in ("collapse", "breakthrough")
    varied = {**_FIXED, **(settings or {}), "plants": [{"kind": kind, "at_tick": at}] if planted else []}
    config = run.config("cells", _BASE, varied)
    then, change = None, (0, 0)
    if kind in ("harder", "easier", "drift"):
        factor = 1.0 / _FACTOR if kind == "easier" else _FACTOR
        then = config.model_copy(update={"difficulty": config.difficulty * factor})
        change = (at, at + at // 2) if kind == "drift" else (at, at)
    return [BatchWorld(config, seed, then=then, change=change) for seed in seeds]


def _governor(controller: DifficultyController, delay_s: int) -> Governor:
    return Governor(controller, "difficulty", delay_s * 1_000_000)


def _accuracy(
    run: StudyRun,
    worlds: Sequence[BatchWorld],
    governors: Sequence[Governor | None],
    *,
    window: int,
    seconds: int,
    what: str,
) -> Numbers:
    """Accuracy of all attempts by second, [worlds, seconds]."""
    found = run.worlds(
        "cells", worlds, ticks=seconds * _SECOND, every=_EVERY, observe=cells_observed, what=what,
        steer=SteeredCells(governors, [window] * len(worlds), tick_us=_TICK_US),
    )  # fmt: skip
    by_second: Numbers = found["accuracy"].astype(np.float64).reshape(len(worlds), seconds, INTERVALS).mean(axis=2)
    return by_second


def _measured(accuracy: Numbers, half_s: int) -> Held:
    return measure_loop(accuracy, target=CONTROLLER.target, band=BAND, at=half_s, last=half_s // 2)
