"""Diversity of lineages and traits, effective population size, and the depth of coalescence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.descent import LineageEvents, descend
from astrocyte.agents.insight.followed import CELL_TRAITS
from astrocyte.agents.insight.genealogy import Genealogy
from astrocyte.agents.insight.rows import NO_ID, Rows, Source, one_of_each
from astrocyte.agents.insight.statistic import State, Window, Windows
from astrocyte.schemas.catalog import CATALOG, EventType
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.event_types.insight import LINEAGE, RESULT_IDENTITY, RESULTS

__all__ = ["Diversity", "effective_size", "hill_numbers"]


RESULT: Final = RESULTS["diversity"]


def hill_numbers(counts: NDArray[np.integer]) -> tuple[float, float, float, float]:
    """Hill numbers of order 0, 1 and 2, and the Shannon entropy in nats, of the classes' counts (Hill 1973).

    Order q is ``(sum p^q)^(1 / (1 - q))`` (Jost 2006, Oikos 113:363), with order 1 as its limit. These are those of the
    counted: rare classes that a sample missed are not there. NaN where all counts are 0.
    """
    p = counts[counts > 0] / max(counts.sum(), 1)
    if not len(p):
        return (float("nan"),) * 4
    shannon = max(float(-(p * np.log(p)).sum()), 0.0)
    return float(len(p)), float(np.exp(shannon)), float(1.0 / (p * p).sum()), shannon


def effective_size(descendants: NDArray[np.floating]) -> float:
    """Inbreeding effective size over one interval, from the descendants of each individual at its start.

    ``1 / P`` with P the probability that two of the living, drawn without replacement, descend from the same one:
    ``sum w (w - 1) / (W (W - 1))`` with W the sum (Ewens 1982, for haploids). The interval counts as one generation.
    NaN where P is 0 or W below 2.
    """
    total = float(descendants.sum())
    pairs = float((descendants * (descendants - 1.0)).sum())
    return total * (total - 1.0) / pairs if pairs > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Diversity of lineages and traits, by run and window.

    Lineages come from births and deaths, which must be complete; a founder is known from its first birth or its death.
    Traits come from a sample of individuals, each counted by its last observation in the window, in ``bins`` classes
    of equal ratio between the trait's bounds (equal width where the lower is not above 0). The bounds are those of the
    catalog, or of ``bounds``. State: the genealogy of the living; O(n log n) for each window.
    """

    windows: Windows
    traits: tuple[str, ...] = CELL_TRAITS
    stream: str = "genome_data"
    individual: str = "cell_id"
    bins: int = 16
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    events: LineageEvents = field(default_factory=LineageEvents)
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["diversity"]
    carries_state: bool = True

    def __post_init__(self) -> None:
        """Bounds of every trait. Raises InvalidSettings."""
        known = CATALOG.find(self.stream)
        bounds = dict(self.bounds)
        for trait in self.traits:
            about = known.about.get(trait) if known is not None else None
            if trait not in bounds and about is not None and about.low is not None and about.high is not None:
                bounds[trait] = (about.low, about.high)
            low, high = bounds.get(trait, (0.0, 0.0))
            if not low < high:
                raise InvalidSettings(
                    f"diversity: the catalog has no bounds of field {trait!r} of stream {self.stream!r}, and those "
                    f"given are {self.bounds.get(trait)}; give bounds={{{trait!r}: (low, high)}} with low < high"
                )
        if self.bins < 2:
            raise InvalidSettings(f"diversity: {self.bins} bins; expected 2 or more")
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "events", replace(self.events, changes=()))
        object.__setattr__(
            self, "sources", (self.events.source(), Source(self.stream, (self.individual,), self.traits))
        )

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for the lineages, if there are any, and one for each trait that was seen."""
        genealogy = Genealogy.restore(state)
        ids = genealogy.ids[genealogy.alive]
        descent = descend(ids, np.empty((len(ids), 0)), self.events, rows[0])
        genealogy = genealogy.extended(descent)
        results = []
        if descent.start:
            split_us = genealogy.split_us()
            own = {
                "effective_size": _known(effective_size(descent.fitness)),
                "coalescence_us": None if split_us is None else window.end_us - split_us,
            }
            results.append(_result(LINEAGE, genealogy.lineages()) | own)
        results += [_result(trait, counts) for trait, counts in self._histograms(rows[1]).items()]
        return genealogy.state(), results

    def _histograms(self, observed: Rows) -> dict[str, NDArray[np.int64]]:
        """Individuals by class of each trait, by their last observations; shape [bins]."""
        ids = observed[self.individual]
        order = one_of_each(ids, last=True)
        order = order[ids[order] != NO_ID]
        found = {}
        for trait in self.traits:
            values = observed[trait][order]
            values = values[np.isfinite(values)]
            if len(values):
                found[trait] = np.bincount(self._class_of(trait, values), minlength=self.bins)
        return found

    def _class_of(self, trait: str, values: NDArray[np.float64]) -> NDArray[np.int64]:
        low, high = self.bounds[trait]
        values = np.clip(values, low, high)
        share = np.log(values / low) / np.log(high / low) if low > 0 else (values - low) / (high - low)
        return np.minimum((share * self.bins).astype(np.int64), self.bins - 1)


def _result(subject: str, counts: NDArray[np.integer]) -> dict[str, Any]:
    names = ("hill_0", "hill_1", "hill_2", "shannon")
    values = {name: _known(value) for name, value in zip(names, hill_numbers(counts), strict=True)}
    own = {"effective_size": None, "coalescence_us": None}
    return {"subject": subject, "individuals": int(counts.sum()), **values, **own}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
