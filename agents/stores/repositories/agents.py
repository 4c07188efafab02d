"""Queries about agents: births, deaths, types, health incidents and lineage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, literal, or_, select
from sqlalchemy.orm import aliased

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import AgentModel, HealthIncident

__all__ = ["Agent", "AgentRepository", "Descent", "Incident", "LineageRepository"]

_AGENTS = AgentModel.__table__
_INCIDENTS = HealthIncident.__table__


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. ``birth_time`` is None for an agent that is only known from references to it."""

    agent_id: str
    simulation_id: str
    birth_time: int | None
    death_time: int | None
    agent_type: str | None
    position_x: float | None
    position_y: float | None
    initial_resources: float | None
    starting_health: float | None
    starvation_threshold: int | None
    genome_id: str | None
    parent_id: str | None
    generation: int | None


@dataclass(frozen=True, slots=True)
class Incident:
    """A change of an agent's health."""

    incident_id: int
    step_number: int | None
    agent_id: str
    health_before: float | None
    health_after: float | None
    cause: str | None
    details: str | None


@dataclass(frozen=True, slots=True)
class Descent:
    """An ancestor or descendant at a distance of ``distance`` generations."""

    agent_id: str
    parent_id: str | None
    generation: int | None
    distance: int


_AGENT_COLUMNS = columns_of(AgentModel, Agent)
_INCIDENT_COLUMNS = columns_of(HealthIncident, Incident)


class AgentRepository(Repository):
    """Agents of one simulation."""

    def get(self, agent_id: str) -> Agent | None:
        """The agent, or None."""
        return self._first(self._query().where(_AGENTS.c.agent_id == agent_id), Agent)

    def all(self, *, agent_type: str | None = None) -> Iterator[Agent]:
        """All agents (of a type) in order of birth, streamed."""
        query = self._query().order_by(_AGENTS.c.birth_time)
        return self._stream(query if agent_type is None else query.where(_AGENTS.c.agent_type == agent_type), Agent)

    def alive_at(self, step: int) -> Iterator[Agent]:
        """Agents born at or before ``step`` and not dead at ``step``, streamed."""
        living = or_(_AGENTS.c.death_time.is_(None), _AGENTS.c.death_time > step)
        return self._stream(self._query().where(_AGENTS.c.birth_time <= step, living), Agent)

    def count_by_type(self) -> dict[str, int]:
        """Total number of agents, by type."""
        query = select(_AGENTS.c.agent_type, func.count()).where(self._own(_AGENTS), _AGENTS.c.agent_type.is_not(None))
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(_AGENTS.c.agent_type))}

    def children(self, agent_id: str) -> list[Agent]:
        """Agents whose parent is ``agent_id``, in order of birth."""
        return self._all(self._query().where(_AGENTS.c.parent_id == agent_id).order_by(_AGENTS.c.birth_time), Agent)

    def incidents(self, agent_id: str) -> list[Incident]:
        """Health incidents of the agent, in order of steps."""
        mine = (_INCIDENTS.c.agent_id == agent_id, self._own(_INCIDENTS))
        return self._all(select(*_INCIDENT_COLUMNS).where(*mine).order_by(_INCIDENTS.c.step_number), Incident)

    def _query(self) -> Select[Any]:
        return select(*_AGENT_COLUMNS).where(self._own(_AGENTS))


class LineageRepository(Repository):
    """Lineage of the agents of one simulation."""

    def ancestors(self, agent_id: str, *, most: int = 1_000) -> list[Descent]:
        """Parent, grandparent and so on, nearest first, at most ``most`` of them."""
        found: list[Descent] = []
        current: str | None = agent_id
        seen = {agent_id}
        with self.engine.connect() as connection:
            while current is not None and len(found) < most:
                child = select(_AGENTS.c.parent_id).where(_AGENTS.c.agent_id == current, self._own(_AGENTS))
                parent = connection.execute(child).scalar()
                if parent is None or parent in seen:
                    break
                own = select(_AGENTS.c.parent_id, _AGENTS.c.generation).where(
                    _AGENTS.c.agent_id == parent, self._own(_AGENTS)
                )
                row = connection.execute(own).first()
                grandparent, generation = row if row is not None else (None, None)
                found.append(Descent(parent, grandparent, generation, len(found) + 1))
                seen.add(parent)
                current = parent
        return found

    def descendants(self, agent_id: str, *, within: int = 1_000) -> Iterator[Descent]:
        """Children, grandchildren and so on up to ``within`` generations, nearest first, streamed."""
        root = select(_AGENTS.c.agent_id, _AGENTS.c.parent_id, _AGENTS.c.generation, literal(1).label("distance"))
        tree = root.where(self._own(_AGENTS), _AGENTS.c.parent_id == agent_id).cte("tree", recursive=True)
        child = aliased(AgentModel)
        tree = tree.union(
            select(child.agent_id, child.parent_id, child.generation, tree.c.distance + 1).where(
                child.simulation_id == self.simulation_id,
                child.parent_id == tree.c.agent_id,
                tree.c.distance < within,
            )
        )
        return self._stream(select(tree).order_by(tree.c.distance, tree.c.agent_id), Descent)

    def founders(self) -> Iterator[Agent]:
        """Agents without a parent, in order of birth, streamed."""
        query = select(*_AGENT_COLUMNS).where(self._own(_AGENTS), _AGENTS.c.parent_id.is_(None))
        return self._stream(query.where(_AGENTS.c.birth_time.is_not(None)).order_by(_AGENTS.c.birth_time), Agent)
