"""Event types of the ``ecology`` scenario, with the columns of its tables (docs/data.md).

``simulation_id`` is the frame's run.
"""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType, FieldType

__all__ = ["AGENT_TYPES", "EVENT_TYPES"]

AGENT_TYPES = ("system", "independent", "control")

_STEP_COUNTS: tuple[str, ...] = (
    "total_agents",
    "system_agents",
    "independent_agents",
    "control_agents",
    "births",
    "deaths",
    "current_max_generation",
    "average_agent_age",
    "combat_encounters",
    "successful_attacks",
)
_STEP_MEASURES: tuple[str, ...] = (
    "total_resources",
    "average_agent_resources",
    "resource_efficiency",
    "resource_distribution_entropy",
    "average_agent_health",
    "average_reward",
    "resources_shared",
    "genetic_diversity",
    "dominant_genome_ratio",
    "resources_consumed",
)
_STEP_FIELDS: dict[str, FieldType] = {
    "simulation_id": "string",
    "step_number": "int64",
    **dict.fromkeys(_STEP_COUNTS, "int64"),
    **dict.fromkeys(_STEP_MEASURES, "float64"),
}

EVENT_TYPES = (
    EventType(
        stream="agents",
        key="region",
        fields={
            "agent_id": "int64",
            "birth_time": "int64",
            "death_time": "int64",
            "agent_type": "string",
            "position_x": "float32",
            "position_y": "float32",
            "initial_resources": "float32",
            "starting_health": "float32",
            "starvation_threshold": "int32",
            "genome_id": "int64",
            "parent_id": "int64",
            "generation": "int32",
        },
        types=("born", "died"),
        priority="critical",
        doc="An agent at its birth, and once more with death_time at its death.",
    ),
    EventType(
        stream="agent_states",
        key="region",
        fields={
            "step_number": "int64",
            "agent_id": "int64",
            "position_x": "float32",
            "position_y": "float32",
            "position_z": "float32",
            "resource_level": "float32",
            "current_health": "float32",
            "is_defending": "bool",
            "total_reward": "float32",
            "age": "int32",
        },
        types=("state",),
        doc="State of one agent at one step.",
    ),
    EventType(
        stream="resource_states",
        key="region",
        fields={
            "step_number": "int64",
            "resource_id": "int64",
            "amount": "float32",
            "position_x": "float32",
            "position_y": "float32",
        },
        types=("state",),
        doc="Amount of one resource at one step.",
    ),
    EventType(
        stream="simulation_steps",
        key="simulation_id",
        fields=_STEP_FIELDS,
        types=("step",),
        priority="critical",
        doc="Aggregates of one step over all agents.",
    ),
    EventType(
        stream="agent_actions",
        key="region",
        fields={
            "action_id": "int64",
            "step_number": "int64",
            "agent_id": "int64",
            "action_type": "string",
            "action_target_id": "int64",
            "state_before_id": "string",
            "state_after_id": "string",
            "resources_before": "float32",
            "resources_after": "float32",
            "reward": "float32",
            "details": "json",
        },
        types=("move", "gather", "attack", "defend", "share", "reproduce", "learn"),
        doc="One action of one agent; action_target_id is null where it has no target. The states before "
        "and after are '<agent_id>-<step_number>' of agent_states, null where states are not written.",
    ),
    EventType(
        stream="learning_experiences",
        key="region",
        fields={
            "experience_id": "int64",
            "step_number": "int64",
            "agent_id": "int64",
            "module_type": "string",
            "module_id": "string",
            "action_taken": "int32",
            "action_taken_mapped": "string",
            "reward": "float32",
        },
        types=("experience",),
        doc="A learning experience: the action that an agent took and its reward.",
    ),
    EventType(
        stream="health_incidents",
        key="region",
        fields={
            "incident_id": "int64",
            "step_number": "int64",
            "agent_id": "int64",
            "health_before": "float32",
            "health_after": "float32",
            "cause": "string",
            "details": "json",
        },
        types=("attack", "starvation", "healing", "old_age"),
        priority="critical",
        doc="A change of an agent's health and its cause.",
    ),
)
