"""Tables of the ``ecology`` scenario: agents, their states, actions, learning experiences and health incidents.

Ids are unique in their simulation, not in the database: every primary key is (id, simulation_id), so two simulations
may both have an agent "1". ``agent_id`` is the event's number as text; a state's id is "<agent_id>-<step_number>". The
sink inserts a placeholder row with a null ``birth_time`` for an agent that another row refers to before the agent's own
event arrives. So foreign keys hold in any order of the topics; the agent's event completes the row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKeyConstraint, Index, Integer, PrimaryKeyConstraint, String, text
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column, relationship

from astrocyte.schemas.tables.base import Base, Real, Recorded, simulation_key
from astrocyte.schemas.tables.experiments import Simulation

__all__ = [
    "ActionModel",
    "AgentModel",
    "AgentStateModel",
    "HealthIncident",
    "LearningExperienceModel",
    "ResourceModel",
    "SimulationStepModel",
    "resource_state_id",
]


def _of_agent(column: str = "agent_id") -> ForeignKeyConstraint:
    return ForeignKeyConstraint([column, "simulation_id"], ["agents.agent_id", "agents.simulation_id"])


def _by_agent(model: str) -> str:
    return (
        f"and_(AgentModel.agent_id == foreign({model}.agent_id), "
        f"AgentModel.simulation_id == foreign({model}.simulation_id))"
    )


def _of_state(column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint([column, "simulation_id"], ["agent_states.id", "agent_states.simulation_id"])


def _agent_index() -> Index:
    """Includes the step, by which an agent's history is ordered: else a planner may scan the whole index on steps."""
    return Index(None, "agent_id", "simulation_id", "step_number")


def _state_index(column: str) -> Index:
    """For retention: deleting a state looks up the actions that refer to it. Partial, as most refer to no state."""
    known = text(f"{column} IS NOT NULL")
    return Index(None, column, "simulation_id", sqlite_where=known, postgresql_where=known)


class AgentModel(Base):
    """One agent: birth, death (null while it lives) and initial attributes."""

    __tablename__ = "agents"

    agent_id: Mapped[str] = mapped_column(String(64))
    simulation_id: Mapped[str] = simulation_key()
    birth_time: Mapped[int | None] = mapped_column(BigInteger)
    death_time: Mapped[int | None] = mapped_column(BigInteger)
    agent_type: Mapped[str | None] = mapped_column(String(50))
    position_x: Mapped[float | None] = mapped_column(Real)
    position_y: Mapped[float | None] = mapped_column(Real)
    initial_resources: Mapped[float | None] = mapped_column(Real)
    starting_health: Mapped[float | None] = mapped_column(Real)
    starvation_threshold: Mapped[int | None] = mapped_column(Integer)
    genome_id: Mapped[str | None] = mapped_column(String(64))
    parent_id: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[int | None] = mapped_column(Integer)

    # For queries: rows are written by the sinks and the logger, in batches. Two foreign keys of an action name agents.
    simulation: Mapped[Simulation] = relationship(viewonly=True)
    states: Mapped[list[AgentStateModel]] = relationship(
        viewonly=True, back_populates="agent", order_by="AgentStateModel.step_number"
    )
    actions: Mapped[list[ActionModel]] = relationship(
        viewonly=True, back_populates="agent", order_by="ActionModel.action_id", primaryjoin=_by_agent("ActionModel")
    )
    health_incidents: Mapped[list[HealthIncident]] = relationship(
        viewonly=True, back_populates="agent", order_by="HealthIncident.incident_id"
    )
    learning_experiences: Mapped[list[LearningExperienceModel]] = relationship(
        viewonly=True, back_populates="agent", order_by="LearningExperienceModel.experience_id"
    )

    __table_args__ = (
        PrimaryKeyConstraint("agent_id", "simulation_id"),
        Index(None, "simulation_id", "agent_type"),
        Index(None, "simulation_id", "birth_time"),
        Index(None, "simulation_id", "death_time"),
        Index(None, "simulation_id", "parent_id"),
    )


def _state_id(context: DefaultExecutionContext) -> str:
    row = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return f"{row['agent_id']}-{row['step_number']}"


class AgentStateModel(Recorded, Base):
    """State of one agent at one step; ``id`` is "<agent_id>-<step_number>" and may be omitted."""

    __tablename__ = "agent_states"

    id: Mapped[str] = mapped_column(String(128), default=_state_id)
    simulation_id: Mapped[str] = mapped_column(String(64))
    step_number: Mapped[int] = mapped_column(BigInteger)
    agent_id: Mapped[str] = mapped_column(String(64))
    position_x: Mapped[float | None] = mapped_column(Real)
    position_y: Mapped[float | None] = mapped_column(Real)
    position_z: Mapped[float | None] = mapped_column(Real)
    resource_level: Mapped[float | None] = mapped_column(Real)
    current_health: Mapped[float | None] = mapped_column(Real)
    is_defending: Mapped[bool | None] = mapped_column(Boolean)
    total_reward: Mapped[float | None] = mapped_column(Real)
    age: Mapped[int | None] = mapped_column(Integer)

    agent: Mapped[AgentModel] = relationship(viewonly=True, back_populates="states")

    # agents already refers to simulations: a second foreign key would only cost a check for every row.
    __table_args__ = (
        PrimaryKeyConstraint("id", "simulation_id"),
        _of_agent(),
        _agent_index(),
        Index(None, "simulation_id", "step_number"),
    )


def resource_state_id(step_number: int, resource_id: int) -> int:
    """Id of a resource's state: step and resource in one 64-bit number, so that writing it again gives the same id."""
    return (step_number << 31) | resource_id


def _resource_id(context: DefaultExecutionContext) -> Any:
    row = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return resource_state_id(row["step_number"], row["resource_id"])


class ResourceModel(Recorded, Base):
    """Amount of one resource at one step; ``id`` is `resource_state_id` and may be omitted."""

    __tablename__ = "resource_states"

    id: Mapped[int] = mapped_column(BigInteger, default=_resource_id, autoincrement=False)
    simulation_id: Mapped[str] = simulation_key()
    step_number: Mapped[int] = mapped_column(BigInteger)
    resource_id: Mapped[int] = mapped_column(BigInteger)
    amount: Mapped[float | None] = mapped_column(Real)
    position_x: Mapped[float | None] = mapped_column(Real)
    position_y: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (
        PrimaryKeyConstraint("id", "simulation_id"),
        Index(None, "simulation_id", "step_number"),
        Index(None, "simulation_id", "resource_id"),
    )


class SimulationStepModel(Base):
    """Aggregates of one step over all agents."""

    __tablename__ = "simulation_steps"

    step_number: Mapped[int] = mapped_column(BigInteger)
    simulation_id: Mapped[str] = simulation_key()
    total_agents: Mapped[int | None] = mapped_column(BigInteger)
    system_agents: Mapped[int | None] = mapped_column(BigInteger)
    independent_agents: Mapped[int | None] = mapped_column(BigInteger)
    control_agents: Mapped[int | None] = mapped_column(BigInteger)
    total_resources: Mapped[float | None] = mapped_column(Real)
    average_agent_resources: Mapped[float | None] = mapped_column(Real)
    births: Mapped[int | None] = mapped_column(BigInteger)
    deaths: Mapped[int | None] = mapped_column(BigInteger)
    current_max_generation: Mapped[int | None] = mapped_column(BigInteger)
    resource_efficiency: Mapped[float | None] = mapped_column(Real)
    resource_distribution_entropy: Mapped[float | None] = mapped_column(Real)
    average_agent_health: Mapped[float | None] = mapped_column(Real)
    average_agent_age: Mapped[int | None] = mapped_column(BigInteger)
    average_reward: Mapped[float | None] = mapped_column(Real)
    combat_encounters: Mapped[int | None] = mapped_column(BigInteger)
    successful_attacks: Mapped[int | None] = mapped_column(BigInteger)
    resources_shared: Mapped[float | None] = mapped_column(Real)
    genetic_diversity: Mapped[float | None] = mapped_column(Real)
    dominant_genome_ratio: Mapped[float | None] = mapped_column(Real)
    resources_consumed: Mapped[float | None] = mapped_column(Real)

    __table_args__ = (PrimaryKeyConstraint("simulation_id", "step_number"),)


class ActionModel(Recorded, Base):
    """One action; the states before and after are set where those states are stored."""

    __tablename__ = "agent_actions"

    action_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    step_number: Mapped[int | None] = mapped_column(BigInteger)
    agent_id: Mapped[str] = mapped_column(String(64))
    action_type: Mapped[str | None] = mapped_column(String(20))
    action_target_id: Mapped[str | None] = mapped_column(String(64))
    state_before_id: Mapped[str | None] = mapped_column(String(128))
    state_after_id: Mapped[str | None] = mapped_column(String(128))
    resources_before: Mapped[float | None] = mapped_column(Real)
    resources_after: Mapped[float | None] = mapped_column(Real)
    reward: Mapped[float | None] = mapped_column(Real)
    details: Mapped[str | None] = mapped_column(String(1024))

    agent: Mapped[AgentModel] = relationship(
        viewonly=True, back_populates="actions", primaryjoin=_by_agent("ActionModel")
    )

    __table_args__ = (
        PrimaryKeyConstraint("action_id", "simulation_id"),
        _of_agent(),
        _of_agent("action_target_id"),
        _of_state("state_before_id"),
        _of_state("state_after_id"),
        Index(None, "simulation_id", "step_number"),
        _agent_index(),
        Index(None, "simulation_id", "action_type"),
        _state_index("state_before_id"),
        _state_index("state_after_id"),
    )


class LearningExperienceModel(Recorded, Base):
    """A learning experience: the action that an agent took and its reward."""

    __tablename__ = "learning_experiences"

    experience_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    step_number: Mapped[int | None] = mapped_column(BigInteger)
    agent_id: Mapped[str] = mapped_column(String(64))
    module_type: Mapped[str | None] = mapped_column(String(50))
    module_id: Mapped[str | None] = mapped_column(String(64))
    action_taken: Mapped[int | None] = mapped_column(Integer)
    action_taken_mapped: Mapped[str | None] = mapped_column(String(20))
    reward: Mapped[float | None] = mapped_column(Real)

    agent: Mapped[AgentModel] = relationship(viewonly=True, back_populates="learning_experiences")

    __table_args__ = (
        PrimaryKeyConstraint("experience_id", "simulation_id"),
        _of_agent(),
        Index(None, "simulation_id", "step_number"),
        _agent_index(),
        Index(None, "simulation_id", "module_type"),
    )


class HealthIncident(Recorded, Base):
    """A change of an agent's health and its cause."""

    __tablename__ = "health_incidents"

    incident_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    simulation_id: Mapped[str] = mapped_column(String(64))
    step_number: Mapped[int | None] = mapped_column(BigInteger)
    agent_id: Mapped[str] = mapped_column(String(64))
    health_before: Mapped[float | None] = mapped_column(Real)
    health_after: Mapped[float | None] = mapped_column(Real)
    cause: Mapped[str | None] = mapped_column(String(50))
    details: Mapped[str | None] = mapped_column(String(512))

    agent: Mapped[AgentModel] = relationship(viewonly=True, back_populates="health_incidents")

    __table_args__ = (
        PrimaryKeyConstraint("incident_id", "simulation_id"),
        _of_agent(),
        Index(None, "simulation_id", "step_number"),
        _agent_index(),
    )
