"""Queries about populations: steps of one simulation, and statistics across simulations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import BigInteger, Float, Integer, Select, String, cast, column, func, select
from sqlalchemy.engine import Engine

from astrocyte.agents.stores.repositories.base import Repository, arrow_reader, columns_of
from astrocyte.schemas.tables import Simulation, SimulationStepModel
from astrocyte.schemas.tables.base import Real

__all__ = ["DataRetriever", "PopulationRepository", "Step"]

_STEPS = SimulationStepModel.__table__
_SIMULATIONS = Simulation.__table__


@dataclass(frozen=True, slots=True)
class Step:
    """Aggregates of one step over all agents."""

    step_number: int
    total_agents: int | None
    system_agents: int | None
    independent_agents: int | None
    control_agents: int | None
    total_resources: float | None
    average_agent_resources: float | None
    births: int | None
    deaths: int | None
    current_max_generation: int | None
    resource_efficiency: float | None
    resource_distribution_entropy: float | None
    average_agent_health: float | None
    average_agent_age: int | None
    average_reward: float | None
    combat_encounters: int | None
    successful_attacks: int | None
    resources_shared: float | None
    genetic_diversity: float | None
    dominant_genome_ratio: float | None
    resources_consumed: float | None


_STEP_COLUMNS = columns_of(SimulationStepModel, Step)


class PopulationRepository(Repository):
    """Steps of one simulation."""

    def steps(self, first_step: int = 0, end_step: int | None = None) -> Iterator[Step]:
        """Steps from ``first_step`` up to, not including, ``end_step``, streamed."""
        query = self._query().where(_STEPS.c.step_number >= first_step).order_by(_STEPS.c.step_number)
        return self._stream(query if end_step is None else query.where(_STEPS.c.step_number < end_step), Step)

    def at(self, step: int) -> Step | None:
        """One step, or None."""
        return self._first(self._query().where(_STEPS.c.step_number == step), Step)

    def latest(self) -> Step | None:
        """The last step, or None."""
        return self._first(self._query().order_by(_STEPS.c.step_number.desc()), Step)

    def largest(self) -> Step | None:
        """The step with the most agents (the first of several), or None."""
        return self._first(self._query().order_by(_STEPS.c.total_agents.desc(), _STEPS.c.step_number), Step)

    def _query(self) -> Select[Any]:
        return select(*_STEP_COLUMNS).where(self._own(_STEPS))


class DataRetriever:
    """Population statistics across simulations, as Arrow tables or pandas frames."""

    def __init__(self, engine: Engine, experiment_id: str | None = None) -> None:
        self.engine = engine
        self.experiment_id = experiment_id

    def population_statistics(
        self, simulation_ids: Sequence[str] | None = None, *, form: Literal["arrow", "pandas"] = "arrow"
    ) -> Any:
        """One row per simulation: steps; mean, minimum and maximum of agents; births, deaths; means of the measures."""
        measured = (
            ("mean_agents", func.avg(_STEPS.c.total_agents), Float),
            ("min_agents", func.min(_STEPS.c.total_agents), Integer),
            ("max_agents", func.max(_STEPS.c.total_agents), Integer),
            ("births", func.sum(_STEPS.c.births), Integer),
            ("deaths", func.sum(_STEPS.c.deaths), Integer),
            ("max_generation", func.max(_STEPS.c.current_max_generation), Integer),
            ("mean_health", func.avg(_STEPS.c.average_agent_health), Float),
            ("mean_reward", func.avg(_STEPS.c.average_reward), Float),
            ("mean_resources", func.avg(_STEPS.c.total_resources), Float),
            ("mean_genetic_diversity", func.avg(_STEPS.c.genetic_diversity), Float),
        )
        names: list[Any] = [column("simulation_id", String), column("steps", Integer)]
        names += [column(name, kind) for name, _, kind in measured]
        # PostgreSQL returns sums and averages of integers as decimals.
        values = (cast(value, Real if kind is Float else BigInteger) for _, value, kind in measured)
        query = select(_STEPS.c.simulation_id, func.count(), *values)
        query = self._of(query, simulation_ids).group_by(_STEPS.c.simulation_id).order_by(_STEPS.c.simulation_id)
        return _in_form(arrow_reader(self.engine, query, names).read_all(), form)

    def population_over_time(self, simulation_ids: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Every step of the simulations, ordered by simulation and step, as streamed Arrow batches."""
        columns = [_STEPS.c.simulation_id, *_STEP_COLUMNS]
        query = self._of(select(*columns), simulation_ids)
        return arrow_reader(self.engine, query.order_by(_STEPS.c.simulation_id, _STEPS.c.step_number), columns)

    def _of(self, query: Select[Any], simulation_ids: Sequence[str] | None) -> Select[Any]:
        if simulation_ids is not None:
            return query.where(_STEPS.c.simulation_id.in_(simulation_ids))
        if self.experiment_id is not None:
            own = select(_SIMULATIONS.c.simulation_id).where(_SIMULATIONS.c.experiment_id == self.experiment_id)
            return query.where(_STEPS.c.simulation_id.in_(own))
        return query


def _in_form(table: pa.Table, form: Literal["arrow", "pandas"]) -> Any:
    return table.to_pandas() if form == "pandas" else table
