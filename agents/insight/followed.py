"""Individuals that are followed for a time, and their fitness: what selection and mutations have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.insight.rows import Rows, Source
from astrocyte.agents.insight.statistic import Windows, check_level
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["CELL_TRAITS", "Followed"]

CELL_TRAITS: Final = ("metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory",
                      "tpu_efficiency")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Settings of a statistic whose individuals are followed for ``follow_us``, by their births and deaths."""

    windows: Windows
    follow_us: int = 0
    """Half a window by default."""
    traits: tuple[str, ...] = CELL_TRAITS
    stream: str = "genome_data"
    individual: str = "cell_id"
    lineage: str = "evolutionary_events"
    child: str = "cell_id"
    parent: str = "parent_id"
    birth: str = "birth"
    death: str = "death"
    level: float = 0.05

    def check(self, statistic: str) -> None:
        """Take half a window where no time is given. Raises InvalidSettings for settings that make no sense."""
        check_level(self.level, statistic)
        if self.follow_us == 0:
            object.__setattr__(self, "follow_us", self.windows.size_us // 2)
        if not 0 < self.follow_us < self.windows.size_us:
            raise InvalidSettings(
                f"{statistic}: follow_us {self.follow_us}; expected more than 0 and less than the window, "
                f"{self.windows.size_us} us, in whose first part the individuals are found"
            )
        if len(set(self.traits)) < len(self.traits):
            raise InvalidSettings(f"{statistic}: traits {self.traits}; expected names, each once")

    def fates(self, numbers: tuple[str, ...] = ()) -> Source:
        """Births (kind 0), with some numbers of theirs, and deaths (kind 1)."""
        return Source(self.lineage, (self.child, self.parent), numbers, (self.birth, self.death))

    def observed(self) -> Source:
        """The sample with the traits."""
        return Source(self.stream, (self.individual,), self.traits)

    def fitness(self, ids: NDArray[np.int64], since_us: NDArray[np.int64], fates: Rows) -> NDArray[np.float64]:
        """Fitness [n] of individuals, ascending ``ids``, each followed for ``follow_us`` after ``since_us``.

        The number of births whose parent it is, plus 1 without its death.
        """

        def counted(kind: int, field: str) -> NDArray[np.float64]:
            if not len(ids):
                return np.zeros(0)
            t, whose = fates.t[fates.kind == kind], fates[field][fates.kind == kind]
            place = np.minimum(np.searchsorted(ids, whose), len(ids) - 1)
            own = (ids[place] == whose) & (t > since_us[place]) & (t <= since_us[place] + self.follow_us)
            return np.bincount(place[own], minlength=len(ids)).astype(np.float64)

        fitness: NDArray[np.float64] = counted(0, self.parent) + (counted(1, self.child) == 0)
        return fitness
