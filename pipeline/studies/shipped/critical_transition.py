"""How early warnings announce a planted transition, and how often they come without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight import EarlyWarning, Windows
from astrocyte.agents.insight.rows import Rows
from astrocyte.agents.insight.series import kendall_tau
from astrocyte.agents.insight.statistic import Window
from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import percentile_interval, share_interval
from astrocyte.pipeline.studies.report import Report, Table, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["area_under_curve", "fold_series", "study"]

Numbers = NDArray[np.float64]
_HAZARD: Final = (0.012, 0.034)
"""Probability of death per tick at the start and at the end; births cannot keep up with more than about 0.027."""
_SUPPLY: Final = (0.3, 0.15)
_FIELD: Final = "population"
_COLLAPSED: Final = 0.5
"""Share of the population before the change below which the transition has happened."""
_LEVEL: Final = 0.05
_ARMS: Final = ("approaching", "quiet", "declining")
_SCORES: Final = ("both rise", "variance", "autocorrelation", "fall of the population")
"""Scores of a window: the smaller of both taus, each tau, and minus the tau of the values themselves."""
_BOTH, _AUTOCORRELATION = 0, 2


def area_under_curve(positive: Numbers, negative: Numbers) -> float:
    """Area under the ROC curve: probability that a positive score is above a negative one, ties counted half."""
    difference = positive[:, None] - negative[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def study(run: StudyRun) -> Report:
    """Early warnings in windows that end some time before each collapse, and in worlds without one."""
    seeds = run.seeds_or(32, 6)
    every, settling, ramp = (10, 10, 60) if run.quick else (25, 24, 176)
    width, leads = (40, (10, 4)) if run.quick else (96, (40, 20, 10, 4))
    ticks, change = (settling + ramp) * every, (settling * every, (settling + ramp) * every)
    quiet = run.config("cells", BASE, {"evolves": (), "hazard": _HAZARD[0], "supply": _SUPPLY[0]})
    after = {
        "approaching": quiet.model_copy(update={"hazard": 0.06 if run.quick else _HAZARD[1]}),
        "quiet": None,
        "declining": quiet.model_copy(update={"supply": _SUPPLY[1]}),
    }
    worlds = [founded(quiet, seed, then=after[arm], change=change) for arm in _ARMS for seed in seeds]
    found = run.worlds(
        "cells", worlds, ticks=ticks, every=every, observe=cells_observed, founders=cells_founders, what="three kinds"
    )
    population = found["population"].astype(np.float64).reshape(len(_ARMS), len(seeds), -1)
    before = population[0, :, settling // 2 : settling].mean(axis=1, keepdims=True)
    # The last time above: founders' first ticks, and a chance return, are no collapse.
    ends = population.shape[2] - (population[0] >= _COLLAPSED * before)[:, ::-1].argmax(axis=1)
    collapsed = np.flatnonzero(ends < population.shape[2])
    early = EarlyWarning(
        windows=Windows(width), fields=(_FIELD,), resamples=39 if run.quick else 99, level=_LEVEL
    )  # fmt: skip
    # In every arm the same windows: those that end some time before the collapse of the approaching world of the seed.
    windows = {
        lead: [(world, int(ends[world]) - lead) for world in collapsed if ends[world] - lead - width >= 0]
        for lead in leads
    }
    scored = {
        lead: np.array([
            [_window(early, population[arm, world], end, width, f"{arm}-{seeds[world]}") for arm in range(len(_ARMS))]
            for world, end in places
        ]).reshape(-1, len(_ARMS), 2 + len(_SCORES))
        for lead, places in windows.items()
    }  # fmt: skip
    areas = [row for lead, scores in scored.items() for row in _area_rows(run, lead * every, scores)]
    shown = leads[1]
    answer = {score: _area(run, f"answer-{score}", scored[shown], 1, 2 + k) for k, score in enumerate(_SCORES)}
    against = _area(run, "answer-declining", scored[shown], 2, 2 + _AUTOCORRELATION)
    fall = _area(run, "answer-fall", scored[shown], 2, 2 + 3)
    firsts, step = _announced(early, population, ends, collapsed, width=width, first=settling, seeds=seeds)
    times = [(int(end) - each[0]) * every for each, end in zip(firsts, ends[collapsed], strict=True) if each[0] >= 0]
    median, low, high = np.quantile(times, (0.5, 0.25, 0.75)) if times else (np.nan, np.nan, np.nan)
    warned = [sum(each[arm] >= 0 for each in firsts) for arm in range(len(_ARMS))]
    total = len(collapsed)
    every_score = np.concatenate(list(scored.values()))
    false = [share_interval(int((every_score[:, 1, k] <= _LEVEL).sum()), len(every_score)) for k in (0, 1)]
    return Report(
        title="Early warnings of a critical transition",
        question="How long before a population's collapse do rising variance and autocorrelation announce it, and how "
        "often do they in worlds that do not collapse?",
        answer=f"{shown * every} ticks before the collapse, rising autocorrelation tells approaching from quiet "
        f"worlds with "
        f"an area under the ROC curve of {interval_text(*answer['autocorrelation'], 2)}, and from worlds that only "
        f"decline "
        f"with {interval_text(*against, 2)}, where the fall of the population itself has {interval_text(*fall, 2)}. "
        f"Rising "
        f"variance has {interval_text(*answer['variance'], 2)} and the requirement that both rise "
        f"{interval_text(*answer['both rise'], 2)} against quiet worlds. {warned[0]} of {total} collapses were "
        f"announced by "
        f"autocorrelation, {number(median)} ticks ahead in the median (quartiles {number(low)} and {number(high)}); "
        f"by the "
        f"same rule {warned[1]} of {total} quiet and {warned[2]} of {total} declining worlds gave a false alarm.",
        method=(
            f"Three kinds of worlds of cells, {len(seeds)} of each with the same seeds, {ticks:,} ticks; nothing "
            f"mutates. "
            f"{FOUNDERS_TEXT} *Approaching*: from tick {change[0]} the probability of death rises evenly from "
            f"{_HAZARD[0]} until births cannot keep up, a transcritical bifurcation: the rate at which the population "
            "returns to its equilibrium falls to 0. *Quiet*: nothing changes. *Declining*: the supply of energy "
            "falls to a "
            "half, so that the population falls as well, and no transition is near.",
            f"Population every {every} ticks; `astrocyte.insight.EarlyWarning` over windows of {width} values. A world "
            f"collapses when its population falls for good below {100 * _COLLAPSED:.0f} % of that before the change "
            f"({total} of {len(seeds)} did). For every lead, the windows of all kinds end that long before the "
            f"collapse of "
            "the approaching world of their seed. Scores: Kendall's tau of the rolling variance, that of the rolling "
            "autocorrelation, the smaller of both, and for comparison the fall of the population (minus tau of its "
            "values).",
            f"A collapse is announced by the first of two windows in a row, of those that end every {step * every} "
            f"ticks, "
            f"in which autocorrelation rises (p of at most {_LEVEL}). Intervals of areas: bootstrap over seeds, 95 %.",
        ),
        results=(
            Table("Area under the ROC curve, by time before the collapse (0.5: no better than chance)",
                  ("ticks before", "worlds", "against", *_SCORES), areas),
            Table("First two windows in a row that warn by autocorrelation, from the change to the collapse",
                  ("worlds", "warned", "share (95 % interval), %"),
                  [(arm, f"{count} of {total}", _percent(share_interval(count, total)))
                   for arm, count in zip(_ARMS, warned, strict=True)]),
            _curve(scored[shown], shown * every),
        ),
        calibration=(
            f"False alarms of a single window in quiet worlds, at the stated level of {100 * _LEVEL:.0f} %: both rise "
            f"{_percent(false[0])} %, autocorrelation {_percent(false[1])} %. Windows of one world overlap, so the "
            f"intervals "
            "are too narrow.",
            _fold_table(run, early, width),
        ),
        limits=(
            "In a transcritical transition the population gets small before it collapses, and the variance of small "
            "numbers "
            "is small: variance falls where theory for large populations lets it rise. Before a fold (see the "
            "calibration) both rise.",
            "One transition of one kind, approached at one speed. A sudden one has no warning.",
            "The fall of the population alone tells approaching from quiet worlds best. Autocorrelation is worth its "
            "cost "
            "where a decline has to be distinguished from a transition.",
        ),
    )  # fmt: skip


def _window(early: EarlyWarning, series: Numbers, end: int, width: int, name: str) -> tuple[float, ...]:
    """P that both rise and p of autocorrelation, then `_SCORES`, in the window that ends before value ``end``."""
    values = series[end - width : end]
    nothing = np.zeros(width, np.int64)
    rows = Rows(
        np.arange(end - width, end), nothing.astype(np.int32), nothing.astype(np.int8), nothing, {_FIELD: values}
    )
    # Random numbers follow run and window, so each world is a run of its own.
    _, (found,) = early.step(Window(name, end - width, end), [rows], {})
    if found["p"] is None:
        return 1.0, 1.0, -1.0, -1.0, -1.0, 0.0
    variance, autocorrelation = found["variance_tau"], found["autocorrelation_tau"]
    fall = -float(kendall_tau(values))
    return (
        found["p"], found["autocorrelation_p"], min(variance, autocorrelation), variance, autocorrelation,
        0.0 if np.isnan(fall) else fall,
    )  # fmt: skip


def _announced(
    early: EarlyWarning, population: Numbers, ends: NDArray[np.int64], collapsed: NDArray[np.int64], *, width: int,
    first: int, seeds: Sequence[int],
) -> tuple[list[list[int]], int]:  # fmt: skip
    """For each world that collapses and each arm the end of the first of two windows in a row that warn, else -1.

    Also the distance of the windows' ends.
    """
    step = max(width // 12, 1)
    found = []
    for world in collapsed:
        row = []
        for arm in range(len(_ARMS)):
            before, warned = False, -1
            for until in range(max(width, first + step), int(ends[world]) + 1, step):
                values = _window(early, population[arm, world], until, width, f"{arm}-{seeds[world]}")
                warns = values[1] <= _LEVEL
                if warns and before:
                    warned = until - step
                    break
                before = warns
            row.append(warned)
        found.append(row)
    return found, step


def _area(run: StudyRun, name: str, scores: Numbers, negative: int, column: int) -> tuple[float, float, float]:
    """Area under the ROC curve of approaching worlds against those of an arm, and its interval over seeds."""
    if len(scores) < 3:
        return np.nan, np.nan, np.nan
    rng = run.random("area", name)
    drawn = []
    for _ in range(200 if run.quick else 1_000):
        chosen = scores[rng.integers(0, len(scores), len(scores))]
        drawn.append(area_under_curve(chosen[:, 0, column], chosen[:, negative, column]))
    area = area_under_curve(scores[:, 0, column], scores[:, negative, column])
    return area, *percentile_interval(np.array(drawn))


def _area_rows(run: StudyRun, lead: int, scores: Numbers) -> list[tuple[str | int, ...]]:
    return [
        (lead, len(scores), _ARMS[arm],
         *(interval_text(*_area(run, f"{lead}-{arm}-{k}", scores, arm, 2 + k), 2) for k in range(len(_SCORES))))
        for arm in (1, 2)
    ]  # fmt: skip


def _curve(scores: Numbers, lead: int) -> Table:
    """Points of the ROC curves: false alarms, and collapses that are announced."""
    rows = []
    for false in (0.05, 0.1, 0.2, 0.5) if len(scores) else ():
        row = [f"{100 * false:.0f} %"]
        for arm in (1, 2):
            for column in (2 + _BOTH, 2 + _AUTOCORRELATION):
                least = np.quantile(scores[:, arm, column], 1.0 - false, method="higher")
                row.append(f"{100 * float((scores[:, 0, column] > least).mean()):.0f} %")
        rows.append(row)
    return Table(
        f"ROC curve {lead} ticks before the collapse: collapses announced at a rate of false alarms",
        ("false alarms", "both, against quiet", "autocorrelation, against quiet", "both, against declining",
         "autocorrelation, against declining"),
        rows,
    )  # fmt: skip


def _percent(shares: tuple[float, float, float]) -> str:
    return interval_text(100 * shares[0], 100 * shares[1], 100 * shares[2])


def fold_series(rng: np.random.Generator, count: int, n: int, last: float) -> Numbers:
    """Series [count, n] of a grazed resource (May 1977, Nature 269:471) whose grazing rises evenly from 1 to ``last``.

    dx = (x (1 - x / 10) - c x^2 / (x^2 + 1)) dt + 0.25 dW; at c = 2.604 the upper equilibrium vanishes in a fold.
    """
    dt, inner = 0.05, 40
    x = np.full(count, 8.9)
    made = np.empty((count, n))
    for sample in range(n):
        grazing = 1.0 + (last - 1.0) * sample / n
        for _ in range(inner):
            drift = x * (1.0 - x / 10.0) - grazing * x * x / (x * x + 1.0)
            x = np.maximum(x + drift * dt + 0.25 * dt**0.5 * rng.standard_normal(count), 0.0)
        made[:, sample] = x
    return made


def _fold_table(run: StudyRun, early: EarlyWarning, width: int) -> Table:
    """The same detector on a transition whose theory is known."""
    count = 12 if run.quick else 60
    series = [fold_series(run.random("fold", str(last)), count, width, last) for last in (2.4, 1.0)]
    scores = np.array([
        [_window(early, each[world], width, width, f"fold-{arm}-{world}") for arm, each in enumerate(series)]
        for world in range(count)
    ])  # fmt: skip
    warned = [
        (name, *(f"{100 * (scores[:, arm, k] <= _LEVEL).mean():.0f} %" for k in (0, 1)),
         *(interval_text(*_area(run, f"fold-{k}", scores, 1, 2 + k), 2) if arm == 0 else "-" for k in range(3)))
        for arm, name in enumerate(("grazing rises to 2.4 (fold at 2.604)", "constant grazing"))
    ]  # fmt: skip
    return Table(
        f"The same detector on {count} simulated series of {width} values of a grazed resource (May 1977)",
        ("series", "warned: both rise", "warned: autocorrelation", *(f"area: {score}" for score in _SCORES[:3])),
        warned,
    )
