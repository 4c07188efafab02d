"""Queries about the experiments and simulations of a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.engine import Engine

from astrocyte.schemas.tables import ExperimentModel, Simulation

__all__ = ["ExperimentRecord", "ExperimentRepository", "SimulationRecord"]

_EXPERIMENTS = ExperimentModel.__table__
_SIMULATIONS = Simulation.__table__


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """One experiment; times are UTC without a zone, ``simulations`` counts its simulations."""

    experiment_id: str
    name: str | None
    status: str | None
    creation_date: datetime | None
    simulations: int


@dataclass(frozen=True, slots=True)
class SimulationRecord:
    """One simulation; times are UTC without a zone (event times if the pipeline wrote them)."""

    simulation_id: str
    experiment_id: str | None
    status: str | None
    start_time: datetime | None
    end_time: datetime | None
    parameters: Any = None
    """Settings and seed, as JSON values."""
    results_summary: Any = None
    """Results of the run, as JSON values."""


class ExperimentRepository:
    """Experiments and simulations of a database, read-only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def experiments(self) -> list[ExperimentRecord]:
        """All experiments, in order of their ids."""
        count = (
            select(func.count())
            .select_from(_SIMULATIONS)
            .where(_SIMULATIONS.c.experiment_id == _EXPERIMENTS.c.experiment_id)
            .scalar_subquery()
        )
        columns = (_EXPERIMENTS.c[name] for name in ("experiment_id", "name", "status", "creation_date"))
        query: Select[Any] = select(*columns, count).order_by(_EXPERIMENTS.c.experiment_id)
        with self._engine.connect() as connection:
            return [ExperimentRecord(*row) for row in connection.execute(query)]

    def simulations(self, experiment_id: str | None = None) -> list[SimulationRecord]:
        """Simulations of an experiment, or of all, in order of their ids."""
        query = select(*(_SIMULATIONS.c[name] for name in SimulationRecord.__slots__))
        if experiment_id is not None:
            query = query.where(_SIMULATIONS.c.experiment_id == experiment_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_SIMULATIONS.c.simulation_id))
            return [SimulationRecord(*row) for row in rows]

    def simulation(self, simulation_id: str) -> SimulationRecord | None:
        """One simulation, or None."""
        query = select(*(_SIMULATIONS.c[name] for name in SimulationRecord.__slots__))
        with self._engine.connect() as connection:
            row = connection.execute(query.where(_SIMULATIONS.c.simulation_id == simulation_id)).first()
        return None if row is None else SimulationRecord(*row)
