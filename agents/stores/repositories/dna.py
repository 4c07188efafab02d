"""Queries about dna: snapshots of agents' configurations, mutations and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import DnaMutation, DnaSnapshot, KarmaScore

__all__ = ["DnaRepository", "Mutation", "Score", "Snapshot"]

_SNAPSHOTS = DnaSnapshot.__table__
_MUTATIONS = DnaMutation.__table__
_SCORES = KarmaScore.__table__


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot; ``created_at`` is in seconds since 1970, and None while only a score is known."""

    snapshot_id: int
    agent_id: str | None
    version: int | None
    source: str | None
    parent_snapshot_id: int | None
    dna_size: int | None
    traits_count: int | None
    reason: str | None
    created_at: float | None


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mutation and the snapshot that it made."""

    snapshot_id: int
    agent_id: str | None
    version: int | None
    parent_snapshot_id: int | None
    mutation_keys: Any
    traits_delta: Any
    reason: str | None
    created_at: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """One score of one snapshot."""

    id: int
    snapshot_id: int
    agent_id: str | None
    version: int | None
    karma_score: float | None
    previous_score: float | None
    score_delta: float | None
    updated_at: float | None


_SNAPSHOT_COLUMNS = columns_of(DnaSnapshot, Snapshot)
_MUTATION_COLUMNS = columns_of(DnaMutation, Mutation)
_SCORE_COLUMNS = columns_of(KarmaScore, Score)


class DnaRepository(Repository):
    """Snapshots, mutations and scores of one simulation; of services that publish them, of ``external``."""

    def get(self, snapshot_id: int) -> Snapshot | None:
        """The snapshot, or None."""
        return self._first(self._snapshots().where(_SNAPSHOTS.c.snapshot_id == snapshot_id), Snapshot)

    def snapshots(self, agent_id: str | None = None) -> Iterator[Snapshot]:
        """Snapshots (of one agent) in order of their ids, streamed."""
        query = self._snapshots().order_by(_SNAPSHOTS.c.snapshot_id)
        return self._stream(query if agent_id is None else query.where(_SNAPSHOTS.c.agent_id == agent_id), Snapshot)

    def mutations(self, agent_id: str | None = None) -> Iterator[Mutation]:
        """Mutations (of one agent) in order of the snapshots they made, streamed."""
        query = select(*_MUTATION_COLUMNS).where(self._own(_MUTATIONS)).order_by(_MUTATIONS.c.snapshot_id)
        return self._stream(query if agent_id is None else query.where(_MUTATIONS.c.agent_id == agent_id), Mutation)

    def scores(self, snapshot_id: int | None = None, *, agent_id: str | None = None) -> Iterator[Score]:
        """Scores (of one snapshot, of one agent) in order of time, streamed."""
        query = select(*_SCORE_COLUMNS).where(self._own(_SCORES)).order_by(_SCORES.c.updated_at, _SCORES.c.id)
        if snapshot_id is not None:
            query = query.where(_SCORES.c.snapshot_id == snapshot_id)
        return self._stream(query if agent_id is None else query.where(_SCORES.c.agent_id == agent_id), Score)

    def best(self, limit: int = 10) -> list[Score]:
        """The highest scores, highest first."""
        query = select(*_SCORE_COLUMNS).where(self._own(_SCORES), _SCORES.c.karma_score.is_not(None))
        return self._all(query.order_by(_SCORES.c.karma_score.desc(), _SCORES.c.id).limit(limit), Score)

    def ancestors(self, snapshot_id: int, *, most: int = 1_000) -> list[Snapshot]:
        """Parent, grandparent and so on of a snapshot, nearest first, at most ``most`` of them."""
        found: list[Snapshot] = []
        seen = {snapshot_id}
        current = self.get(snapshot_id)
        while current is not None and current.parent_snapshot_id is not None and len(found) < most:
            if current.parent_snapshot_id in seen:
                break
            seen.add(current.parent_snapshot_id)
            current = self.get(current.parent_snapshot_id)
            if current is not None:
                found.append(current)
        return found

    def _snapshots(self) -> Select[Any]:
        return select(*_SNAPSHOT_COLUMNS).where(self._own(_SNAPSHOTS))
