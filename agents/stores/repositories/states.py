"""Queries about states of agents and resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import Select, cast, func, select

from astrocyte.agents.stores.repositories.base import Repository, arrow_reader, columns_of
from astrocyte.schemas.tables import AgentStateModel, ResourceModel
from astrocyte.schemas.tables.base import Real

__all__ = ["AgentState", "ResourceState", "StateMeans", "StateRepository"]

_STATES = AgentStateModel.__table__
_RESOURCES = ResourceModel.__table__


@dataclass(frozen=True, slots=True)
class AgentState:
    """State of one agent at one step."""

    id: str
    step_number: int
    agent_id: str
    position_x: float | None
    position_y: float | None
    position_z: float | None
    resource_level: float | None
    current_health: float | None
    is_defending: bool | None
    total_reward: float | None
    age: int | None


@dataclass(frozen=True, slots=True)
class ResourceState:
    """Amount of one resource at one step."""

    id: int
    step_number: int
    resource_id: int
    amount: float | None
    position_x: float | None
    position_y: float | None


@dataclass(frozen=True, slots=True)
class StateMeans:
    """Means over all agents at one step."""

    step_number: int
    agents: int
    resource_level: float | None
    current_health: float | None
    total_reward: float | None
    age: float | None


_STATE_COLUMNS = columns_of(AgentStateModel, AgentState)
_RESOURCE_COLUMNS = columns_of(ResourceModel, ResourceState)


class StateRepository(Repository):
    """States of one simulation."""

    def history(self, agent_id: str) -> Iterator[AgentState]:
        """States of one agent in order of steps, streamed."""
        return self._stream(self._of(agent_id).order_by(_STATES.c.step_number), AgentState)

    def latest(self, agent_id: str) -> AgentState | None:
        """The agent's last state, or None."""
        return self._first(self._of(agent_id).order_by(_STATES.c.step_number.desc()), AgentState)

    def at_step(self, step: int) -> Iterator[AgentState]:
        """States of all agents at one step, streamed."""
        return self._stream(self._between(step, step + 1), AgentState)

    def means(self, first_step: int, end_step: int) -> list[StateMeans]:
        """Means over the agents at each step from ``first_step`` up to, not including, ``end_step``."""
        means = (_STATES.c.resource_level, _STATES.c.current_health, _STATES.c.total_reward, _STATES.c.age)
        query = select(_STATES.c.step_number, func.count(), *(cast(func.avg(column), Real) for column in means))
        query = query.where(*self._steps(first_step, end_step)).group_by(_STATES.c.step_number)
        return self._all(query.order_by(_STATES.c.step_number), StateMeans)

    def arrow(self, first_step: int, end_step: int) -> pa.RecordBatchReader:
        """States of all agents from ``first_step`` up to, not including, ``end_step``, as Arrow batches."""
        return arrow_reader(self.engine, self._between(first_step, end_step), _STATE_COLUMNS)

    def resources_at_step(self, step: int) -> Iterator[ResourceState]:
        """All resources at one step, streamed."""
        mine = (self._own(_RESOURCES), _RESOURCES.c.step_number == step)
        return self._stream(select(*_RESOURCE_COLUMNS).where(*mine).order_by(_RESOURCES.c.resource_id), ResourceState)

    def _of(self, agent_id: str) -> Select[Any]:
        mine = (_STATES.c.agent_id == agent_id, self._own(_STATES))
        return select(*_STATE_COLUMNS).where(*mine)

    def _steps(self, first_step: int, end_step: int) -> tuple[Any, ...]:
        return (self._own(_STATES), _STATES.c.step_number >= first_step, _STATES.c.step_number < end_step)

    def _between(self, first_step: int, end_step: int) -> Select[Any]:
        return select(*_STATE_COLUMNS).where(*self._steps(first_step, end_step)).order_by(_STATES.c.step_number)
