"""Table of the ``axons`` scenario: its spikes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from astrocyte.schemas.tables.base import Base, Real, Recorded, simulation_key

__all__ = ["Spike"]


class Spike(Recorded, Base):
    """A spike on an axon; ``id`` is the event's sequence number in its run and stream."""

    __tablename__ = "spikes"

    axon: Mapped[str] = mapped_column(String(32))
    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    timestamp: Mapped[int] = mapped_column(BigInteger)
    domain: Mapped[str | None] = mapped_column(String(256))
    type: Mapped[str | None] = mapped_column(String(64))
    value: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (PrimaryKeyConstraint("simulation_id", "axon", "id"), Index(None, "simulation_id", "timestamp"))
