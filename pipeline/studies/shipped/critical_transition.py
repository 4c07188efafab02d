"""How early warnings announce a planted transition, and how often they come without one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight import EarlyWarning, Windows
from astrocyte.agents.insight.rows import Rows
from astrocyte.agents.insight.series import POPULATION, kendall_tau
from astrocyte.agents.insight.statistic import Window
from astrocyte.pipeline.studies.cells import BASE, FOUNDERS_TEXT, cells_founders, cells_observed, founded
from astrocyte.pipeline.studies.intervals import percentile_interval, share_interval
from astrocyte.pipeline.studies.report import Report, Table, interval_text, number
from astrocyte.pipeline.studies.study import StudyRun

__all__ = ["area_under_curve", "study"]

Numbers = NDArray[np.float64]
_HAZARD: Final = (0.012, 0.034)
"""Probability of death per tick at the start and at the end; births cannot keep up with more than about 0.027."""
_SUPPLY: Final = (0.3, 0.15)
_FIELD: Final = "total_population"
_COLLAPSED: Final = 0.5
"""Share of the population before the change below which the transition has happened."""
_LEVEL: Final = 0.05
_ARMS: Final = ("approaching", "quiet", "declining")


def area_under_curve(positive: Numbers, negative: Numbers) -> float:
    """Area under the ROC curve: probability that a positive score is above a negative one, ties counted half."""
    difference = positive[:, None] - negative[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def study(run: StudyRun) -> Report:
    """Early warnings of the population, in windows that end some time before each collapse, and in worlds without one."""
    seeds = run.seeds_or(40, 6)
    every, settling, ramp = (10, 10, 60) if run.quick else (25, 24, 176)
    width, leads = (40, (10, 5)) if run.quick else (64, (40, 24, 12, 4))
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
    start = population[:, :, settling // 2 : settling].mean(axis=2, keepdims=True)
    below = population[0] < _COLLAPSED * start[0]
    collapsed = np.flatnonzero(below.any(axis=1))
    ends = below[collapsed].argmax(axis=1)
    early = EarlyWarning(
        windows=Windows(width * every), fields=(_FIELD,), resamples=39 if run.quick else 99, level=_LEVEL
    )
    # In every arm the same windows: those that end some time before the collapse of the approaching world of the seed.
    scored = {
        lead: np.array([
            [_signals(early, population[arm, world], end - lead, width) for arm in range(len(_ARMS))]
            for world, end in zip(collapsed, ends, strict=True)
            if end - lead - width >= settling // 2
        ]).reshape(-1, len(_ARMS), 3)
        for lead in leads
    }  # fmt: skip
    rows = [_row(run, lead * every, scores) for lead, scores in scored.items()]
    shortest = scored[leads[-1]]
    step = max(width // 8, 1)
    first = [_first_warnings(early, population[:, world], int(end), width, step, settling) for world, end in
             zip(collapsed, ends, strict=True)]  # fmt: skip
    warned = [int(sum(each[arm] is not None for each in first)) for arm in range(len(_ARMS))]
    lead_times = np.array(
        [(end - each[0]) * every for each, end in zip(first, ends, strict=True) if each[0] is not None]
    )
    area, low, high = _area(run, "answer", shortest, 1, 0)
    median = float(np.median(lead_times)) if len(lead_times) else np.nan
    spread = tuple(np.quantile(lead_times, (0.25, 0.75))) if len(lead_times) else (np.nan, np.nan)
    total = len(collapsed)
    quiet_false = share_interval(int(sum((each[:, 1, 0] <= _LEVEL).sum() for each in scored.values())),
                                 sum(len(each) for each in scored.values()))  # fmt: skip
    names = ("area under ROC: approaching against quiet", "against declining", "the fall itself, against quiet",
             "against declining ")  # fmt: skip
    return Report(
        title="Early warnings of a critical transition",
        question="How long before a population's collapse do rising variance and autocorrelation announce it, and how "
        "often do they in worlds that do not collapse?",
        answer=f"{leads[-1] * every} ticks before the collapse the area under the ROC curve is "
        f"{interval_text(area, low, high)} against quiet worlds. {warned[0]} of {total} collapses were announced, "
        f"{number(median)} ticks ahead in the median (quartiles {number(spread[0])} and {number(spread[1])}); by the same "
        f"rule {warned[1]} of {total} quiet and {warned[2]} of {total} declining worlds gave a false alarm.",
        method=(
            f"Three kinds of worlds of cells, {len(seeds)} of each with the same seeds, {ticks:,} ticks; nothing mutates. "
            f"{FOUNDERS_TEXT} *Approaching*: from tick {change[0]} the probability of death rises evenly from "
            f"{_HAZARD[0]} until births cannot keep up, which is a transcritical bifurcation: the rate at which the "
            "population returns to its equilibrium falls to 0. *Quiet*: nothing changes. *Declining*: the supply of energy "
            "falls to a half, so the population falls as well, and nothing is near.",
            f"Population every {every} ticks, `astrocyte.insight.EarlyWarning` over windows of {width} values. A world has "
            f"collapsed below {100 * _COLLAPSED:.0f} % of its population before the change ({total} of {len(seeds)} did). "
            "For every lead, the windows of all three kinds end that long before the collapse of the approaching world of "
            "their seed. The score is the smaller of both taus. In comparison, the fall of the population itself: minus "
            "Kendall's tau of the values.",
            f"A collapse is announced by the first of two warnings (p of at most {_LEVEL}) in a row, of windows that end "
            f"every {step * every} ticks from the change on. Intervals of areas: bootstrap over seeds, 95 %.",
        ),
        results=(
            Table(
                "Windows that end some time before the collapse",
                ("ticks before", "worlds", "warned of approaching", "of quiet", "of declining", *names), rows,
            ),
            Table(
                "First two warnings in a row from the change to the collapse",
                ("worlds", "warned", "share (95 % interval), %"),
                [(arm, f"{warned[k]} of {total}",
                  interval_text(*(100 * each for each in share_interval(warned[k], total)))) for k, arm in enumerate(_ARMS)],
            ),
            _curve(shortest),
        ),
        calibration=(
            f"In quiet worlds a window gave a warning in {interval_text(*(100 * each for each in quiet_false))} % of the "
            f"cases; at most {100 * _LEVEL:.0f} % is stated (both taus have to be large).",
            "Declining worlds fall without any loss of stability: what the score cannot tell from them, it takes from the fall "
            "and not from the transition.",
        ),
        limits=(
            "One transition, of one kind, approached at one speed. A sudden one has no warning.",
            "The fall of the population alone tells an approaching world from a quiet one; warnings are worth most where a "
            "decline has to be told from a transition.",
            "As the population gets small its variance falls with it, which hides the rise that the transition brings.",
        ),
    )  # fmt: skip


def _signals(early: EarlyWarning, series: Numbers, end: int, width: int) -> tuple[float, float, float]:
    """P of a warning, the score, and the score of the fall itself, in the window of values that ends before ``end``."""
    values = series[end - width : end]
    times = np.arange(end - width, end, dtype=np.int64)
    nothing = np.zeros(width, np.int64)
    rows = Rows(times, nothing.astype(np.int32), nothing.astype(np.int8), nothing, {_FIELD: values})
    # The window's random numbers follow its end and its run, so each world is a run of its own.
    window = Window(f"{POPULATION}-{values.sum():.0f}", end - width, end)
    _, (found,) = early.step(window, [rows], {})
    if found["p"] is None:
        return 1.0, -1.0, -1.0
    fall = -float(kendall_tau(values))
    return found["p"], min(found["variance_tau"], found["autocorrelation_tau"]), 0.0 if np.isnan(fall) else fall


def _first_warnings(
    early: EarlyWarning, population: Numbers, end: int, width: int, step: int, settling: int
) -> list[int | None]:
    """For each arm the end of the first of two windows in a row that warn before ``end``; None if there are none."""
    found: list[int | None] = []
    for series in population:
        before = False
        first: int | None = None
        for until in range(max(width + settling // 2, settling + step), end + 1, step):
            warns = _signals(early, series, until, width)[0] <= _LEVEL
            if warns and before:
                first = until - step
                break
            before = warns
        found.append(first)
    return found


def _area(run: StudyRun, name: str, scores: Numbers, negative: int, offset: int) -> tuple[float, float, float]:
    """Area under the ROC curve of approaching worlds against those of an arm, and its interval over seeds."""
    if len(scores) < 3:
        return np.nan, np.nan, np.nan
    column = 1 + offset
    rng = run.random("area", name)
    area = area_under_curve(scores[:, 0, column], scores[:, negative, column])
    drawn = []
    for _ in range(200 if run.quick else 1_000):
        chosen = scores[rng.integers(0, len(scores), len(scores))]
        drawn.append(area_under_curve(chosen[:, 0, column], chosen[:, negative, column]))
    return area, *percentile_interval(np.array(drawn))


def _row(run: StudyRun, lead: int, scores: Numbers) -> tuple[Any, ...]:
    warned = [
        f"{100 * (scores[:, arm, 0] <= _LEVEL).mean():.0f} %" if len(scores) else "-" for arm in range(len(_ARMS))
    ]
    areas = [
        interval_text(*_area(run, f"{lead}-{arm}-{offset}", scores, arm, offset), digits=2)
        for offset in (0, 1) for arm in (1, 2)
    ]  # fmt: skip
    return lead, len(scores), *warned, *areas


def _curve(scores: Numbers) -> Table:
    """Points of the ROC curve against quiet worlds: false alarms, and collapses that are announced."""
    rows = []
    for false in (0.0, 0.05, 0.1, 0.2, 0.5):
        if not len(scores):
            break
        # The least score that exceeds all but that share of the quiet worlds.
        least = np.quantile(scores[:, 1, 1], 1.0 - false, method="higher")
        hits = [float((scores[:, 0, column] > np.quantile(scores[:, 1, column], 1.0 - false, method="higher")).mean())
                for column in (1, 2)]  # fmt: skip
        rows.append((f"{100 * false:.0f} %", number(float(least)), *(f"{100 * each:.0f} %" for each in hits)))
    return Table(
        "ROC curve at the shortest lead, against quiet worlds",
        ("false alarms", "least score", "announced by the score", "by the fall itself"),
        rows,
    )
