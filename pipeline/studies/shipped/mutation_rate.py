"""Which mutation rate is best for a genome of weights and hardware."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, TRAIT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import bootstrap_means, mean_interval, percentile_interval, share_interval
from astrocyte.pipeline.studies.report import Report, Table, bar, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["optimum", "study"]

Numbers = NDArray[np.float64]
_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 1.0)
_STEP = 0.25
_GRID = 400
_NEAR = 5
_SATURATES = 0.06


def optimum(rates: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Rate of greatest value, and that value, for values [..., rates]: the maximum of a parabola in ln(rate).

    The parabola is fitted to the five neighbouring rates around the best one, within whose range the maximum is looked
    for. A curve through all rates would follow the low ones: with a cubic, intervals for curves that rise steeply and
    then level off held the known optimum in none of 150 data sets.
    """
    x = np.log(rates)
    flat = values.reshape(-1, len(rates))
    best, value = np.empty(len(flat)), np.empty(len(flat))
    first = np.clip(flat.argmax(axis=1) - _NEAR // 2, 0, len(rates) - _NEAR)
    for start in np.unique(first):
        rows, near = first == start, x[start : start + _NEAR]
        grid = np.linspace(near[0], near[-1], _GRID)
        fit = np.vander(grid - near.mean(), 3) @ np.linalg.pinv(np.vander(near - near.mean(), 3))
        curve = flat[rows, start : start + _NEAR] @ fit.T
        best[rows], value[rows] = np.exp(grid[curve.argmax(axis=1)]), curve.max(axis=1)
    return best.reshape(values.shape[:-1]), value.reshape(values.shape[:-1])


def study(run: StudyRun) -> Report:
    """Worlds with a fixed mutation rate, and worlds in which the rate evolves."""
    seeds = run.seeds_or(16, 4)
    ticks, every = (400, 20) if run.quick else (3_000, 50)
    rates = np.array(_RATES[::2] if run.quick else _RATES)
    fixed = run.config("cells", {**BASE, "mutation_step": _STEP}, {"evolves": ("ai", "tpu")})
    free = run.config("cells", {**BASE, "mutation_step": _STEP}, {"evolves": ("ai", "tpu", "bio")})
    starts = (0.02, 0.5)
    worlds = [founded(fixed, seed, mutation_rate=float(rate)) for rate in rates for seed in seeds]
    worlds += [founded(free, seed, mutation_rate=rate) for rate in starts for seed in seeds]
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="rates"
    )
    samples, held = ticks // every, len(rates) * len(seeds)
    late = samples - max(samples // 5, 1)
    accuracy = found["accuracy"][:held, late:].astype(np.float64).mean(axis=1).reshape(len(rates), len(seeds)).T
    error = found["own_error"][:held, late:].astype(np.float64).mean(axis=1).reshape(len(rates), len(seeds)).T
    power = found["power"][:held, late:].astype(np.float64).mean(axis=1).reshape(len(rates), len(seeds)).T
    resamples = 499 if run.quick else 4_999
    best, value = optimum(rates, accuracy.mean(axis=0))
    drawn, _ = optimum(rates, bootstrap_means(run.random("optimum"), accuracy, resamples))
    low, high = percentile_interval(drawn, worlds=len(seeds))
    at_edge = float((np.isclose(drawn, rates[0]) | np.isclose(drawn, rates[-1])).mean())
    top = int(accuracy.mean(axis=0).argmax())
    rows = []
    for place, rate in enumerate(rates):
        mean = mean_interval(accuracy[:, place], low=0.0, high=1.0)
        loss = mean_interval(accuracy[:, place] - accuracy[:, top])
        rows.append((
            number(rate), interval_text(*mean), bar(mean[0], 0.0, accuracy.mean(axis=0).max()),
            "-" if place == top else interval_text(*loss), number(error[:, place].mean()),
            number(power[:, place].mean()),
        ))  # fmt: skip
    evolved = np.exp(found["log_trait"][held:, :, TRAIT["mutation_rate"]].astype(np.float64)).reshape(
        len(starts), len(seeds), samples
    )
    went = [
        (number(start), interval_text(*mean_interval(evolved[number_of][:, -1], low=0.0, high=1.0)),
         interval_text(*mean_interval(np.log(evolved[number_of][:, -1] / start))))
        for number_of, start in enumerate(starts)
    ]  # fmt: skip
    edge = (
        f" {100 * at_edge:.0f} % of the resampled optima lie at an end of the range, so the interval may be cut off "
        f"there."
        if at_edge > 0.025
        else ""
    )
    return Report(
        title="The best mutation rate of a genome of weights and hardware",
        question="At which probability of mutation at a birth do cells solve problems best?",
        answer=f"Accuracy is highest at a mutation rate of {interval_text(float(best), low, high, 2)}, where the "
        f"fitted curve "
        f"is {number(float(value))}.{edge}",
        method=(
            f"{len(seeds)} worlds of cells for each of {len(rates)} rates, with the same seeds, {ticks:,} ticks each "
            f"({found['generation'][:held, -1].mean():.0f} generations). Weights and hardware mutate with that "
            f"probability at a birth, by steps of standard deviation {fixed.mutation_step:g}; the rate itself does "
            f"not. "
            f"{FOUNDERS_TEXT}",
            "Measured: accuracy of all attempts in the last fifth of a run. The optimum is the maximum of a parabola "
            "in "
            f"ln(rate) fitted to the means; its 95 % interval comes from {resamples:,} bootstrap samples of seeds, "
            f"each of "
            "which keeps a seed's worlds together. Other intervals are over seeds: "
            "Student's, and of accuracies and rates those of their log-odds.",
        ),
        results=(
            Table(
                "Accuracy by mutation rate",
                ("rate", "accuracy", "", f"less that at {number(rates[top])}", "distance of weights", "power"),
                rows,
            ),
            Table(
                "Where the rate itself evolves, with all other traits",
                ("start", "mean rate at the end", "ln(end / start)"),
                went,
            ),
        ),
        calibration=(_calibrated(run, rates, accuracy),),
        limits=(
            f"The optimum is that of {ticks:,} ticks and of steps of {fixed.mutation_step:g}: smaller steps and "
            f"shorter runs "
            "favour higher rates.",
            "Cells of one world share one rate. Where it evolves, selection acts on it through what it does to the "
            "weights "
            "of descendants, and on growth and division at the same time.",
        ),
    )  # fmt: skip


def _calibrated(run: StudyRun, rates: Numbers, accuracy: Numbers) -> Table:
    """Coverage of the interval for curves with a known optimum, as high as the measured one, with its deviations."""
    trials, resamples = (40, 199) if run.quick else (300, 399)
    rng = run.random("calibration")
    height, off = float(np.ptp(accuracy.mean(axis=0))), accuracy - accuracy.mean(axis=0)
    off = off * np.sqrt(len(off) / max(len(off) - 1, 1))  # deviations from the worlds' own mean are too small
    rows = []
    for name, truth, curve in _curves(rates):
        held, errors = 0, []
        for _ in range(trials):
            # What a seed's worlds share stays in a row.
            drawn = off[rng.integers(0, len(off), len(off))]
            data = height * curve + rng.permuted(drawn, axis=1)
            means = bootstrap_means(rng, data, resamples)
            low, high = percentile_interval(optimum(rates, means)[0], worlds=len(data))
            held += low <= truth <= high
            errors.append(abs(np.log(float(optimum(rates, data.mean(axis=0))[0]) / truth)))
        share, least, most = share_interval(held, trials)
        rows.append((
            name, number(truth, 2), interval_text(100 * share, 100 * least, 100 * most),
            number(float(np.exp(np.median(errors)))),
        ))  # fmt: skip
    return Table(
        f"Coverage of the 95 % interval in {trials} data sets of each curve, with the measured worlds' deviations",
        ("curve", "known optimum", "coverage, %", "median error, factor"), rows,
    )  # fmt: skip


def _curves(rates: Numbers) -> list[tuple[str, float, Numbers]]:
    """Curves with a known optimum, of height 1: a parabola in ln(rate), and a gain that saturates less a load."""
    x, found = np.log(rates), []
    for truth in (0.2, 0.45):
        parabola = -((x - np.log(truth)) ** 2)
        saturating = 1.0 - np.exp(-rates / _SATURATES) - np.exp(-truth / _SATURATES) / _SATURATES * rates
        for name, curve in (("parabola in ln(rate)", parabola), ("gain that saturates, less a load", saturating)):
            found.append((name, truth, curve / np.ptp(curve)))
    return found
