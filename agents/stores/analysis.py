"""Services and analyzers over one simulation: the profile of an agent, dominance of types, advantage of types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import case, cast, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import aliased

from astrocyte.agents.stores.repositories import (
    ActionRepository,
    ActionSummary,
    Agent,
    AgentRepository,
    AgentState,
    Descent,
    Incident,
    LineageRepository,
    PopulationRepository,
    StateRepository,
)
from astrocyte.schemas.tables import ActionModel, AgentModel, SimulationStepModel
from astrocyte.schemas.tables.base import Real

__all__ = [
    "Advantage",
    "AgentProfile",
    "Dominance",
    "DominanceStep",
    "advantage",
    "agent_profile",
    "dominance",
    "dominance_of",
    "dominance_steps",
]

TYPES: Final = ("system", "independent", "control")
"""Types of agents that ``simulation_steps`` counts."""


class Simulation(Protocol):
    """What is read of a simulation; a `SimulationView` has all of it."""

    simulation_id: str

    @property
    def engine(self) -> Engine: ...
    @property
    def agents(self) -> AgentRepository: ...
    @property
    def states(self) -> StateRepository: ...
    @property
    def actions(self) -> ActionRepository: ...
    @property
    def lineages(self) -> LineageRepository: ...
    @property
    def populations(self) -> PopulationRepository: ...


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """All that is known of one agent."""

    agent: Agent
    latest: AgentState | None
    actions: Sequence[ActionSummary]
    incidents: Sequence[Incident]
    ancestors: Sequence[Descent]
    children: int
    lifetime: int | None
    """Steps from birth to death; None while it lives, or where its birth is not known."""


def agent_profile(simulation: Simulation, agent_id: str) -> AgentProfile | None:
    """The profile of an agent, or None if the simulation does not have it."""
    agent = simulation.agents.get(agent_id)
    if agent is None:
        return None
    born, died = agent.birth_time, agent.death_time
    return AgentProfile(
        agent,
        simulation.states.latest(agent_id),
        simulation.actions.summary(agent_id=agent_id),
        simulation.agents.incidents(agent_id),
        simulation.lineages.ancestors(agent_id),
        len(simulation.agents.children(agent_id)),
        None if born is None or died is None else died - born,
    )


@dataclass(frozen=True, slots=True)
class DominanceStep:
    """One step: the type with the most agents (None: no agents, or a tie), and its share of them."""

    step_number: int
    dominant: str | None
    share: float


@dataclass(frozen=True, slots=True)
class Dominance:
    """Dominance over a whole run."""

    steps: dict[str, int]
    """Steps in which a type was dominant."""
    mean_share: dict[str, float]
    """Mean share of each type over the steps that have agents."""
    switches: int
    """How often another type became dominant; ties in between do not count."""
    final: str | None
    """Type that was dominant last."""


def dominance_steps(simulation: Simulation) -> Iterator[DominanceStep]:
    """The dominant type of each step, in order of steps, streamed."""
    for step, shares in _shares(simulation):
        yield DominanceStep(step, _dominant(shares), max(shares.values()))


def dominance(simulation: Simulation) -> Dominance:
    """Which type of agents dominated the population, for how long, and how often that changed."""
    return dominance_of((shares for _, shares in _shares(simulation)), TYPES)


def dominance_of(shares: Iterable[Mapping[str, float]], types: Sequence[str]) -> Dominance:
    """Dominance over steps, from the share of each type in each step: all 0 where there is no one."""
    sums = dict.fromkeys(types, 0.0)
    held = dict.fromkeys(types, 0)
    populated = switches = 0
    last: str | None = None
    for step in shares:
        populated += any(step.values())
        for name, share in step.items():
            sums[name] += share
        dominant = _dominant(step)
        if dominant is not None:
            held[dominant] += 1
            switches += last not in (None, dominant)
            last = dominant
    means = {name: total / populated if populated else 0.0 for name, total in sums.items()}
    return Dominance(held, means, switches, last)


def _shares(simulation: Simulation) -> Iterator[tuple[int, dict[str, float]]]:
    """Share of each type in the agents of each step; all are 0 where there are no agents."""
    for step in simulation.populations.steps():
        counts = [count or 0 for count in (step.system_agents, step.independent_agents, step.control_agents)]
        total = sum(counts)
        yield (
            step.step_number,
            {name: count / total if total else 0.0 for name, count in zip(TYPES, counts, strict=True)},
        )


def _dominant(shares: Mapping[str, float]) -> str | None:
    """The type with the largest share; None where there are no agents, or several types have it."""
    most = max(shares.values(), default=0.0)
    leading = [name for name, share in shares.items() if share == most]
    return leading[0] if most and len(leading) == 1 else None


@dataclass(frozen=True, slots=True)
class Advantage:
    """One type of agents, and what it has over all others: its mean less theirs, None where either is not known."""

    agent_type: str
    agents: int
    mean_lifetime: float | None
    """Steps from birth to death, or to the last step for agents that live."""
    survival: float
    """Share of its agents that live at the last step."""
    children: float
    """Children for each agent."""
    mean_reward: float | None
    """Mean reward of its actions."""
    lifetime_advantage: float | None
    survival_advantage: float | None
    children_advantage: float | None
    reward_advantage: float | None


@dataclass(slots=True)
class _Sums:
    agents: int = 0
    lifetime: float = 0.0
    alive: int = 0
    children: int = 0
    reward: float = 0.0
    actions: int = 0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.agents + other.agents, self.lifetime + other.lifetime, self.alive + other.alive,
            self.children + other.children, self.reward + other.reward, self.actions + other.actions,
        )  # fmt: skip

    def means(self) -> tuple[float | None, float | None, float | None, float | None]:
        return (
            _ratio(self.lifetime, self.agents), _ratio(self.alive, self.agents), _ratio(self.children, self.agents),
            _ratio(self.reward, self.actions),
        )  # fmt: skip


def advantage(simulation: Simulation) -> list[Advantage]:
    """How long agents of each type live, how many survive, breed, and earn, beside all other agents; by type."""
    by_type = _sums(simulation)
    found = []
    for name, sums in sorted(by_type.items()):
        rest = sum((each for other, each in by_type.items() if other != name), _Sums())
        own, others = sums.means(), rest.means()
        apart = [None if a is None or b is None else a - b for a, b in zip(own, others, strict=True)]
        found.append(Advantage(name, sums.agents, own[0], own[1] or 0.0, own[2] or 0.0, own[3], *apart))
    return found


def _sums(simulation: Simulation) -> dict[str, _Sums]:
    agents, actions, steps = AgentModel, ActionModel, SimulationStepModel
    child = aliased(AgentModel)
    own = simulation.simulation_id
    known = (agents.simulation_id == own, agents.agent_type.is_not(None), agents.birth_time.is_not(None))
    with simulation.engine.connect() as connection:
        latest = connection.execute(select(func.max(steps.step_number)).where(steps.simulation_id == own)).scalar()
        newest = connection.execute(
            select(func.max(func.coalesce(agents.death_time, agents.birth_time))).where(agents.simulation_id == own)
        ).scalar()
        end = max(latest or 0, newest or 0)
        lifetime = cast(func.sum(func.coalesce(agents.death_time, end) - agents.birth_time), Real)
        alive = func.sum(case((agents.death_time.is_(None), 1), else_=0))
        lives = select(agents.agent_type, func.count(), lifetime, alive).where(*known).group_by(agents.agent_type)
        found = {row[0]: _Sums(row[1], row[2], int(row[3])) for row in connection.execute(lives)}
        births = (
            select(agents.agent_type, func.count())
            .join(child, (child.parent_id == agents.agent_id) & (child.simulation_id == agents.simulation_id))
            .where(*known)
            .group_by(agents.agent_type)
        )
        for name, count in connection.execute(births):
            found[name].children = count
        rewards = (
            select(agents.agent_type, cast(func.sum(actions.reward), Real), func.count(actions.reward))
            .join(actions, (actions.agent_id == agents.agent_id) & (actions.simulation_id == agents.simulation_id))
            .where(*known)
            .group_by(agents.agent_type)
        )
        for name, reward, count in connection.execute(rewards):
            found[name].reward, found[name].actions = reward or 0.0, count
    return found


def _ratio(total: float, count: int) -> float | None:
    return total / count if count else None
