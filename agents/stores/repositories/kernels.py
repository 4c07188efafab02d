"""Queries about kernels: geometry, wars, and nearest basins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, or_, select, text
from sqlalchemy.engine import Engine

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.tables import BASIN_SIZE, KernelGeometry, KernelHistory, Vector, WarHistory

__all__ = ["Kernel", "KernelRepository", "KernelState", "SimilarKernel", "War"]

_KERNELS = KernelGeometry.__table__
_WARS = WarHistory.__table__
_HISTORY = KernelHistory.__table__
_EXACT_ROWS: Final = 100_000
"""Up to this many kernels PostgreSQL compares all (about 30 ms); above, it uses the HNSW index."""
_SPARE: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """The newest geometry of one kernel."""

    kernel_id: str
    simulation_id: str
    god_name: str | None
    domain: str | None
    primitive_root: int | None
    basin_coordinates: NDArray[np.float32] | None
    parent_kernels: list[str] | None
    phi: float | None
    kappa: float | None
    regime: str | None
    generation: int | None
    success_count: int | None
    failure_count: int | None
    element_group: str | None
    ecological_niche: str | None
    target_function: str | None
    valence: int | None
    breeding_target: str | None
    spawned_at: datetime | None
    training_steps: int | None
    status: str | None


@dataclass(frozen=True, slots=True, eq=False)
class KernelState:
    """What changes of a kernel, after one of its events; ``status`` is the event's type."""

    kernel_id: str
    simulation_id: str
    timestamp: int
    status: str | None
    basin_coordinates: NDArray[np.float32] | None
    phi: float | None
    kappa: float | None
    regime: str | None
    generation: int | None
    success_count: int | None
    failure_count: int | None
    ecological_niche: str | None
    breeding_target: str | None
    training_steps: int | None


@dataclass(frozen=True, slots=True)
class SimilarKernel:
    """A kernel and the cosine distance (0 to 2) of its basin from the query."""

    kernel_id: str
    simulation_id: str
    god_name: str | None
    distance: float


@dataclass(frozen=True, slots=True)
class War:
    """One war between two kernels."""

    war_id: int
    timestamp: int
    mode: str | None
    attacker_id: str
    defender_id: str
    winner_id: str | None
    attacker_phi: float | None
    defender_phi: float | None
    phi_delta: float | None
    rounds: int | None
    outcome: str | None


_KERNEL_COLUMNS = columns_of(KernelGeometry, Kernel)
_WAR_COLUMNS = columns_of(WarHistory, War)
_STATE_COLUMNS = columns_of(KernelHistory, KernelState)


class KernelRepository(Repository):
    """Kernels and wars of one simulation; without ``simulation_id``, of all in the database."""

    def __init__(self, engine: Engine, simulation_id: str | None = None) -> None:
        super().__init__(engine, simulation_id or "")

    def get(self, kernel_id: str) -> Kernel | None:
        """The kernel, or None."""
        return self._first(self._query().where(_KERNELS.c.kernel_id == kernel_id), Kernel)

    def best(self, limit: int = 10) -> list[Kernel]:
        """Kernels of highest phi (integration), highest first."""
        known = self._query().where(_KERNELS.c.phi.is_not(None))
        return self._all(known.order_by(_KERNELS.c.phi.desc(), _KERNELS.c.kernel_id).limit(limit), Kernel)

    def history(self, kernel_id: str) -> Iterator[KernelState]:
        """The kernel after each of its events, in order of time, streamed."""
        query = select(*_STATE_COLUMNS).where(_HISTORY.c.kernel_id == kernel_id)
        if self.simulation_id:
            query = query.where(self._own(_HISTORY))
        return self._stream(query.order_by(_HISTORY.c.timestamp, _HISTORY.c.id), KernelState)

    def wars(self, kernel_id: str | None = None) -> Iterator[War]:
        """Wars (of one kernel) in order of time, streamed."""
        query = select(*_WAR_COLUMNS).order_by(_WARS.c.timestamp, _WARS.c.war_id)
        if self.simulation_id:
            query = query.where(self._own(_WARS))
        if kernel_id is not None:
            query = query.where(or_(_WARS.c.attacker_id == kernel_id, _WARS.c.defender_id == kernel_id))
        return self._stream(query, War)

    def find_similar_basins(
        self, query: Sequence[float] | NDArray[np.floating], limit: int = 10
    ) -> list[SimilarKernel]:
        """The ``limit`` kernels whose basins are nearest to ``query`` by cosine distance, nearest first.

        ``query`` has 8 numbers, not all zero; equal distances are ordered by kernel and simulation. Every database
        gives the same result: distances are computed here, in double precision, over all kernels or, on PostgreSQL,
        over its nearest candidates. Above 100,000 kernels these come from its HNSW index, which may miss one.
        Raises InvalidEvent.
        """
        wanted = Vector(BASIN_SIZE).as_array(query).astype(np.float64)
        length = float(np.linalg.norm(wanted))
        if length == 0.0:
            raise InvalidEvent("expected a basin with a direction, got a basin of zeros; give one that is not zero")
        with self.engine.connect() as connection:
            ids, basins = self._candidates(connection, wanted, limit)
        norms = np.linalg.norm(basins, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            distances = 1.0 - (basins @ wanted) / (norms * length)
        # A stored basin of zeros has no direction either, and is never returned.
        usable = np.flatnonzero(np.isfinite(distances))
        order = sorted(usable.tolist(), key=lambda row: (distances[row], ids[row][0], ids[row][1]))[:limit]
        return [SimilarKernel(*ids[row], distance=float(distances[row])) for row in order]

    def _candidates(
        self, connection: Connection, wanted: NDArray[np.float64], limit: int
    ) -> tuple[list[tuple[str, str, str | None]], NDArray[np.float64]]:
        names = (_KERNELS.c.kernel_id, _KERNELS.c.simulation_id, _KERNELS.c.god_name, _KERNELS.c.basin_coordinates)
        query = select(*names).where(_KERNELS.c.basin_coordinates.is_not(None))
        if self.simulation_id:
            query = query.where(self._own(_KERNELS))
        if connection.dialect.name == "postgresql":
            _choose_plan(connection, limit)
            nearness = _KERNELS.c.basin_coordinates.op("<=>")(wanted.tolist())
            query = query.order_by(nearness).limit(limit + _SPARE)
        rows = connection.execute(query).all()
        basins = np.array([row[3] for row in rows], np.float64).reshape(-1, BASIN_SIZE)
        return [(row[0], row[1], row[2]) for row in rows], basins

    def _query(self) -> Select[Any]:
        query = select(*_KERNEL_COLUMNS)
        return query.where(self._own(_KERNELS)) if self.simulation_id else query


def _choose_plan(connection: Connection, limit: int) -> None:
    """Compare all kernels if that is cheap, else let the index search well beyond the limit."""
    size = connection.execute(text("SELECT reltuples FROM pg_class WHERE oid = 'kernel_geometry'::regclass")).scalar()
    if size is None or size <= _EXACT_ROWS:
        connection.execute(text("SET LOCAL enable_indexscan = off"))
    else:
        connection.execute(text(f"SET LOCAL hnsw.ef_search = {min(1000, 4 * limit + 200)}"))
        connection.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
