"""The individuals of a run with their parents, checked: each is born once, after its parents and before its death."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.phylogeny.loops import births_in_order
from astrocyte.pipeline.analysis.phylogeny.records import NONE, Ints, InvalidLineage, Pedigree, Records
from astrocyte.schemas.times import iso_from_us

__all__ = ["NEVER_US", "Population", "population_of", "records_of"]

NEVER_US: Final = np.iinfo(np.int64).max
"""Time of the death of one who lives."""
_NAMED: Final = 5
"""Individuals that an error names."""


@dataclass(frozen=True, slots=True)
class Population:
    """Everyone whom the events name: n rows by time of origin, parents before their children.

    Times are event times in microseconds since 1970.
    """

    ids: Ints
    first: Ints
    """Row of the first parent, -1 for a founder."""
    second: Ints
    """Row of the second parent, -1 where there is none."""
    origin_us: Ints
    """Time of birth. Without an event of it: for a founder that of the first event, else of the first that names it."""
    died_us: Ints
    """Time of death, `NEVER_US` of the living."""
    generation: NDArray[np.int32]
    """As the events say, -1 where none does."""
    depth: NDArray[np.int32]
    """Births between the row and its furthest founder."""
    born: NDArray[np.bool_]
    """Whether there is an event of the birth."""
    traits: Mapping[str, NDArray[np.float32]]
    first_us: int
    """Time of the first event of the stream."""
    at_us: int
    """The instant of which deaths are known, by default that of the last event."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def living(self) -> NDArray[np.bool_]:
        """Who is alive at ``at_us``."""
        return self.died_us > self.at_us

    def take(self, rows: NDArray[np.bool_]) -> Population:
        """The marked rows; parents that are not among them become none."""
        number = np.cumsum(rows) - 1

        def parents(old: Ints) -> Ints:
            old = old[rows]
            there = (old >= 0) & rows[old]
            return np.where(there, number[old], NONE)

        return replace(
            self, ids=self.ids[rows], first=parents(self.first), second=parents(self.second),
            origin_us=self.origin_us[rows], died_us=self.died_us[rows], generation=self.generation[rows],
            depth=self.depth[rows], born=self.born[rows],
            traits={name: values[rows] for name, values in self.traits.items()},
        )  # fmt: skip

    def at(self, at_us: int) -> Population:
        """Those who were born by an instant; who died after it is alive."""
        died_us = np.where(self.died_us > at_us, NEVER_US, self.died_us)
        return replace(self, died_us=died_us, at_us=at_us).take(self.origin_us <= at_us)


def population_of(records: Records, pedigree: Pedigree) -> Population:
    """The individuals of which the events tell. Raises InvalidLineage for what cannot be, naming some of them."""
    if not records.events:
        raise InvalidLineage(f"there are no events of {pedigree.stream}")
    born_id = records.column("born_id")
    first_id, second_id = records.column("born_first"), records.column("born_second")
    died_id, seen_id = records.column("died_id"), records.column("seen_id")
    ids = _distinct(born_id, first_id[first_id >= 0], second_id[second_id >= 0], died_id, seen_id)
    if not len(ids):
        raise InvalidLineage(f"the events of {pedigree.stream} name no {pedigree.individual}")
    n = len(ids)
    row = np.searchsorted(ids, born_id)
    at_birth, born_us = records.column("born_at_birth"), records.column("born_us")
    first, second = _parents_of(ids, row, first_id, second_id, pedigree)

    origin_us = np.full(n, NEVER_US)
    np.minimum.at(origin_us, row[at_birth], born_us[at_birth])
    born = origin_us < NEVER_US
    died_us = np.full(n, NEVER_US)
    np.minimum.at(died_us, np.searchsorted(ids, died_id), records.column("died_us"))
    # A mutation that names the mother of one whose birth is not there: it was born by its first mention.
    unborn = ~born & (first >= 0)
    if unborn.any():
        mentioned = died_us.copy()
        for mentions in (row, first[row], second[row]):
            np.minimum.at(mentioned, mentions[mentions >= 0], born_us[mentions >= 0])
        origin_us[unborn] = mentioned[unborn]
    origin_us[~born & (first < 0)] = min(records.first_us, int(origin_us.min()))

    generation = np.full(n, NONE, np.int32)
    seen = np.searchsorted(ids, seen_id)
    generation[seen] = records.column("seen_generation")
    generation[row] = records.column("born_generation")
    traits = {name: _trait(n, row, records.column(f"born_{name}")) for name in pedigree.traits}

    depth, circular = births_in_order(first, second)
    if circular >= 0:
        raise InvalidLineage(
            f"{pedigree.individual} {ids[circular]} descends from itself: {_circle(ids, first, second, circular)}"
        )
    _check_times(pedigree.individual, ids, (first, second), origin_us=origin_us, died_us=died_us)
    order = np.lexsort((ids, depth, origin_us))
    number = np.empty(n + 1, np.int64)
    number[order] = np.arange(n)
    number[n] = NONE  # the last place, which -1 selects
    return Population(
        ids[order], number[first[order]], number[second[order]], origin_us[order], died_us[order], generation[order],
        depth[order], born[order], {name: values[order] for name, values in traits.items()},
        records.first_us, records.last_us,
    )  # fmt: skip


def records_of(population: Population, events: int = 1) -> Records:
    """Records that say the same: with later ones added, `population_of` makes the later population of them.

    ``events`` is the number of the events that they stand for.
    """
    records = Records(population.first_us, population.at_us, events)
    born = population.born | (population.first >= 0)
    parents = {}
    for name, rows in (("first", population.first), ("second", population.second)):
        parents[f"born_{name}"] = np.where(rows >= 0, population.ids[rows], NONE)
    records.put(
        born, born_id=population.ids, born_us=population.origin_us, born_at_birth=population.born,
        born_generation=population.generation, **parents,
        **{f"born_{name}": values for name, values in population.traits.items()},
    )  # fmt: skip
    records.put(~born, seen_id=population.ids, seen_generation=population.generation)
    records.put(population.died_us < NEVER_US, died_id=population.ids, died_us=population.died_us)
    return records


def _distinct(*columns: Ints) -> Ints:
    """The distinct values, sorted."""
    values: Ints = np.sort(np.concatenate(columns))  # np.unique hashes, which takes ten times as long
    new = np.ones(len(values), np.bool_)
    new[1:] = values[1:] != values[:-1]
    distinct: Ints = values[new]
    return distinct


def _parents_of(ids: Ints, row: Ints, first_id: Ints, second_id: Ints, pedigree: Pedigree) -> tuple[Ints, Ints]:
    """Rows of the parents of each row. Raises InvalidLineage where two events of one birth name others."""
    parents = []
    for named in (first_id, second_id):
        there = named >= 0
        found = np.full(len(ids), NONE, np.int64)
        found[row[there]] = np.searchsorted(ids, named[there])
        parents.append(found)
        other = np.flatnonzero(there & (ids[found[row]] != named))
        if len(other):
            which = other[0]
            raise InvalidLineage(
                f"{pedigree.individual} {ids[row[which]]} is born of {named[which]} in one event and of "
                f"{ids[found[row[which]]]} in another ({len(other):,} such events); "
                "expected one birth of each id in a run"
            )
    return parents[0], parents[1]


def _trait(n: int, row: Ints, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A trait of each row: that of its first event that has one, else NaN."""
    known = np.flatnonzero(~np.isnan(values))[::-1]
    trait = np.full(n, np.nan, np.float32)
    trait[row[known]] = values[known]  # of equal rows the last one remains, which came first
    return trait


def _circle(ids: Ints, first: Ints, second: Ints, start: int) -> str:
    """The shortest way from a row over its parents back to itself, as text."""
    child_of: dict[int, int] = {}
    reached = [start]
    while start not in child_of:
        following = []
        for row in reached:
            for parent in (int(first[row]), int(second[row])):
                if parent >= 0 and parent not in child_of:
                    child_of[parent] = row
                    following.append(parent)
        reached = following
    way = [start, child_of[start]]
    while way[-1] != start:
        way.append(child_of[way[-1]])
    named = [str(ids[row]) for row in way]
    return " -> ".join(named if len(named) <= 2 * _NAMED else [*named[:_NAMED], "...", *named[-_NAMED:]])


def _check_times(individual: str, ids: Ints, parents: tuple[Ints, Ints], *, origin_us: Ints, died_us: Ints) -> None:
    for parent in parents:
        early = np.flatnonzero((parent >= 0) & (origin_us < origin_us[parent]))
        if len(early):
            named = [
                f"{ids[row]} at {_time(origin_us[row])}, its parent {ids[parent[row]]} at "
                f"{_time(origin_us[parent[row]])}"
                for row in early[:_NAMED]
            ]
            raise _impossible(len(early), individual, "were born before their parent", named)
    early = np.flatnonzero(died_us < origin_us)
    if len(early):
        named = [f"{ids[row]} at {_time(died_us[row])}, born at {_time(origin_us[row])}" for row in early[:_NAMED]]
        raise _impossible(len(early), individual, "died before they were born", named)


def _time(time_us: np.int64) -> str:
    return iso_from_us(int(time_us))


def _impossible(count: int, individual: str, what: str, named: list[str]) -> InvalidLineage:
    more = f"; and {count - len(named):,} more" if count > len(named) else ""
    return InvalidLineage(
        f"{individual}s that {what}: {'; '.join(named)}{more}. Do several runs have one name in this source?"
    )
