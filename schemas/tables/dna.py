"""Tables of the ``dna`` scenario: snapshots of agents' configurations, mutations and scores."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, PrimaryKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from astrocyte.schemas.tables.base import Base, Json, Real, Recorded, simulation_key

__all__ = ["DnaMutation", "DnaSnapshot", "KarmaScore"]


def _of_snapshot() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["snapshot_id", "simulation_id"], ["dna_snapshots.snapshot_id", "dna_snapshots.simulation_id"]
    )


class DnaSnapshot(Base):
    """A snapshot, from ``dna.snapshot_created`` or, with source "mutation", from the mutation that made it.

    ``created_at`` is in seconds since 1970, as in the event; it is null while only a score is known.
    """

    __tablename__ = "dna_snapshots"

    snapshot_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    agent_id: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str | None] = mapped_column(String(16))
    parent_snapshot_id: Mapped[int | None] = mapped_column(BigInteger)
    dna_size: Mapped[int | None] = mapped_column(Integer)
    traits_count: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "snapshot_id"),
        Index(None, "agent_id", "simulation_id"),
    )


class DnaMutation(Base):
    """A mutation and the snapshot it made."""

    __tablename__ = "dna_mutations"

    snapshot_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    agent_id: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None] = mapped_column(BigInteger)
    parent_snapshot_id: Mapped[int | None] = mapped_column(BigInteger)
    mutation_keys: Mapped[Any | None] = mapped_column(Json)
    traits_delta: Mapped[Any | None] = mapped_column(Json)
    reason: Mapped[str | None] = mapped_column(Text)
    dna_size: Mapped[int | None] = mapped_column(Integer)
    traits_count: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "snapshot_id"),
        _of_snapshot(),
        Index(None, "agent_id", "simulation_id"),
    )


class KarmaScore(Recorded, Base):
    """One score of one snapshot; ``id`` is the event's sequence number in its run."""

    __tablename__ = "karma_scores"

    id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    snapshot_id: Mapped[int] = mapped_column(BigInteger)
    agent_id: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[int | None] = mapped_column(BigInteger)
    karma_score: Mapped[float | None] = mapped_column(Real)
    previous_score: Mapped[float | None] = mapped_column(Real)
    score_delta: Mapped[float | None] = mapped_column(Real)
    updated_at: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "id"),
        _of_snapshot(),
        Index(None, "agent_id", "simulation_id"),
        Index(None, "simulation_id", "karma_score"),
    )
