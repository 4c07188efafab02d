"""Whether hardware that evolves together with the weights does better than either alone."""

from __future__ import annotations

import numpy as np

from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, TRAIT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import mean_interval
from astrocyte.pipeline.studies.report import Report, Table, bar, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["study"]

_ARMS = {"neither": (), "software": ("ai",), "hardware": ("tpu",), "both": ("ai", "tpu")}
_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
"""Interaction of both factors: both - hardware - software + neither."""


def study(run: StudyRun) -> Report:
    """A factorial experiment: hardware and software evolve or are held still, with the same seeds in all four arms."""
    seeds = run.seeds_or(24, 4)
    ticks, every = (400, 20) if run.quick else (3_000, 50)
    worlds = [
        founded(run.config("cells", BASE, {"evolves": evolves}), seed, mutation_rate=0.3)
        for evolves in _ARMS.values()
        for seed in seeds
    ]
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="four arms"
    )
    shape = (len(_ARMS), len(seeds), ticks // every)
    last = shape[2] - max(shape[2] // 5, 1)
    accuracy = found["accuracy"].astype(np.float64).reshape(shape)[:, :, last:].mean(axis=2)
    population = found["population"].reshape(shape)[:, :, last:].mean(axis=2)
    error = found["own_error"].reshape(shape)[:, :, last:].mean(axis=2)
    cores = np.exp(found["log_trait"][:, -1, TRAIT["tpu_cores"]].astype(np.float64)).reshape(shape[:2])
    rows = []
    for number_of, arm in enumerate(_ARMS):
        mean, low, high = mean_interval(accuracy[number_of], low=0.0, high=1.0)
        rows.append((
            arm, interval_text(mean, low, high), bar(mean, 0.0, 1.0), number(population[number_of].mean()),
            number(error[number_of].mean()), number(cores[number_of].mean()),
        ))  # fmt: skip
    neither, software, hardware, both = accuracy
    contrasts = {
        "software alone (software - neither)": software - neither,
        "hardware alone (hardware - neither)": hardware - neither,
        "both (both - neither)": both - neither,
        "software, where hardware evolves (both - hardware)": both - hardware,
        "interaction (both - hardware - software + neither)": _SIGNS @ accuracy,
    }
    effects = {name: mean_interval(values) for name, values in contrasts.items()}
    interaction = effects["interaction (both - hardware - software + neither)"]
    together = effects["both (both - neither)"]
    return Report(
        title="Hardware and software: evolving together, or one held still",
        question="Do cells whose hardware (cores, memory, efficiency) and software (weights) evolve together solve "
        "problems better than cells of which one is held still?",
        answer=_answer(interaction, together, effects["software, where hardware evolves (both - hardware)"]),
        method=(
            f"{len(seeds)} worlds of cells in each of four arms (scenario `cells`, setting `evolves`), with the same "
            f"seeds in all arms, {ticks:,} ticks each. {FOUNDERS_TEXT} A daughter mutates with probability 0.3. "
            f"Hardware costs "
            "energy in all arms.",
            "Measured: accuracy of all attempts in the last fifth of the run. Contrasts are taken within a seed; "
            "intervals are over seeds, 95 %: Student's, and of accuracy those of its log-odds.",
        ),
        results=(
            Table(
                "What evolves, and what came of it (means over worlds)",
                ("evolves", "accuracy", "", "population", "distance of weights from the exact ones", "cores"),
                rows,
            ),
            Table(
                "Effects on accuracy",
                ("contrast", "mean (95 % interval)"),
                [(name, interval_text(*each)) for name, each in effects.items()],
            ),
        ),
        calibration=(_null(run, accuracy),),
        limits=(
            "One setting of costs and one length of run: with costlier hardware, or over many more generations, the "
            "order "
            "of the arms may differ.",
            "Biology (metabolism, growth, division, mutation rate) is held still in all arms.",
            "Accuracy rises by power as well as by better weights: the distance of the weights and the cores say "
            "which it was.",
        ),
    )  # fmt: skip


def _answer(
    interaction: tuple[float, float, float], both: tuple[float, float, float], added: tuple[float, float, float]
) -> str:
    _, low, high = interaction
    kind = (
        "together they gain more than the sum of either alone"
        if low > 0
        else "together they gain less than the sum of either alone"
        if high < 0
        else "no interaction is shown: the gain of both is within error the sum of either alone"
    )
    more = "adds to" if added[1] > 0 else "takes from" if added[2] < 0 else "adds nothing that is shown to"
    return (
        f"Both evolving raise accuracy by {interval_text(*both)} over neither; {kind} (interaction "
        f"{interval_text(*interaction)}). Evolving software {more} evolving hardware ({interval_text(*added)})."
    )


def _null(run: StudyRun, accuracy: np.ndarray) -> str:
    """How often an interaction is claimed where there is none: arms are exchanged at random within each seed."""
    trials = 40 if run.quick else 400
    rng = run.random("null")
    values = accuracy - accuracy.mean(axis=1, keepdims=True)
    claimed = 0
    for _ in range(trials):
        mixed = np.stack([values[rng.permutation(len(values)), seed] for seed in range(values.shape[1])], axis=1)
        _, low, high = mean_interval(_SIGNS @ mixed)
        claimed += not low <= 0.0 <= high
    return (
        f"With each arm's mean removed and the arms exchanged at random within every seed there is no interaction. In "
        f"{trials} such data sets its 95 % interval left 0 out in {100 * claimed / trials:.1f} % (5 % is stated)."
    )
