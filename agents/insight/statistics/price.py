"""The Price equation: how much of a change of a trait's mean is selection, and how much transmission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.descent import Descent, LineageEvents, descend
from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.agents.insight.statistic import State, Window, Windows
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.event_types.insight import RESULT_IDENTITY, RESULTS

__all__ = ["Price", "partition_of_change"]


RESULT: Final = RESULTS["price"]


def partition_of_change(descent: Descent) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Selection and transmission, each [k], of every trait; None if no one lives at the start or at the end.

    With w the number of descendants at the end of an individual of the start, z its trait and dz the mean of the
    descendants' traits less z (Price 1970, Nature 227:520; 1972, Ann. Hum. Genet. 35:485)::

        mean(z') - mean(z) = cov(w, z) / mean(w) + mean(w * dz) / mean(w)

    The covariance divides by the number of individuals. This is an identity and has no error of sampling.
    """
    w = descent.fitness
    if not descent.start or not w.any():
        return None
    z = descent.value[: descent.start]
    ancestor = descent.ancestor[descent.alive]
    inherited = descent.value[descent.alive] - z[ancestor]
    relative = w / w.mean()
    selection = ((relative - 1.0)[:, None] * (z - z.mean(axis=0))).mean(axis=0)
    transmission = inherited.sum(axis=0) / descent.start / w.mean()
    return selection, transmission


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The Price equation of inherited traits, by run and window, from births and deaths alone.

    A trait is the sum of a field of the births on the way from the founder, whose own trait is 0: with
    ``fitness_delta`` the fall of the weights' error, with ``generation_gap`` the generation. Births and deaths must be
    complete. State: an id and the traits of every living individual of a run; O(n log n) for each window.
    """

    windows: Windows
    events: LineageEvents = field(default_factory=LineageEvents)
    sources: tuple[Source, ...] = field(init=False)
    result: EventType = RESULT
    identity: tuple[str, ...] = RESULT_IDENTITY["price"]
    carries_state: bool = True

    def __post_init__(self) -> None:
        """What is read."""
        object.__setattr__(self, "sources", (self.events.source(),))

    def step(self, window: Window, rows: Sequence[Rows], state: State) -> tuple[State, list[dict[str, Any]]]:
        """See `Statistic.step`: one result for each trait."""
        traits = self.events.changes
        living = state or {"ids": np.empty(0, np.int64), "value": np.empty((0, len(traits)))}
        descent = descend(living["ids"], living["value"], self.events, rows[0])
        ids, value = descent.ids[descent.alive], descent.value[descent.alive]
        order = np.argsort(ids)
        parts = partition_of_change(descent)
        shared = {
            "before": descent.start,
            "after": len(ids),
            "founders": descent.founders,
            "refused": descent.refused,
            "mean_fitness": None if parts is None else len(ids) / descent.start,
        }
        results = []
        for number, trait in enumerate(traits):
            values: dict[str, float | None] = dict.fromkeys(
                ("mean_before", "mean_after", "change", "selection", "transmission")
            )
            if parts is not None:
                before = float(descent.value[: descent.start, number].mean())
                after = float(value[:, number].mean())
                selection, transmission = (float(part[number]) for part in parts)
                values = {
                    "mean_before": before,
                    "mean_after": after,
                    "change": after - before,
                    "selection": selection,
                    "transmission": transmission,
                }
            results.append({"trait": trait, **shared, **values})
        return {"ids": ids[order], "value": value[order]}, results
