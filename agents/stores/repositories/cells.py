"""Queries about cells: vitals, genomes, problems, and births, deaths, mutations and divisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, case, cast, func, select

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import Cell as CellTable
from astrocyte.schemas.tables import CellGenome, EvolutionaryEvent, ProblemResult
from astrocyte.schemas.tables.base import Real

__all__ = ["Cell", "CellRepository", "Evolution", "Genome", "Problem", "ProblemSummary", "TraitMeans"]

_CELLS = CellTable.__table__
_GENOMES = CellGenome.__table__
_PROBLEMS = ProblemResult.__table__
_EVENTS = EvolutionaryEvent.__table__
_TRAITS: Final = (
    "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory", "tpu_efficiency"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """The newest vitals of one cell; ``timestamp`` is their event time in microseconds."""

    cell_id: int
    timestamp: int
    generation: int | None
    lineage: int | None
    energy: float | None
    mass: float | None
    age_ticks: int | None
    alive: bool | None


@dataclass(frozen=True, slots=True)
class Genome:
    """The newest genome of one cell, without its neural weights."""

    cell_id: int
    timestamp: int
    genome_type: str | None
    metabolism: float | None
    growth_rate: float | None
    division_size: float | None
    mutation_rate: float | None
    tpu_cores: float | None
    tpu_memory: float | None
    tpu_efficiency: float | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One attempt of one cell at one problem."""

    id: int
    timestamp: int
    cell_id: int
    problem_type: str | None
    difficulty: str | None
    solved: bool | None
    accuracy: float | None
    energy_reward: float | None
    processing_time: float | None
    tpu_utilization: float | None


@dataclass(frozen=True, slots=True)
class ProblemSummary:
    """Attempts at one type of problem of one difficulty."""

    problem_type: str | None
    difficulty: str | None
    count: int
    solved: int
    mean_accuracy: float | None
    mean_reward: float | None


@dataclass(frozen=True, slots=True)
class Evolution:
    """A birth, death, mutation or division."""

    id: int
    timestamp: int
    event_type: str | None
    cell_id: int
    parent_id: int | None
    mutation_magnitude: float | None
    fitness_delta: float | None
    generation_gap: int | None


@dataclass(frozen=True, slots=True)
class TraitMeans:
    """Means of the traits of all stored genomes of one type."""

    genome_type: str | None
    count: int
    metabolism: float | None
    growth_rate: float | None
    division_size: float | None
    mutation_rate: float | None
    tpu_cores: float | None
    tpu_memory: float | None
    tpu_efficiency: float | None


_CELL_COLUMNS = columns_of(CellTable, Cell)
_GENOME_COLUMNS = columns_of(CellGenome, Genome)
_PROBLEM_COLUMNS = columns_of(ProblemResult, Problem)
_EVENT_COLUMNS = columns_of(EvolutionaryEvent, Evolution)


class CellRepository(Repository):
    """Cells of one simulation."""

    def get(self, cell_id: int) -> Cell | None:
        """The cell, or None."""
        return self._first(self._cells().where(_CELLS.c.cell_id == cell_id), Cell)

    def all(self, *, lineage: int | None = None, generation: int | None = None) -> Iterator[Cell]:
        """All stored cells (of a founder's lineage, of a generation) in order of their ids, streamed."""
        query = self._cells().order_by(_CELLS.c.cell_id)
        if lineage is not None:
            query = query.where(_CELLS.c.lineage == lineage)
        if generation is not None:
            query = query.where(_CELLS.c.generation == generation)
        return self._stream(query, Cell)

    def genome(self, cell_id: int) -> Genome | None:
        """The newest genome of a cell, or None."""
        query = select(*_GENOME_COLUMNS).where(self._own(_GENOMES), _GENOMES.c.cell_id == cell_id)
        return self._first(query, Genome)

    def traits(self) -> list[TraitMeans]:
        """Means of the traits by type of genome."""
        means = (cast(func.avg(_GENOMES.c[name]), Real) for name in _TRAITS)
        query = select(_GENOMES.c.genome_type, func.count(), *means).where(self._own(_GENOMES))
        return self._all(query.group_by(_GENOMES.c.genome_type).order_by(_GENOMES.c.genome_type), TraitMeans)

    def problems(self, cell_id: int | None = None) -> Iterator[Problem]:
        """Attempts (of one cell) in order of time, streamed."""
        query = select(*_PROBLEM_COLUMNS).where(self._own(_PROBLEMS)).order_by(_PROBLEMS.c.timestamp, _PROBLEMS.c.id)
        return self._stream(query if cell_id is None else query.where(_PROBLEMS.c.cell_id == cell_id), Problem)

    def problem_summary(self) -> list[ProblemSummary]:
        """Attempts by type of problem and difficulty."""
        kinds = (_PROBLEMS.c.problem_type, _PROBLEMS.c.difficulty)
        solved = func.sum(case((_PROBLEMS.c.solved, 1), else_=0))
        means = (cast(func.avg(_PROBLEMS.c[name]), Real) for name in ("accuracy", "energy_reward"))
        query = select(*kinds, func.count(), solved, *means).where(self._own(_PROBLEMS))
        return self._all(query.group_by(*kinds).order_by(*kinds), ProblemSummary)

    def events(self, event_type: str | None = None, *, cell_id: int | None = None) -> Iterator[Evolution]:
        """Births, deaths, mutations and divisions (of one type, of one cell) in order of time, streamed."""
        query = select(*_EVENT_COLUMNS).where(self._own(_EVENTS)).order_by(_EVENTS.c.timestamp, _EVENTS.c.id)
        if event_type is not None:
            query = query.where(_EVENTS.c.event_type == event_type)
        return self._stream(query if cell_id is None else query.where(_EVENTS.c.cell_id == cell_id), Evolution)

    def event_counts(self) -> dict[str, int]:
        """Number of events by type."""
        query = select(_EVENTS.c.event_type, func.count()).where(self._own(_EVENTS), _EVENTS.c.event_type.is_not(None))
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(_EVENTS.c.event_type))}

    def _cells(self) -> Select[Any]:
        return select(*_CELL_COLUMNS).where(self._own(_CELLS))
