"""Queries about cells: vitals, genomes, problems, and births, deaths, mutations and divisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, case, cast, func, literal, select
from sqlalchemy.orm import aliased

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import Cell as CellTable
from astrocyte.schemas.tables import CellGenome, EvolutionaryEvent, PopulationMetrics, ProblemResult
from astrocyte.schemas.tables.base import Real

__all__ = [
    "Cell",
    "CellDescent",
    "CellRepository",
    "Evolution",
    "GenerationSummary",
    "Genome",
    "PopulationSnapshot",
    "Problem",
    "ProblemSummary",
    "TraitMeans",
]

_CELLS = CellTable.__table__
_GENOMES = CellGenome.__table__
_PROBLEMS = ProblemResult.__table__
_EVENTS = EvolutionaryEvent.__table__
_POPULATION = PopulationMetrics.__table__
_MOST_GENERATIONS: Final = 100_000
_TRAITS: Final = (
    "metabolism", "growth_rate", "division_size", "mutation_rate", "tpu_cores", "tpu_memory", "tpu_efficiency"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """The newest vitals of one cell; ``timestamp`` and ``died_at`` are event times in microseconds."""

    cell_id: int
    timestamp: int
    generation: int | None
    lineage: int | None
    energy: float | None
    mass: float | None
    age_ticks: int | None
    alive: bool | None
    died_at: int | None


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
    mean_utilization: float | None


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """Attempts of the stored cells of one generation."""

    generation: int
    cells: int
    attempts: int
    solved: int
    mean_accuracy: float | None
    mean_utilization: float | None


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
    generation: int | None
    age_ticks: int | None


@dataclass(frozen=True, slots=True)
class CellDescent:
    """A cell among the ancestors or descendants of another, ``distance`` generations away."""

    cell_id: int
    parent_id: int | None
    generation: int | None
    distance: int


@dataclass(frozen=True, slots=True)
class PopulationSnapshot:
    """One row of ``population_metrics``: the whole population at a tick, not sampled."""

    tick: int
    timestamp: int
    total_population: int | None
    avg_accuracy: float | None
    genome_diversity: float | None
    avg_generation: float | None
    energy_efficiency: float | None
    births: int | None
    deaths: int | None
    avg_energy: float | None


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
_POPULATION_COLUMNS = columns_of(PopulationMetrics, PopulationSnapshot)


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
        means = (cast(func.avg(_PROBLEMS.c[name]), Real) for name in ("accuracy", "energy_reward", "tpu_utilization"))
        query = select(*kinds, func.count(), solved, *means).where(self._own(_PROBLEMS))
        return self._all(query.group_by(*kinds).order_by(*kinds), ProblemSummary)

    def accuracy_by_generation(self) -> list[GenerationSummary]:
        """Attempts by the generation of their cells, oldest first."""
        solved = func.sum(case((_PROBLEMS.c.solved, 1), else_=0))
        means = (cast(func.avg(_PROBLEMS.c[name]), Real) for name in ("accuracy", "tpu_utilization"))
        cells = func.count(_CELLS.c.cell_id.distinct())
        same = (_CELLS.c.cell_id == _PROBLEMS.c.cell_id) & (_CELLS.c.simulation_id == _PROBLEMS.c.simulation_id)
        query = (
            select(_CELLS.c.generation, cells, func.count(), solved, *means).select_from(_PROBLEMS).join(_CELLS, same)
        )
        query = query.where(self._own(_PROBLEMS), _CELLS.c.generation.is_not(None))
        return self._all(query.group_by(_CELLS.c.generation).order_by(_CELLS.c.generation), GenerationSummary)

    def population(self, first_tick: int = 0, end_tick: int | None = None) -> Iterator[PopulationSnapshot]:
        """The population from ``first_tick`` up to, not including, ``end_tick``, in order of ticks, streamed."""
        query = select(*_POPULATION_COLUMNS).where(self._own(_POPULATION), _POPULATION.c.tick >= first_tick)
        query = query.order_by(_POPULATION.c.tick)
        return self._stream(
            query if end_tick is None else query.where(_POPULATION.c.tick < end_tick), PopulationSnapshot
        )

    def ancestors(self, cell_id: int, *, most: int = 1_000) -> list[CellDescent]:
        """Mother, grandmother and so on up to the founder, nearest first, at most ``most`` of them."""
        known = dict[int, tuple[int | None, int | None]]()
        found: list[CellDescent] = []
        with self.engine.connect() as connection:

            def birth(cell: int) -> tuple[int | None, int | None]:
                query = select(_EVENTS.c.parent_id, _EVENTS.c.generation).where(
                    _EVENTS.c.cell_id == cell, *self._births
                )
                row = connection.execute(query.limit(1)).first()
                known[cell] = (None, None) if row is None else (row[0], row[1])
                return known[cell]

            parent, generation = birth(cell_id)
            while parent is not None and parent not in known and len(found) < most:
                grandparent, own = birth(parent)
                generation = own if own is not None or generation is None else generation - 1
                found.append(CellDescent(parent, grandparent, generation, len(found) + 1))
                parent = grandparent
        return found

    def descendants(self, cell_id: int, *, within: int = _MOST_GENERATIONS) -> Iterator[CellDescent]:
        """Daughters, their daughters and so on up to ``within`` generations, nearest first, streamed."""
        columns = (_EVENTS.c.cell_id, _EVENTS.c.parent_id, _EVENTS.c.generation)
        root = select(*columns, literal(1).label("distance")).where(_EVENTS.c.parent_id == cell_id, *self._births)
        tree = root.cte("tree", recursive=True)
        child = aliased(EvolutionaryEvent)
        tree = tree.union(
            select(child.cell_id, child.parent_id, child.generation, tree.c.distance + 1).where(
                child.simulation_id == self.simulation_id,
                child.parent_id == tree.c.cell_id,
                child.event_type != "mutation",
                tree.c.distance < within,
            )
        )
        return self._stream(select(tree).order_by(tree.c.distance, tree.c.cell_id), CellDescent)

    @property
    def _births(self) -> tuple[Any, ...]:
        """Conditions on events that name a cell's mother: births, and divisions of other programs, once for each."""
        return (self._own(_EVENTS), _EVENTS.c.parent_id.is_not(None), _EVENTS.c.event_type != "mutation")

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
