"""Event types of the ``ecology`` scenario, with the columns of its tables (docs/data.md).

``simulation_id`` is the frame's run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["AGENT_TYPES", "EVENT_TYPES"]

AGENT_TYPES = ("system", "independent", "control")

_AGENT: Final = Field(
    "int64", "id of the agent: (birth_time + 1) * 2^25 + place, of a founder its place; never used again", low=0
)
_STEP: Final = Field("int64", "step", "steps", low=0)
_TYPE: Final = Field("string", "type of the agent, inherited", values=AGENT_TYPES)
_X: Final = Field("float32", "middle of the tile; the islands' maps lie side by side", "tiles", low=0)
_Y: Final = Field("float32", "middle of the tile", "tiles", low=0)
_ACTIONS: Final = ("move", "gather", "attack", "defend", "share", "reproduce", "learn")
_AT_DEATH: Final = "in the record of a death"


def _flow(what: str, unit: str) -> Field:
    return Field("int64" if unit in ("agents", "attacks") else "float64", f"{what} since the previous row", unit, low=0)


EVENT_TYPES = (
    EventType(
        stream="agents",
        key="region",
        about={
            "agent_id": _AGENT,
            "birth_time": Field(
                "int64", "step in which the agent was born, that of the event born; 0 for founders", "steps", low=0
            ),
            "death_time": Field(
                "int64", "step in which it died, that of the event died", "steps", low=0,
                null="in the record of a birth",
            ),
            "agent_type": _TYPE,
            "position_x": replace(_X, null=_AT_DEATH),
            "position_y": replace(_Y, null=_AT_DEATH),
            "initial_resources": Field("float32", "resources at birth", "resources", low=0, null=_AT_DEATH),
            "starting_health": Field(
                "float32", "health at birth", "share", 0.0, 1.0, null=_AT_DEATH, constant="1: all are born healthy"
            ),
            "starvation_threshold": Field(
                "int32", "steps without resources until death", "steps", low=1, null=_AT_DEATH,
                constant="the setting starvation_threshold",
            ),
            "genome_id": Field(
                "int64", "founding genome, inherited; one that sweeps the population replaces it", low=0, high=63
            ),
            "parent_id": Field("int64", "the parent", low=0, null="of founders, and in the record of a death"),
            "generation": Field("int32", "births between the agent and its founder", "generations", low=0),
        },
        types=("born", "died"),
        priority="critical",
        doc="An agent at its birth, and once more with death_time at its death.",
    ),
    EventType(
        stream="agent_states",
        key="region",
        about={
            "step_number": _STEP,
            "agent_id": _AGENT,
            "position_x": _X,
            "position_y": _Y,
            "position_z": Field("float32", "height", "tiles", 0.0, 0.0, constant="0: the map is flat"),
            "resource_level": Field("float32", "resources that the agent holds", "resources", low=0),
            "current_health": Field("float32", "health", "share", 0.0, 1.0),
            "is_defending": Field("bool", "whether its action in this step was to defend itself"),
            "total_reward": Field("float32", "sum of the rewards of all its actions", "resources"),
            "age": Field(
                "int32", "step_number less birth_time; one more for founders, who act in step 0", "steps", low=0
            ),
        },
        types=("state",),
        doc="State of one agent of the sample after one step.",
    ),
    EventType(
        stream="resource_states",
        key="region",
        about={
            "step_number": _STEP,
            "resource_id": Field("int64", "number of the tile", low=0),
            "amount": Field("float32", "resources on the tile", "resources", low=0),
            "position_x": _X,
            "position_y": _Y,
        },
        types=("state",),
        doc="Resources of one tile of the sample after one step.",
    ),
    EventType(
        stream="simulation_steps",
        key="simulation_id",
        about={
            "simulation_id": Field("string", "the run", constant="one run"),
            "step_number": Field("int64", "step at whose end the row was made", "steps", low=0),
            "total_agents": Field("int64", "living agents", "agents", low=0),
            "system_agents": Field("int64", "living agents of type system", "agents", low=0),
            "independent_agents": Field("int64", "living agents of type independent", "agents", low=0),
            "control_agents": Field("int64", "living agents of type control", "agents", low=0),
            "births": _flow("births", "agents"),
            "deaths": _flow("deaths", "agents"),
            "current_max_generation": Field("int64", "largest generation of the living", "generations", low=0),
            "average_agent_age": Field("int64", "mean age of the living, rounded down", "steps", low=0),
            "combat_encounters": _flow("attacks that met another agent", "attacks"),
            "successful_attacks": _flow("those that succeeded", "attacks"),
            "total_resources": Field("float64", "resources on all tiles", "resources", low=0),
            "average_agent_resources": Field("float64", "mean resources of the living", "resources", low=0),
            "resource_efficiency": Field(
                "float64", "resources_consumed divided by itself and what is left on the tiles", "share", 0.0, 1.0
            ),
            "resource_distribution_entropy": Field(
                "float64", "Shannon entropy of the tiles' shares of all resources, divided by ln(tiles): 1 is even",
                "share", 0.0, 1.0,
            ),
            "average_agent_health": Field("float64", "mean health of the living", "share", 0.0, 1.0),
            "average_reward": Field("float64", "mean total reward of the living", "resources"),
            "resources_shared": _flow("resources given to others", "resources"),
            "genetic_diversity": Field(
                "float64", "effective number of genomes, 1 / sum of squared shares, divided by the 64 that exist",
                "share", 0.0, 1.0,
            ),
            "dominant_genome_ratio": Field("float64", "share of the commonest genome", "share", 0.0, 1.0),
            "resources_consumed": _flow("resources gathered", "resources"),
        },
        types=("step",),
        priority="critical",
        doc="All agents and tiles, not sampled.",
    ),
    EventType(
        stream="agent_actions",
        key="region",
        about={
            "action_id": Field("int64", "id of the action: step * 2^25 + place of the agent", low=0),
            "step_number": _STEP,
            "agent_id": _AGENT,
            "action_type": Field("string", "what the agent did", values=_ACTIONS),
            "action_target_id": Field("int64", "agent that was attacked or received a gift", low=0,
                                      null="where there is none"),
            "state_before_id": Field("string", "'<agent_id>-<step_number - 1>' of agent_states"),
            "state_after_id": Field("string", "'<agent_id>-<step_number>' of agent_states"),
            "resources_before": Field("float32", "resources of the agent before the step", "resources", low=0),
            "resources_after": Field("float32", "resources of the agent after the step", "resources", low=0),
            "reward": Field("float32", "change of resources less lost health", "resources"),
            "details": Field("json", "JSON object with the amount that was gathered, stolen or given",
                             null="where the amount is 0"),
        },
        types=_ACTIONS,
        doc="One action of one agent of the sample.",
    ),
    EventType(
        stream="learning_experiences",
        key="region",
        about={
            "experience_id": Field("int64", "id of the action from which the agent learned", low=0),
            "step_number": _STEP,
            "agent_id": _AGENT,
            "module_type": Field("string", "part of the agent that decides such actions"),
            "module_id": Field("string", "'policy-<agent_id>'"),
            "action_taken": Field("int32", "number of the action", low=0, high=6),
            "action_taken_mapped": Field("string", "the action", values=_ACTIONS),
            "reward": Field("float32", "change of resources less lost health", "resources"),
        },
        types=("experience",),
        doc="What an agent of the sample learned from: its action and the reward.",
    ),
    EventType(
        stream="health_incidents",
        key="region",
        about={
            "incident_id": Field("int64", "id of the incident: step * 2^25 + place of the agent", low=0),
            "step_number": _STEP,
            "agent_id": _AGENT,
            "health_before": Field("float32", "health before the step", "share", 0.0, 1.0),
            "health_after": Field("float32", "health after the step", "share", 0.0, 1.0),
            "cause": Field("string", "the event's type", values=("attack", "starvation", "healing", "old_age")),
            "details": Field("json", "JSON object with attacker_id", null="unless the cause is an attack"),
        },
        types=("attack", "starvation", "healing", "old_age"),
        priority="critical",
        doc="A change of an agent's health and its cause, none dropped.",
    ),
)  # fmt: skip
