"""How the capacity of hardware changes the dynamics of a population."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import holm
from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import mean_interval, share_interval
from astrocyte.pipeline.studies.report import Report, Table, bar, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["study"]

Numbers = NDArray[np.float64]
_LEVEL = 0.05

_CAPACITIES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_BOUNDS = {
    "accuracy": {"low": 0.0, "high": 1.0},
    "turnover": {"low": 0.0},
    "variability": {"low": 0.0},
    "adaptation": {"high": 100.0},
}
"""What each measure cannot leave; a population neither 0 nor the slots of its world."""
_MEASURES = {
    "population": "cells",
    "accuracy": "share",
    "turnover": "births per cell and 100 ticks",
    "variability": "coefficient of variation of the population",
    "adaptation": "fall of the weights' distance from the exact ones, %",
}


def study(run: StudyRun) -> Report:
    """Worlds whose cells have a given number of cores and memory units, which do not evolve, while weights do."""
    seeds = run.seeds_or(16, 4)
    ticks, every = (400, 20) if run.quick else (3_000, 50)
    capacities = _CAPACITIES[1:6:2] if run.quick else _CAPACITIES
    config = run.config("cells", BASE, {"evolves": ("ai",)})
    worlds = [
        founded(
            config, seed, mutation_rate=0.3, tpu_cores=capacity, tpu_memory=capacity, tpu_efficiency=0.5
        )
        for capacity in capacities
        for seed in seeds
    ]  # fmt: skip
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="capacities"
    )
    measured = _measured(found, len(capacities), len(seeds), every)
    alive = found["population"][:, -1].reshape(len(capacities), len(seeds)) > 0
    rows = []
    for place, capacity in enumerate(capacities):
        living = {name: values[place][alive[place]] for name, values in measured.items()}
        population = mean_interval(living["population"], low=0.0, high=float(config.size))
        rows.append((
            number(capacity), f"{alive[place].sum()} of {len(seeds)}", interval_text(*population),
            bar(population[0], 0.0, config.size),
            *(interval_text(*mean_interval(living[name], **_BOUNDS[name]), digits=2) for name in list(_MEASURES)[1:]),
        ))  # fmt: skip
    # What is measured of a world that died out says nothing of how it lived.
    order = np.repeat(np.arange(len(capacities)), len(seeds)).reshape(alive.shape)[alive]
    survivors = [values[alive] for values in measured.values()]
    trends = _trends(run.random("trend"), order, survivors, 99 if run.quick else 1_999)
    lived = [place for place in range(len(capacities)) if alive[place].any()]
    crowded, best = (
        capacities[max(lived, key=lambda place: measured[name][place][alive[place]].mean())]
        for name in ("population", "accuracy")
    )
    died = [number(capacity) for place, capacity in enumerate(capacities) if not alive[place].all()]
    income = config.core_cost + config.memory_cost
    return Report(
        title="How the capacity of hardware changes a population's dynamics",
        question="Cells solve problems with cores and memory, and pay for both in every tick. What does more capacity "
        "change: how many live, how well they solve, how fast generations follow each other, how steady the "
        "population is, and how fast its weights adapt?",
        answer=f"Of the capacities tried the population is largest at {number(crowded)} and accuracy highest at "
        f"{number(best)}. " + (f"Worlds died out at {', '.join(died)}. " if died else "")
        + " ".join(
            f"{name.capitalize()} {_direction(tau, p)} (tau {number(tau, 2)}, p {number(p, 2)})."
            for name, (tau, p) in zip(measured, trends, strict=True)
        ),
        method=(
            f"{len(seeds)} worlds of cells for each of {len(capacities)} capacities, {ticks:,} ticks each. All cells "
            f"of "
            f"a world have that many cores and units of memory, with efficiency 0.5, and these do not evolve; weights "
            f"do. {FOUNDERS_TEXT} A unit of capacity costs {number(income)} energy a tick; energy for the whole world "
            "is limited.",
            "Measured over the last half of each run, of the worlds that did not die out; intervals are over "
            "worlds, 95 %, of the logarithms or log-odds where a measure has bounds. The trend of a "
            "measure "
            "is Kendall's tau of the worlds' values with capacity, its p from permutations of the worlds, and "
            "significant "
            "at 0.05 after Holm's correction for five measures.",
        ),
        results=(
            Table("Dynamics by capacity", ("capacity", "survived", "population", "", *list(_MEASURES)[1:]), rows),
            Table(
                "Trends with capacity over all worlds that lived",
                ("measure", "unit", "tau", "p, corrected"),
                [
                    (name, unit, number(tau, 2), number(p, 2))
                    for (name, unit), (tau, p) in zip(_MEASURES.items(), trends, strict=True)
                ],
            ),
        ),
        calibration=(_null(run, order, survivors),),
        limits=(
            "Cores and memory have the same value, and power is the root of their product: a world with much of one "
            "and "
            "little of the other has the power of their geometric mean at another cost.",
            "Capacity is held still. The study co-evolution lets it evolve.",
            "A trend over all capacities misses a maximum in the middle: look at the table.",
        ),
    )  # fmt: skip


def _measured(found: dict[str, Numbers], capacities: int, seeds: int, every: int) -> dict[str, Numbers]:
    """Measures of each world, [capacities, seeds], in the order of `_MEASURES`."""
    series = {
        name: values.astype(np.float64).reshape(capacities, seeds, *values.shape[1:]) for name, values in found.items()
    }
    half = series["population"].shape[2] // 2
    late = {name: values[:, :, half:] for name, values in series.items()}
    population = late["population"].mean(axis=2)
    distance = series["own_error"]
    return {
        "population": population,
        "accuracy": late["accuracy"].mean(axis=2),
        "turnover": 100.0 / every * late["births"].sum(axis=2) / np.maximum(late["population"].sum(axis=2), 1.0),
        "variability": late["population"].std(axis=2) / np.maximum(population, 1.0),
        "adaptation": 100.0 * (1.0 - distance[:, :, -1] / distance[:, :, 0]),
    }


def _trends(
    rng: np.random.Generator, order: NDArray[np.int64], measures: list[Numbers], permutations: int
) -> list[tuple[float, float]]:
    """Kendall's tau of each measure [worlds] with the order of capacities, and p by permutation, corrected by Holm."""
    ranks = np.sign(order[:, None] - order)
    mixed = [rng.permutation(len(order)) for _ in range(permutations)]
    others = [ranks, *(ranks[np.ix_(each, each)] for each in mixed)]
    taus, ps = [], []
    for values in measures:
        signs = np.sign(values[:, None] - values)
        scale = np.sqrt(float((signs != 0).sum()) * float((ranks != 0).sum())) or 1.0
        found = np.array([(signs * each).sum() for each in others]) / scale
        taus.append(float(found[0]))
        ps.append(float((np.abs(found) >= abs(found[0]) - 1e-12).mean()))
    return list(zip(taus, holm(ps).tolist(), strict=True))


def _direction(tau: float, p: float) -> str:
    return "shows no trend" if p > _LEVEL else "rises with capacity" if tau > 0 else "falls with capacity"


def _null(run: StudyRun, order: NDArray[np.int64], survivors: list[Numbers]) -> str:
    """How often any trend is claimed where the capacities are exchanged at random among the worlds."""
    trials = 20 if run.quick else 200
    rng = run.random("null")
    claimed = 0
    for _ in range(trials):
        found = _trends(rng, order[rng.permutation(len(order))], survivors, 99)
        claimed += min(p for _, p in found) <= _LEVEL
    share, low, high = share_interval(claimed, trials)
    return (
        f"Capacities exchanged at random among the worlds, {trials} times: in {100 * share:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}) of these data sets any of the five trends was claimed (5 % is stated)."
    )
