"""Calibration of the study ``control``: the controller and the measures on processes whose answer is known."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.studies.intervals import mean_interval, share_interval
from astrocyte.pipeline.studies.loop_measures import measure_loop
from astrocyte.pipeline.studies.report import Table, interval_text, number
from astrocyte.pipeline.studies.shipped.control_cells import BAND, CONTROLLER, bias_text
from astrocyte.pipeline.studies.steered import Governor, SteeredCells
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["known_loops"]

_SENSITIVITIES: Final = (0.4, 0.8, 1.2)
_SECONDS: Final = 90
_TICKS: Final = 100
_NOISE: Final = 0.015
"""Standard deviation of the accuracy of a second in worlds of cells."""
_START: Final = 0.25


def known_loops(run: StudyRun) -> tuple[Table, float]:
    """Loops around processes that are exactly logistic, and the share of them whose intervals hold no bias.

    The log-odds of the error of such a loop shrink by 1 - share * slope / sensitivity a second, so that the time to the
    band has a closed form, but for the delay.
    """
    trials = 20 if run.quick else 100
    rng = run.random("known")
    rows, held, total = [], 0, 0
    for slope in _SENSITIVITIES:
        accuracy = _loops(rng, slope, trials)
        found = measure_loop(accuracy, target=CONTROLLER.target, band=BAND, at=0, last=20)
        rows.append((
            number(slope), number(_theory_s(slope)),
            interval_text(*mean_interval(found.settling_s, low=0.0, high=float(_SECONDS)), digits=3),
            bias_text(found.bias), number(float(found.overshoot.max()), 2),
        ))  # fmt: skip
        held += int((np.abs(found.bias) <= CONTROLLER.deadband + 3 * _NOISE / 20**0.5).sum())
        total += trials
    share, low, high = share_interval(held, total)
    table = Table(
        f"The controller on {trials} exactly logistic processes of each slope, with noise of {_NOISE:g} a second (it "
        f"takes the slope to be {CONTROLLER.sensitivity:g}; within the deadband in "
        f"{interval_text(100 * share, 100 * low, 100 * high)} %)",
        ("slope", "settling time by theory, s", "measured, s", "bias at the end", "largest overshoot"),
        rows,
    )
    return table, share


def _loops(rng: np.random.Generator, slope: float, trials: int) -> NDArray[np.float64]:
    """Accuracy by second [trials, seconds] of controlled processes that begin at `_START`."""
    governors = [Governor(CONTROLLER, "difficulty", 1_000_000) for _ in range(trials)]
    loop = SteeredCells(governors, [1] * trials, tick_us=10_000)
    log_difficulty = np.zeros(trials)
    out = np.empty((trials, _SECONDS))
    for second in range(_SECONDS):
        odds = math.log(_START / (1 - _START)) - slope * log_difficulty
        out[:, second] = 1.0 / (1.0 + np.exp(-odds)) + _NOISE * rng.standard_normal(trials)
        for world, _, values in loop(0, (second + 1) * _TICKS, {"accuracy": out[:, second : second + 1]}):
            log_difficulty[world] = math.log(values["difficulty"])
    return out


def _theory_s(slope: float) -> float:
    """Seconds until the log-odds of the accuracy are within the band, after one of measuring and one of delay."""
    share = CONTROLLER.share(1.0, 1.0) * slope / CONTROLLER.sensitivity
    low = CONTROLLER.target - BAND
    first, last = (math.log(CONTROLLER.target / (1 - CONTROLLER.target)) - math.log(a / (1 - a)) for a in (_START, low))
    return 2.0 + math.log(last / first) / math.log(1.0 - share)
