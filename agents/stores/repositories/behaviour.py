"""Queries about actions and learning experiences of agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import ActionModel, LearningExperienceModel

__all__ = ["Action", "ActionRepository", "ActionSummary", "Experience", "LearningProgress", "LearningRepository"]

_ACTIONS = ActionModel.__table__
_LEARNT = LearningExperienceModel.__table__


@dataclass(frozen=True, slots=True)
class Action:
    """One action of one agent."""

    action_id: int
    step_number: int | None
    agent_id: str
    action_type: str | None
    action_target_id: str | None
    state_before_id: str | None
    state_after_id: str | None
    resources_before: float | None
    resources_after: float | None
    reward: float | None
    details: str | None


@dataclass(frozen=True, slots=True)
class ActionSummary:
    """Count and mean reward of one type of action."""

    action_type: str | None
    count: int
    mean_reward: float | None


@dataclass(frozen=True, slots=True)
class Experience:
    """A learning experience: the action that an agent took and its reward."""

    experience_id: int
    step_number: int | None
    agent_id: str
    module_type: str | None
    module_id: str | None
    action_taken: int | None
    action_taken_mapped: str | None
    reward: float | None


@dataclass(frozen=True, slots=True)
class LearningProgress:
    """Mean reward of one type of module over the steps from ``first_step`` up to the next entry's."""

    module_type: str | None
    first_step: int
    count: int
    mean_reward: float | None


_ACTION_COLUMNS = columns_of(ActionModel, Action)
_EXPERIENCE_COLUMNS = columns_of(LearningExperienceModel, Experience)


class ActionRepository(Repository):
    """Actions of one simulation."""

    def of_agent(self, agent_id: str) -> Iterator[Action]:
        """Actions of one agent in order of steps, streamed."""
        return self._stream(
            self._query().where(_ACTIONS.c.agent_id == agent_id).order_by(_ACTIONS.c.step_number), Action
        )

    def between(self, first_step: int, end_step: int, *, action_type: str | None = None) -> Iterator[Action]:
        """Actions (of a type) from ``first_step`` up to, not including, ``end_step``, streamed."""
        steps = (_ACTIONS.c.step_number >= first_step, _ACTIONS.c.step_number < end_step)
        query = self._query().where(*steps).order_by(_ACTIONS.c.step_number)
        return self._stream(
            query if action_type is None else query.where(_ACTIONS.c.action_type == action_type), Action
        )

    def summary(self, *, agent_id: str | None = None) -> list[ActionSummary]:
        """Count and mean reward by type of action (of one agent), most frequent first."""
        count = func.count().label("count")
        query = select(_ACTIONS.c.action_type, count, func.avg(_ACTIONS.c.reward)).where(self._own(_ACTIONS))
        if agent_id is not None:
            query = query.where(_ACTIONS.c.agent_id == agent_id)
        return self._all(query.group_by(_ACTIONS.c.action_type).order_by(count.desc()), ActionSummary)

    def _query(self) -> Select[Any]:
        return select(*_ACTION_COLUMNS).where(self._own(_ACTIONS))


class LearningRepository(Repository):
    """Learning experiences of one simulation."""

    def of_agent(self, agent_id: str) -> Iterator[Experience]:
        """Experiences of one agent in order of steps, streamed."""
        query = select(*_EXPERIENCE_COLUMNS).where(self._own(_LEARNT), _LEARNT.c.agent_id == agent_id)
        return self._stream(query.order_by(_LEARNT.c.step_number), Experience)

    def progress(self, *, every: int = 100) -> list[LearningProgress]:
        """Mean reward by type of module over blocks of ``every`` steps."""
        # A remainder instead of a division: databases differ in integer division.
        block = (_LEARNT.c.step_number - _LEARNT.c.step_number % every).label("first_step")
        query = select(_LEARNT.c.module_type, block, func.count(), func.avg(_LEARNT.c.reward)).where(self._own(_LEARNT))
        return self._all(
            query.group_by(_LEARNT.c.module_type, block).order_by(_LEARNT.c.module_type, block), LearningProgress
        )
