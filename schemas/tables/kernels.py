"""Tables of the ``kernels`` scenario: kernels with their basins, their history, and their wars."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, Index, Integer, PrimaryKeyConstraint, String
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from astrocyte.schemas.tables.base import Base, Real, Recorded, TextArray, Vector, simulation_key, vector_index

__all__ = ["BASIN_SIZE", "KernelGeometry", "KernelHistory", "WarHistory"]

BASIN_SIZE: Final = 8
"""Number of a basin's coordinates."""


class KernelGeometry(Base):
    """The newest geometry of one kernel.

    A kernel known only from a war has no coordinates until its own event arrives. ``timestamp`` is the event time of
    the row's values in microseconds (0 for such a kernel).
    """

    __tablename__ = "kernel_geometry"

    kernel_id: Mapped[str] = mapped_column(String(64))
    simulation_id: Mapped[str] = simulation_key()
    god_name: Mapped[str | None] = mapped_column(String(64))
    domain: Mapped[str | None] = mapped_column(String(128))
    primitive_root: Mapped[int | None] = mapped_column(Integer)
    basin_coordinates: Mapped[list[float] | None] = mapped_column(Vector(BASIN_SIZE))
    parent_kernels: Mapped[list[str] | None] = mapped_column(TextArray)
    phi: Mapped[float | None] = mapped_column(Real)
    kappa: Mapped[float | None] = mapped_column(Real)
    regime: Mapped[str | None] = mapped_column(String(32))
    generation: Mapped[int | None] = mapped_column(Integer, server_default=sql_text("0"))
    success_count: Mapped[int | None] = mapped_column(Integer, server_default=sql_text("0"))
    failure_count: Mapped[int | None] = mapped_column(Integer, server_default=sql_text("0"))
    element_group: Mapped[str | None] = mapped_column(String(32))
    ecological_niche: Mapped[str | None] = mapped_column(String(32))
    target_function: Mapped[str | None] = mapped_column(String(64))
    valence: Mapped[int | None] = mapped_column(Integer)
    breeding_target: Mapped[str | None] = mapped_column(String(64))
    spawned_at: Mapped[datetime | None] = mapped_column(DateTime, server_default=sql_text("CURRENT_TIMESTAMP"))
    training_steps: Mapped[int | None] = mapped_column(BigInteger)
    timestamp: Mapped[int] = mapped_column(BigInteger, server_default=sql_text("0"))
    status: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (
        PrimaryKeyConstraint("kernel_id", "simulation_id"),
        Index(None, "simulation_id", "phi"),
        vector_index("ix_kernel_geometry_basin", "basin_coordinates"),
    )


class KernelHistory(Recorded, Base):
    """What changes of a kernel, at each of its events; ``id`` is the event's sequence number in its run.

    ``status`` is the event's type. `KernelGeometry` holds the newest of these rows, with what never changes.
    """

    __tablename__ = "kernel_history"

    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger)
    kernel_id: Mapped[str] = mapped_column(String(64))
    status: Mapped[str | None] = mapped_column(String(16))
    basin_coordinates: Mapped[list[float] | None] = mapped_column(Vector(BASIN_SIZE))
    phi: Mapped[float | None] = mapped_column(Real)
    kappa: Mapped[float | None] = mapped_column(Real)
    regime: Mapped[str | None] = mapped_column(String(32))
    generation: Mapped[int | None] = mapped_column(Integer)
    success_count: Mapped[int | None] = mapped_column(Integer)
    failure_count: Mapped[int | None] = mapped_column(Integer)
    ecological_niche: Mapped[str | None] = mapped_column(String(32))
    breeding_target: Mapped[str | None] = mapped_column(String(64))
    training_steps: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "id"),
        Index(None, "simulation_id", "kernel_id", "timestamp"),
    )


def _of_kernel(column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        [column, "simulation_id"], ["kernel_geometry.kernel_id", "kernel_geometry.simulation_id"]
    )


class WarHistory(Base):
    """One war between two kernels."""

    __tablename__ = "war_history"

    war_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    timestamp: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[str | None] = mapped_column(String(32))
    attacker_id: Mapped[str] = mapped_column(String(64))
    defender_id: Mapped[str] = mapped_column(String(64))
    winner_id: Mapped[str | None] = mapped_column(String(64))
    attacker_phi: Mapped[float | None] = mapped_column(Real)
    defender_phi: Mapped[float | None] = mapped_column(Real)
    phi_delta: Mapped[float | None] = mapped_column(Real)
    rounds: Mapped[int | None] = mapped_column(Integer)
    outcome: Mapped[str | None] = mapped_column(String(32))

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "war_id"),
        _of_kernel("attacker_id"),
        _of_kernel("defender_id"),
        _of_kernel("winner_id"),
    )
