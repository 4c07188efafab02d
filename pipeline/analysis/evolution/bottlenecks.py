"""Bottlenecks: falls of the population and of its diversity, what was lost, and how long recovery took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.insight import Diversity
from astrocyte.pipeline.analysis.evolution.dashboard import family_tree
from astrocyte.pipeline.analysis.evolution.history import EVENTS, METRICS, History
from astrocyte.pipeline.analysis.evolution.records import table_of
from astrocyte.pipeline.analysis.phylogeny.loops import mark_ancestors
from astrocyte.pipeline.analysis.phylogeny.population import Population
from astrocyte.pipeline.analysis.phylogeny.records import InvalidLineage
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Bottleneck", "Bottlenecks", "detect_bottlenecks", "falls"]

_SQRT_2: Final = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One fall, from the highest value before it; times in microseconds since 1970."""

    of: str
    """``population``: living individuals; ``diversity``: effective trait classes, exp of ``genome_diversity``."""
    start_us: int
    """Last time of the highest value before it."""
    low_us: int
    recovered_us: int | None
    """When half of the fall's least depth was made good; None if that did not come within the run."""
    before: float
    low: float
    lost: float
    """Share of ``before`` that was lost at the low."""
    p: float
    """At most the probability of such a fall by the ordinary changes of this run alone."""
    effective_size: float | None
    """Of the window with the low."""
    lineages_before: int | None
    """Founders who live or have living descendants at ``start_us``; None where births are missing or cannot be."""
    lineages_after: int | None
    """The same at ``low_us``."""


@dataclass(frozen=True, slots=True)
class Bottlenecks:
    """What `detect_bottlenecks` found, in order of time."""

    found: tuple[Bottleneck, ...]
    depth: float
    diversity_depth: float
    level: float
    mean_population: float | None
    """Arithmetic mean of the population over the run."""
    harmonic_mean_population: float | None
    """Harmonic mean: the effective size of a population whose size changes (Wright 1938)."""

    def table(self) -> pa.Table:
        """A row for each bottleneck."""
        return table_of(Bottleneck, self.found)


def detect_bottlenecks(
    history: History,
    *,
    depth: float = 0.5,
    diversity_depth: float = 0.2,
    level: float = 0.05,
    time_window: str | int = "1s",
    within: str | int | None = None,
) -> Bottlenecks:
    """Falls of the population by ``depth`` or more, and of its diversity by ``diversity_depth``, unlikely by chance.

    They happen ``within`` a span of time, by default a tenth of the run, and are reported if their ``p`` (see `falls`)
    is at most ``level``. Lineages are counted in the tree of all births at the two instants themselves; the effective
    size is that of the statistic `astrocyte.insight.Diversity` in windows of ``time_window``, and depends on it. Raises
    NotEnoughData and InvalidSettings.
    """
    for name, value in (("depth", depth), ("diversity_depth", diversity_depth), ("level", level)):
        if not 0.0 < value < 1.0:
            raise InvalidSettings(f"bottlenecks: {name} {value}; expected more than 0 and less than 1")
    history.require(METRICS)
    times = history.frames[METRICS].timestamps()
    span_us = history.window_us(max((history.end_us - history.begin_us) // 10, 1) if within is None else within)
    span_us = max(span_us, 2 * history.spacing_us(METRICS))
    population = history.column(METRICS, "total_population")
    found = [("population", each) for each in falls(times, population, depth=depth, level=level, within_us=span_us)]
    diversity = np.exp(history.column(METRICS, "genome_diversity"))
    found += [
        ("diversity", each) for each in falls(times, diversity, depth=diversity_depth, level=level, within_us=span_us)
    ]
    windows = _windows_of_lineages(history, time_window)
    everyone = _everyone(history) if found else None
    bottlenecks = [
        Bottleneck(
            of=of, **fall, effective_size=_effective_size(windows, fall["low_us"]),
            lineages_before=_lineages_at(everyone, fall["start_us"]),
            lineages_after=_lineages_at(everyone, fall["low_us"]),
        )
        for of, fall in found
    ]  # fmt: skip
    alive = population[np.isfinite(population)]
    harmonic = None if not len(alive) else 0.0 if alive.min() <= 0 else float(len(alive) / (1.0 / alive).sum())
    return Bottlenecks(
        tuple(sorted(bottlenecks, key=lambda each: (each.start_us, each.of))), depth, diversity_depth, level,
        float(alive.mean()) if len(alive) else None, harmonic,
    )  # fmt: skip


def falls(
    times: NDArray[np.int64], values: NDArray[np.float64], *, depth: float, level: float, within_us: int
) -> list[dict[str, Any]]:
    """Falls of a series of values [n] from 0 on, by a share of ``depth`` or more within a span of time.

    A fall begins at the last of the highest values in the span before, but not before the last recovery. It has ended
    when half of ``depth`` is made good; until then, the lowest value is the low.
    ``p`` is the probability that a random walk of the logarithm with this series' ordinary steps falls so far in the
    same number of steps, 2 Phi(-d / (s sqrt(k))) by the reflection principle, times the number of places where it could
    begin; s comes from the median of the steps' absolute deviations, on which the fall itself has no influence.
    """
    known = np.isfinite(values) & (values >= 0)
    times, values = times[known], values[known]
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    with np.errstate(divide="ignore"):
        logs = np.log(values)
    steps = np.diff(logs[np.isfinite(logs)])
    if len(steps) < 2:
        return []
    s = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) or float(steps.std()) or 1e-12
    fall, recovery = -math.log1p(-depth), -math.log1p(-depth / 2.0)
    found: list[dict[str, Any]] = []
    top = 0
    low: int | None = None
    for at in range(len(logs)):
        if low is None:
            if logs[at] >= logs[top]:
                top = at
            elif times[at] - times[top] > within_us:
                first = max(int(np.searchsorted(times, times[at] - within_us)), top + 1)
                top = at - int(np.argmax(logs[first : at + 1][::-1]))
            if logs[at] <= logs[top] - fall:
                low = at
        if low is not None:
            if logs[at] < logs[low]:
                low = at
            recovered = logs[at] >= logs[top] - recovery
            if recovered or at == len(logs) - 1:
                found.append(_fall(times, values, s, (top, low, at if recovered else None)))
                top, low = at, None
    return [each for each in found if each["p"] <= level]


def _fall(
    times: NDArray[np.int64], values: NDArray[np.float64], s: float, places: tuple[int, int, int | None]
) -> dict[str, Any]:
    top, low, recovered = places
    lost = 1.0 - float(values[low] / values[top])
    distance = -math.log1p(-lost) if lost < 1.0 else math.inf
    chance = math.erfc(distance / (s * math.sqrt(low - top)) / _SQRT_2)  # twice the normal tail
    return {
        "start_us": int(times[top]),
        "low_us": int(times[low]),
        "recovered_us": None if recovered is None else int(times[recovered]),
        "before": float(values[top]),
        "low": float(values[low]),
        "lost": lost,
        "p": min(chance * len(values), 1.0),
    }


def _windows_of_lineages(history: History, time_window: str | int) -> list[dict[str, Any]]:
    if not history.count(EVENTS):
        return []
    table = history.results(Diversity(windows=history.windows(time_window), traits=()))
    return [row for row in table.to_pylist() if row["subject"] == "lineage"]


def _effective_size(windows: list[dict[str, Any]], time_us: int) -> float | None:
    sizes = [each["effective_size"] for each in windows if each["window_start"] <= time_us < each["window_end"]]
    return sizes[0] if sizes else None


def _everyone(history: History) -> Population | None:
    try:
        found = family_tree(history, prune=False)
    except InvalidLineage:  # a fall is one without its lineages too; who asks for the tree gets the reason
        return None
    return None if found is None else found.everyone


def _lineages_at(everyone: Population | None, time_us: int) -> int | None:
    """Founders who live or have living descendants once all that happened at an instant has happened."""
    if everyone is None:
        return None
    # Founders have no event of their birth: they have lived since before the first event.
    founder = everyone.first < 0
    alive = ((everyone.origin_us <= time_us) | (founder & ~everyone.born)) & (everyone.died_us > time_us)
    mark_ancestors(everyone.first, np.full_like(everyone.first, -1), alive)
    return int((alive & founder).sum())
