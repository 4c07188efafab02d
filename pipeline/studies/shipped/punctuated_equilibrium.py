"""Whether traits of evolving cells change in pulses: Hunt's models of the means, chosen by AICc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, TRAIT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.evolution_models import MODELS, fit_models, simulate_model
from astrocyte.pipeline.studies.intervals import share_interval
from astrocyte.pipeline.studies.report import Report, Table, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun
from astrocyte.simulator.scenarios.cells.config import INPUTS, PROBLEMS

__all__ = ["study"]

Numbers = NDArray[np.float64]
_EFFECTS: Final = (("directional", 0.5), ("directional", 1.0), ("random_walk", 0.0), ("stasis", 0.0),
                   ("punctuated", 2.0), ("punctuated", 4.0))  # fmt: skip
_COST_BEFORE: Final = 0.05
_COST: Final = 0.4
"""Cost of a core and of a unit of memory after the optimum has moved."""
_SHOWN: Final = (
    "metabolism",
    "growth_rate",
    "division_size",
    "mutation_rate",
    "tpu_cores",
    "tpu_memory",
    "tpu_efficiency",
)


def study(run: StudyRun) -> Report:
    """Series with known answer, worlds with known answer, and worlds in which everything evolves."""
    seeds = run.seeds_or(16, 4)
    every = 25 if run.quick else 100
    samples, settling = (16, 2) if run.quick else (40, 6)
    ticks = (samples + settling) * every
    moved_at = (settling + samples // 2) * every
    arms = _arms(run)
    worlds = [
        founded(config, seed, mutation_rate=rate, then=then, change=(moved_at, moved_at))
        for config, then, rate in arms.values()
        for seed in seeds
    ]
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="four kinds"
    )
    died = found["population"][:, -1] == 0
    per_arm = {}
    for place, arm in enumerate(arms):
        own = np.arange(place * len(seeds), (place + 1) * len(seeds))
        per_arm[arm] = {name: values[own[~died[own]], settling:] for name, values in found.items()}
    cores = TRAIT["tpu_cores"]
    known = {
        "gradual": ("directional", per_arm["gradual"]["log_trait"][:, :, cores]),
        # One weight of each problem: weights of one problem are inherited together.
        "random walk": ("random_walk", _weights(per_arm["random walk"]["weights"])),
        "moved optimum": ("punctuated", per_arm["moved optimum"]["log_trait"][:, :, cores]),
    }
    rows, right = [], {}
    for arm, (answer, series) in known.items():
        chosen = _chosen(series.astype(np.float64))
        right[arm] = chosen[MODELS.index(answer)] / chosen.sum()
        rows.append((arm, answer, *_shares(chosen)))
    free = per_arm["free"]["log_trait"].astype(np.float64)
    rows_free, total = [], np.zeros(len(MODELS), np.int64)
    for trait in _SHOWN:
        series = free[:, :, TRAIT[trait]]
        chosen = _chosen(series)
        total += chosen
        weights = fit_models(series).weight.mean(axis=0)
        rows_free.append((trait, *_shares(chosen), " / ".join(number(each, 2) for each in weights)))
    calibration, false = _series_table(run, samples)
    pulses = share_interval(int(total[MODELS.index("punctuated")]), int(total.sum()))
    mode = MODELS[int(total.argmax())]
    walk_false = _false_pulses(known["random walk"][1])
    answer = (
        f"Of {int(total.sum())} series of trait means of freely evolving worlds, "
        f"{interval_text(100 * pulses[0], 100 * pulses[1], 100 * pulses[2])} % "
        f"are best described by a punctuated shift between two levels; most often chosen is {mode.replace('_', ' ')} "
        f"({100 * total.max() / total.sum():.0f} %). Where nothing but chance moves a trait a shift was chosen in "
        f"{100 * walk_false:.0f} % of the series. "
    )
    answer += (
        "So pulses are more frequent than by mistake."
        if pulses[1] > max(walk_false, false)
        else "So punctuated equilibrium is not shown in these worlds."
    )
    answer += (
        f" A pulse that was planted, by moving an optimum, was recognised in {100 * right['moved optimum']:.0f} % of "
        "the worlds: among drift many are missed."
    )
    return Report(
        title="Punctuated equilibrium: do trait means of cells change in pulses?",
        question="Do the traits of an evolving population stay where they are and change in pulses, or do they "
        "change gradually, "
        "or as a random walk?",
        answer=answer,
        method=(
            f"Four kinds of worlds of cells, {len(seeds)} of each, {ticks:,} ticks. Trait means (of natural "
            f"logarithms) every "
            f"{every} ticks, the first {settling} left out: {samples} values. {FOUNDERS_TEXT}",
            "Kinds: *gradual*: only hardware evolves, and costs nothing, so that more is always better. *Random "
            "walk*: only "
            "weights evolve, and do not matter (`sharpness` 0.01); one weight of each of four problems. *Moved "
            f"optimum*: only hardware evolves, at a rate of 1 by steps of 0.5, and in the middle of the run cores and "
            f"memory cost {_COST} each. *Free*: everything evolves and nothing is planted. Where not said otherwise "
            f"the "
            f"mutation rate begins at 0.3. {int(died.sum())} worlds that died out are left out.",
            "Four models (Hunt 2006, 2008): directional, random walk, stasis, and punctuated, which is stasis around "
            "one value "
            "and from a shift on around another. Fitted by maximum likelihood to each value given the one before, "
            "and chosen "
            "by the least AICc; the place of the shift, which is searched for, counts as three parameters (Ninomiya "
            "2015).",
        ),
        results=(
            Table("Free worlds: share of the series for which each model is chosen", ("trait", *map(_words, MODELS),
                  "mean Akaike weights"), rows_free),
            Table("Worlds whose answer is known", ("world", "expected", *map(_words, MODELS)), rows),
        ),
        calibration=(
            calibration,
            f"Series of {samples} values with steps, or deviations, of standard deviation 1. Worlds with a known "
            f"answer: "
            + "; ".join(f"{arm} {100 * share:.0f} % right" for arm, share in right.items())
            + ".",
        ),
        limits=(
            "The models are four of many: a trait that follows a moving optimum, or slows down as it nears one, is "
            "none of them, "
            "and the least bad is chosen. Gradual worlds near the end of what selection can gain show this.",
            "Drift around an optimum is correlated over time. Sampled more often than it forgets, stasis looks like "
            "a random "
            "walk.",
            "A shift that takes longer than an interval of observation is a trend for these models, not a pulse.",
            "Traits of one world are inherited together, so its series are not independent; the intervals take them "
            "as such.",
        ),
    )  # fmt: skip


def _arms(run: StudyRun) -> Mapping[str, tuple[Any, Any, float]]:
    """Settings of each kind of world, those after the middle of the run, and its mutation rate."""
    # Much variation, so that the population follows within an interval or two.
    hardware = run.config("cells", BASE, {"evolves": ("tpu",), "core_cost": _COST_BEFORE, "mutation_step": 0.5})
    drift = run.config("cells", BASE, {"evolves": ("ai",), "sharpness": 0.01})
    return {
        "gradual": (run.config("cells", BASE, {"evolves": ("tpu",), "core_cost": 0.0, "memory_cost": 0.0}), None, 0.3),
        "random walk": (drift, None, 0.3),
        "moved optimum": (hardware, hardware.model_copy(update={"core_cost": _COST, "memory_cost": _COST}), 1.0),
        "free": (run.config("cells", BASE, {"evolves": ("bio", "ai", "tpu")}), None, 0.3),
    }


def _weights(weights: NDArray[Any]) -> NDArray[Any]:
    """The first weight of each problem as series: [worlds, samples, weights] to [worlds * problems, samples]."""
    first = weights[:, :, ::INPUTS]
    assert first.shape[2] == len(PROBLEMS)
    return np.moveaxis(first, 2, 1).reshape(-1, weights.shape[1])


def _words(model: str) -> str:
    return model.replace("_", " ")


def _chosen(series: Numbers) -> NDArray[np.int64]:
    """How often each model is chosen."""
    found: NDArray[np.int64] = np.bincount(fit_models(series).best, minlength=len(MODELS))
    return found


def _shares(chosen: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"{100 * each / max(chosen.sum(), 1):.0f} %" for each in chosen)


def _false_pulses(series: NDArray[Any]) -> float:
    """Share of series without any pulse for which the punctuated model is chosen."""
    chosen = _chosen(series.astype(np.float64))
    return float(chosen[MODELS.index("punctuated")] / chosen.sum())


def _series_table(run: StudyRun, samples: int) -> tuple[Table, float]:
    """Choices among series of each model, and the largest share of others for which a shift is chosen."""
    count = 200 if run.quick else 2_000
    rows, false = [], 0.0
    for model, effect in _EFFECTS:
        series = simulate_model(run.random(model, str(effect)), model, count, samples, effect=effect)
        chosen = _chosen(series)
        rows.append((_words(model), number(effect) if effect else "-", *_shares(chosen)))
        if model != "punctuated":
            false = max(false, chosen[MODELS.index("punctuated")] / count)
    head = ("true model", "effect (sd)", *map(_words, MODELS))
    return Table(f"Models chosen for {count:,} simulated series of each kind", head, rows), false
