"""How well the shipped controllers control: difficulty and reward in cells, the genetic algorithm in dna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from astrocyte.pipeline.studies.intervals import mean_interval
from astrocyte.pipeline.studies.report import Report, interval_text, number
from astrocyte.pipeline.studies.shipped.control_cells import (
    BAND,
    CONTROLLER,
    DISTURBANCE_TEXT,
    Disturbed,
    bias_text,
    disturbed,
    disturbed_table,
    effect_text,
    rewarded,
    sensed,
    settling_text,
    windowed,
)
from astrocyte.pipeline.studies.shipped.control_dna import Arm, evolved, evolved_table
from astrocyte.pipeline.studies.shipped.control_known import known_loops
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["study"]


def study(run: StudyRun) -> Report:
    """Closed loops with disturbances, beside the same worlds without control."""
    seeds = run.seeds_or(20, 4)
    slope, constant = sensed(run, seeds)
    found = disturbed(run, seeds)
    windows = windowed(run, seeds)
    effects, rewards = rewarded(run, seeds)
    arms = evolved(run, seeds)
    known, _ = known_loops(run)
    half_s = next(iter(found.values())).half_s
    rates = dict.fromkeys(arm.rate for arm in arms)
    return Report(
        title="Controllers: what they hold, how fast, and what they change",
        question="Does adaptive difficulty hold the accuracy of a population at its target, do rewards that follow the "
        "rolling accuracy keep it steady, and does a genetic algorithm do better under its controller?",
        answer=" ".join((_held(found), _rewards(effects), _genetics(arms))),
        method=(
            f"Cells: {len(seeds)} worlds for each disturbance, each with the same seeds under control and without. The "
            "controllers are those of the role `control`, with their default settings; they read the accuracy of all "
            "attempts of a second, and a command applies a second later. Disturbances come in the middle of runs of "
            f"{2 * half_s} s: {', '.join(DISTURBANCE_TEXT[kind] for kind in found)}. All worlds "
            "begin at 40 % accuracy, and evolve meanwhile.",
            f"A world has settled when the mean accuracy of five seconds stays within {BAND:g} of the target of "
            f"{CONTROLLER.target:g}. Bias and error (mean distance from the target) are those of the end, "
            f"the last quarter of the run ({half_s // 2} s after a disturbance); of worlds that settle only during it "
            "they hold what was before. Times are event time. Intervals are over seeds, 95 %: Student's, and for what "
            "has bounds those of its logarithm or log-odds. Differences are taken within a seed.",
            f"Dna: populations of 100 agents for {arms[0].seconds} s, with a mutation rate of "
            f"{' or of '.join(map(number, rates))} (the default is 0.1) and otherwise default settings; commands "
            "apply two seconds after the score that caused them. The log-odds of accuracy fall by "
            f"{interval_text(*mean_interval(slope))} when ln(difficulty) rises by 1; the controller takes it to be "
            f"{CONTROLLER.sensitivity:g}.",
        ),
        results=(disturbed_table(found), windows, rewards, evolved_table(arms)),
        calibration=(constant, known),
        limits=(
            "Where supply limits the energy of the whole world, a higher reward changes little: all cells demand more "
            "of the same.",
            "Accuracy can be held only between what the limits of difficulty allow, and only while the population "
            "lives: ten times the difficulty starves these worlds.",
            "Scores of dna are noisy, and its landscape has one peak. On a landscape with several, a small breeding "
            "pool may lose the better ones.",
        ),
    )


def _held(found: Mapping[str, Disturbed]) -> str:
    bias = np.concatenate([each.controlled.bias for each in found.values()])
    times = np.concatenate([each.controlled.settling_s for name, each in found.items() if name != "nothing"])
    left = np.concatenate([each.left.settling_s for name, each in found.items() if name != "nothing"])
    settled = times[~np.isnan(times)]
    half_s = next(iter(found.values())).half_s
    late = int((settled > half_s - half_s // 2).sum())
    return (
        f"Under control the accuracy of {len(settled)} of {len(times)} disturbed worlds settles within {BAND:g} of "
        f"the target (without control, of {int((~np.isnan(left)).sum())})"
        + (f", in {settling_text(settled, half_s)} s" if len(settled) else "")
        + f". The bias over the last quarter of the run is {bias_text(bias)}"
        + (f"; {late} of these worlds settle only during it." if late else ".")
    )


def _rewards(effects: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    parts = []
    for kind, found in effects.items():
        parts.append(
            f"where {kind} limits energy it changes the energy of a cell by {effect_text(found, 'energy')} and the "
            f"population by {effect_text(found, 'population')}"
        )
    reward = float(np.mean([found["reward"].mean() for found in effects.values()]))
    way = "rises" if reward > 1.0 else "falls" if reward < 1.0 else "stays"
    at = "at" if way == "stays" else "to"
    return f"Reward alone {way} {at} {number(reward)} when problems become hard; {', and '.join(parts)}."


def _genetics(arms: Sequence[Arm]) -> str:
    parts = []
    for arm in arms:
        if arm.control == "all":
            without = next(each for each in arms if each.rate == arm.rate and each.control == "none")
            parts.append(
                f"{interval_text(*mean_interval(arm.mean - without.mean, low=-1.0, high=1.0), digits=2)} from a "
                f"mutation rate of {number(arm.rate)}"
            )
    return f"The genetic controller changes the mean score by {' and by '.join(parts)}."
