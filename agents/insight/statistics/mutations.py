"""Effects of mutations: their distribution, the share that is beneficial, and what they do to realised fitness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.distributions import benjamini_hochberg, t_p, wilson_interval
from astrocyte.agents.insight.followed import Followed
from astrocyte.agents.insight.rows import NO_ID, Rows, Source, one_of_each
from astrocyte.agents.insight.statistic import State, Window
from astrocyte.agents.insight.statistics.selection import gradients
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["Contrast", "Mutations", "contrast"]

_QUANTILES: Final = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

RESULT: Final = RESULTS["mutations"]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Ratio of two means less 1, its standard error, and p of Welch's test that the means are equal."""

    ratio: float
    se: float
    p: float


def contrast(one: NDArray[np.float64], other: NDArray[np.float64]) -> Contrast | None:
    """Mean of ``one`` divided by that of ``other``, less 1 (error by the delta method; Welch 1947 for p).

    None with fewer than two of either, without variation, or if the mean of the others is 0.
    """
    if len(one) < 2 or len(other) < 2 or other.mean() == 0:
        return None
    first, second = (each.var(ddof=1) / len(each) for each in (one, other))
    if first + second == 0:
        return None
    ratio = one.mean() / other.mean()
    se = sqrt(first + ratio * ratio * second) / abs(other.mean())
    df = (first + second) ** 2 / (first**2 / (len(one) - 1) + second**2 / (len(other) - 1))
    return Contrast(float(ratio - 1.0), float(se), t_p(float((one.mean() - other.mean()) / sqrt(first + second)), df))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutations(Followed):
    """Effects of mutations, by run and window, from births and deaths, which must be complete.

    A birth has a mutation if its field ``size`` is above 0. Its effects are those that stand in its fields ``effects``,
    above 0 where they are good, and the changes of ``traits`` from parent to child, where both are in the sample
    ``stream`` of the window (such effects have no better direction, and no share that is beneficial). Newborns of the
    window's part before ``follow_us`` are followed for that long; fitness is their births, plus 1 for survival. The p
    of all tests of a window are corrected together (Benjamini and Hochberg). Intervals have confidence ``1 - level``.
    O(n log n) in the rows of a window.
    """

    effects: tuple[str, ...] = ("fitness_delta",)
    size: str = "mutation_magnitude"
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["mutations"]
    carries_state: bool = False

    def __post_init__(self) -> None:
        """Settings that make sense. Raises InvalidSettings."""
        self.check("mutations")
        source = self.fates(tuple(dict.fromkeys((self.size, *self.effects))))
        object.__setattr__(self, "sources", (source, self.observed()) if self.traits else (source,))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each effect, none without births."""
        births = rows[0].take(rows[0].kind == 0)
        if not len(births):
            return state, []
        mutated = births[self.size] > 0
        newborn = np.flatnonzero((births.t < window.end_us - self.follow_us) & (births[self.child] != NO_ID))
        newborn = newborn[one_of_each(births[self.child][newborn])]
        followed = births.take(newborn)
        fitness = self.fitness(followed[self.child], followed.t, rows[0])
        cost = contrast(fitness[mutated[newborn]], fitness[~mutated[newborn]])
        values = {effect: births[effect] for effect in self.effects}
        if self.traits:
            values |= self._changes(births, rows[1])
        results = [
            {"effect": effect, "births": len(births)}
            | self._distribution(each[mutated], oriented=effect in self.effects)
            | self._slope(fitness[mutated[newborn]], each[newborn][mutated[newborn]])
            | _cost(cost)
            for effect, each in values.items()
        ]
        _correct(results)
        return state, results

    def _changes(self, births: Rows, observed: Rows) -> dict[str, NDArray[np.float64]]:
        """Each trait of the child less that of the parent, shape [births]; NaN unless both were observed."""
        ids = observed[self.individual]
        order = np.argsort(ids, kind="stable")
        order = order[ids[order] != NO_ID]
        if not len(order):
            return {trait: np.full(len(births), np.nan) for trait in self.traits}
        ids = ids[order]

        def seen(whose: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
            place = np.minimum(np.searchsorted(ids, whose), len(ids) - 1)
            return order[place], ids[place] == whose

        child, child_seen = seen(births[self.child])
        parent, parent_seen = seen(births[self.parent])
        both = child_seen & parent_seen
        return {
            trait: np.where(both, observed[trait][child] - observed[trait][parent], np.nan) for trait in self.traits
        }

    def _distribution(self, values: NDArray[np.float64], *, oriented: bool) -> dict[str, Any]:
        values = values[np.isfinite(values)]
        names = [name for name in RESULT.about if name in _QUANTILES or name.startswith(("mean", "beneficial"))]
        found: dict[str, Any] = {"mutations": len(values), "sd": None} | dict.fromkeys(names)
        if not len(values):
            return found
        found |= {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}
        found["mean"] = float(values.mean())
        if oriented:
            hits = int((values > 0).sum())
            low, high = wilson_interval(hits, len(values), self.level)
            found |= {"beneficial": hits / len(values), "beneficial_low": low, "beneficial_high": high}
        if len(values) > 1:
            sd = float(values.std(ddof=1))
            se = sd / sqrt(len(values))
            p = t_p(found["mean"] / se, len(values) - 1) if se > 0 else None
            found |= {"sd": sd, "mean_se": se, "mean_p": p}
        return found

    def _slope(self, fitness: NDArray[np.float64], effect: NDArray[np.float64]) -> dict[str, Any]:
        known = np.isfinite(effect)
        found = gradients(fitness[known], effect[known][:, None])
        names = ("beta", "beta_se", "beta_p")
        values = {name: float(getattr(found, name)[0]) for name in names}
        return {name: None if np.isnan(value) else value for name, value in values.items()}


def _cost(cost: Contrast | None) -> dict[str, float | None]:
    if cost is None:
        return dict.fromkeys(("cost", "cost_se", "cost_p"))
    return {"cost": cost.ratio, "cost_se": cost.se, "cost_p": cost.p}


def _correct(results: list[dict[str, Any]]) -> None:
    """Correct the p of all results together. The cost is one test, however many effects there are."""
    at = [(row, name) for row in results for name in ("mean_p", "beta_p")] + [(results[0], "cost_p")]
    p = benjamini_hochberg([np.nan if row[name] is None else row[name] for row, name in at])
    for (row, name), value in zip(at, p.tolist(), strict=True):
        row[name] = None if np.isnan(value) else value
    for row in results[1:]:
        row["cost_p"] = results[0]["cost_p"]
