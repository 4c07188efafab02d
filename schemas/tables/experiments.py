"""Experiments, their simulations and the configurations of these; all other rows belong to a simulation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from astrocyte.schemas.tables.base import SIMULATION_ID, Base, Json, simulation_key

__all__ = ["ExperimentModel", "Simulation", "SimulationConfig"]


class ExperimentModel(Base):
    """A research question and the simulations run for it."""

    __tablename__ = "experiments"

    experiment_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
    hypothesis: Mapped[str | None] = mapped_column(Text)
    creation_date: Mapped[datetime | None] = mapped_column(DateTime)
    last_updated: Mapped[datetime | None] = mapped_column(DateTime)
    status: Mapped[str | None] = mapped_column(String(50))
    tags: Mapped[Any | None] = mapped_column(Json)
    variables: Mapped[Any | None] = mapped_column(Json)
    results_summary: Mapped[Any | None] = mapped_column(Json)
    notes: Mapped[str | None] = mapped_column(Text)

    simulations: Mapped[list[Simulation]] = relationship(
        back_populates="experiment", order_by="Simulation.simulation_id"
    )


class Simulation(Base):
    """One run. Its id is the run id of the frames, as text ('sim_001').

    The sink inserts the row when it first reads the run, and sets ``end_time`` and ``status`` when the run ends.
    """

    __tablename__ = "simulations"

    simulation_id: Mapped[str] = mapped_column(String(SIMULATION_ID), primary_key=True)
    experiment_id: Mapped[str | None] = mapped_column(String(64), ForeignKey("experiments.experiment_id"))
    start_time: Mapped[datetime | None] = mapped_column(DateTime)
    end_time: Mapped[datetime | None] = mapped_column(DateTime)
    status: Mapped[str | None] = mapped_column(String(50))
    parameters: Mapped[Any | None] = mapped_column(Json)
    results_summary: Mapped[Any | None] = mapped_column(Json)
    simulation_db_path: Mapped[str | None] = mapped_column(String(255))

    experiment: Mapped[ExperimentModel | None] = relationship(back_populates="simulations")
    config: Mapped[list[SimulationConfig]] = relationship(viewonly=True, order_by="SimulationConfig.config_id")
    # By name, as the module of agents imports this one.
    agents: Mapped[list[Any]] = relationship("AgentModel", viewonly=True, order_by="AgentModel.agent_id")
    steps: Mapped[list[Any]] = relationship(
        "SimulationStepModel", viewonly=True, order_by="SimulationStepModel.step_number"
    )

    __table_args__ = (Index(None, "experiment_id"),)


class SimulationConfig(Base):
    """The configuration of a run as JSON text; ``config_id`` counts from 1 in each simulation."""

    __tablename__ = "simulation_config"

    simulation_id: Mapped[str] = simulation_key(primary=True)
    config_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    timestamp: Mapped[int | None] = mapped_column(BigInteger)
    config_data: Mapped[str | None] = mapped_column(Text)
