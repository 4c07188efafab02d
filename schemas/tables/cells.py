"""Tables of the ``cells`` scenario: cells, genomes, problem results, evolutionary events, and the population.

Vitals are sampled, so a result may refer to a cell without vitals: ``cell_id`` is therefore not a foreign key.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Index, Integer, LargeBinary, PrimaryKeyConstraint, String
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from astrocyte.schemas.tables.base import Base, Real, Recorded, simulation_key

__all__ = ["Cell", "CellGenome", "EvolutionaryEvent", "PopulationMetrics", "ProblemResult"]


class Cell(Base):
    """The newest vitals of one cell, and its death; ``timestamp`` is the vitals' event time in microseconds.

    Every death is recorded here. Of a cell that died without having been sampled, generation and death alone are known,
    and ``timestamp`` is 0.
    """

    __tablename__ = "cells"

    cell_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger, server_default=sql_text("0"))
    generation: Mapped[int | None] = mapped_column(Integer)
    lineage: Mapped[int | None] = mapped_column(BigInteger)
    energy: Mapped[float | None] = mapped_column(Real)
    mass: Mapped[float | None] = mapped_column(Real)
    age_ticks: Mapped[int | None] = mapped_column(Integer)
    alive: Mapped[bool | None] = mapped_column(Boolean)
    died_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        PrimaryKeyConstraint("cell_id", "simulation_id"),
        Index(None, "simulation_id", "generation"),
        Index(None, "simulation_id", "lineage"),
    )


class CellGenome(Base):
    """The newest genome of one cell; ``neural_weights`` is a little-endian float32 BLOB of any length."""

    __tablename__ = "cell_genomes"

    cell_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger)
    genome_type: Mapped[str | None] = mapped_column(String(16))
    metabolism: Mapped[float | None] = mapped_column(Real)
    growth_rate: Mapped[float | None] = mapped_column(Real)
    division_size: Mapped[float | None] = mapped_column(Real)
    mutation_rate: Mapped[float | None] = mapped_column(Real)
    neural_weights: Mapped[bytes | None] = mapped_column(LargeBinary)
    tpu_cores: Mapped[float | None] = mapped_column(Real)
    tpu_memory: Mapped[float | None] = mapped_column(Real)
    tpu_efficiency: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("cell_id", "simulation_id"),
        Index(None, "simulation_id", "genome_type"),
    )


class ProblemResult(Recorded, Base):
    """One attempt of one cell at one problem; ``id`` is the event's sequence number in its run."""

    __tablename__ = "problem_results"

    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger)
    cell_id: Mapped[int] = mapped_column(BigInteger)
    problem_type: Mapped[str | None] = mapped_column(String(50))
    difficulty: Mapped[str | None] = mapped_column(String(20))
    solved: Mapped[bool | None] = mapped_column(Boolean)
    accuracy: Mapped[float | None] = mapped_column(Real)
    energy_reward: Mapped[float | None] = mapped_column(Real)
    processing_time: Mapped[float | None] = mapped_column(Real)
    tpu_utilization: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "id"),
        Index(None, "cell_id", "simulation_id"),
        Index(None, "simulation_id", "timestamp"),
    )


class EvolutionaryEvent(Recorded, Base):
    """A birth, death, mutation or division; ``id`` is the event's sequence number in its run."""

    __tablename__ = "evolutionary_events"

    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str | None] = mapped_column(String(32))
    cell_id: Mapped[int] = mapped_column(BigInteger)
    parent_id: Mapped[int | None] = mapped_column(BigInteger)
    mutation_magnitude: Mapped[float | None] = mapped_column(Real)
    fitness_delta: Mapped[float | None] = mapped_column(Real)
    generation_gap: Mapped[int | None] = mapped_column(Integer)
    generation: Mapped[int | None] = mapped_column(Integer)
    age_ticks: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "id"),
        Index(None, "cell_id", "simulation_id"),
        Index(None, "parent_id", "simulation_id"),
        Index(None, "simulation_id", "timestamp"),
    )


class PopulationMetrics(Base):
    """One row of the population's metrics; ``timestamp`` is the event time of the tick in microseconds."""

    __tablename__ = "population_metrics"

    simulation_id: Mapped[str] = simulation_key()
    tick: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    timestamp: Mapped[int] = mapped_column(BigInteger)
    total_population: Mapped[int | None] = mapped_column(BigInteger)
    avg_accuracy: Mapped[float | None] = mapped_column(Real)
    genome_diversity: Mapped[float | None] = mapped_column(Real)
    avg_generation: Mapped[float | None] = mapped_column(Real)
    energy_efficiency: Mapped[float | None] = mapped_column(Real)
    births: Mapped[int | None] = mapped_column(BigInteger)
    deaths: Mapped[int | None] = mapped_column(BigInteger)
    avg_energy: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (PrimaryKeyConstraint("simulation_id", "tick"), Index(None, "simulation_id", "timestamp"))
