"""Whether evolving weights approach the ones that are known to be best."""

from __future__ import annotations

import numpy as np

from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import mean_interval, share_interval
from astrocyte.pipeline.studies.report import Report, Table, bar, fall_text, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun
from astrocyte.simulator.scenarios.cells.config import PROBLEMS

__all__ = ["study"]

_ARMS = {"selected": None, "not selected": 0.01}
"""Sharpness: how strongly an error lowers accuracy. At 0.01 weights do not matter."""


def study(run: StudyRun) -> Report:
    """Distance of the mean weights from the exact ones over time, where weights matter and where they do not."""
    seeds = run.seeds_or(32, 6)
    ticks, every = (600, 30) if run.quick else (5_000, 100)
    sharpness = run.config("cells", BASE).sharpness
    arms = {arm: sharpness if value is None else value for arm, value in _ARMS.items()}
    worlds = [
        founded(
            run.config("cells", BASE, {"evolves": ("ai",)}).model_copy(update={"sharpness": value}), seed,
            mutation_rate=0.3,
        )
        for value in arms.values()
        for seed in seeds
    ]  # fmt: skip
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="both arms"
    )
    samples = ticks // every
    error = found["error"].astype(np.float64).reshape(len(arms), len(seeds), samples, len(PROBLEMS))
    own = found["own_error"].astype(np.float64).reshape(len(arms), len(seeds), samples)
    generation = found["generation"].reshape(len(arms), len(seeds), samples)[:, :, -1].mean()
    tail = max(samples // 5, 1)
    # Of both ends the mean over a fifth of the run, without the first interval: founders differ less in it by chance.
    before, after = error[:, :, :tail].mean(axis=2), error[:, :, -tail:].mean(axis=2)
    approach = (1.0 - after.mean(axis=2) / before.mean(axis=2)) * 100.0
    selected, neutral = (mean_interval(each, high=100.0) for each in approach)
    difference = mean_interval(approach[0] - approach[1])
    closer = share_interval(int((approach[0] > np.quantile(approach[1], 0.95)).sum()), len(seeds))
    rows, longest = [], error.mean(axis=(1, 3)).max()
    for place in np.unique(np.linspace(0, samples - 1, 6).round().astype(int)):
        mean, low, high = mean_interval(error[0, :, place].mean(axis=1), low=0.0)
        control = error[1, :, place].mean()
        rows.append((
            f"{(place + 1) * every:,}", interval_text(mean, low, high), number(control), bar(mean, 0.0, longest),
            number(own[0, :, place].mean()), number(own[1, :, place].mean()),
        ))  # fmt: skip
    problems = [
        (problem, number(before[0, :, k].mean()), interval_text(*mean_interval(after[0, :, k], low=0.0)),
         interval_text(*mean_interval(after[1, :, k], low=0.0)))
        for k, problem in enumerate(PROBLEMS)
    ]  # fmt: skip
    mixed = _null(run, approach[1])
    reached = difference[1] > 0
    verdict = (
        "Yes: the mean weights come nearer to the exact ones where accuracy earns energy, and more than by chance"
        if reached
        else "Not within this run: the mean weights come no nearer to the exact ones than where they do not matter"
    )
    return Report(
        title="Do evolving weights approach the known optimum?",
        question="For every type of problem the weights that solve it exactly are known. Do the weights of an evolving "
        "population approach them?",
        answer=f"{verdict}. In {generation:.0f} generations the distance {fall_text(*selected)} under "
        f"selection, and {fall_text(*neutral)} without; the difference is {interval_text(*difference)} "
        "percentage points.",
        method=(
            f"{len(seeds)} worlds of cells in each of two arms with the same seeds, {ticks:,} ticks each. Only weights "
            f"mutate, with probability 0.3 at a birth. {FOUNDERS_TEXT} In the first arm accuracy decides income "
            f"(`sharpness` {sharpness:g}); in the second it does not (0.01), so weights drift.",
            "Measured: root mean square difference between the population's mean weights and the exact ones, for each "
            "of four types of problem. The fall compares the first and the last fifth of a run.",
        ),
        results=(
            Table(
                "Distance of the mean weights from the exact ones over time, and of the single cell's own weights",
                ("tick", "selected (95 % interval)", "not selected", "selected", "own, selected", "own, not selected"),
                rows,
            ),
            Table(
                "By type of problem",
                ("problem", "selected, first fifth", "selected, last fifth", "not selected, last fifth"),
                problems,
            ),
            f"A share of {interval_text(*closer)} of the selected worlds fell by more than 95 % of the others did.",
        ),
        calibration=(mixed,),
        limits=(
            "The answer of a cell is tanh(w . x): weights that give the right sign and size on inputs between -1 and 1 "
            "are nearly as good as the exact ones, so selection on a small distance is weak.",
            "Founders' weights are drawn around 0, so their mean begins near 0 and not far from the exact weights; "
            "drift "
            "takes it away in any direction. What selection does is the difference of both arms.",
        ),
    )


def _null(run: StudyRun, approach: np.ndarray) -> str:
    """How often a difference is claimed between halves of the worlds without selection."""
    trials = 100 if run.quick else 1_000
    rng = run.random("null")
    claimed = 0
    half = len(approach) // 2
    for _ in range(trials):
        order = rng.permutation(len(approach))
        _, low, high = mean_interval(approach[order[:half]] - approach[order[half : 2 * half]])
        claimed += not low <= 0.0 <= high
    return (
        f"The worlds without selection were divided at random into two halves {trials:,} times: the 95 % interval of "
        f"their difference left 0 out in {100 * claimed / trials:.1f} % (5 % is stated)."
    )
