"""Event types of the ``kernels`` scenario: the columns of the table kernel_geometry (docs/data.md), and wars."""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType

__all__ = ["EVENT_TYPES"]

EVENT_TYPES = (
    EventType(
        stream="kernel_geometry",
        key="simulation_id",
        fields={
            "kernel_id": "int64",
            "god_name": "string",
            "domain": "string",
            "primitive_root": "int32",
            "basin_coordinates": "list<float32>",
            "parent_kernels": "json",
            "phi": "float64",
            "kappa": "float64",
            "regime": "string",
            "generation": "int32",
            "success_count": "int32",
            "failure_count": "int32",
            "element_group": "string",
            "ecological_niche": "string",
            "target_function": "string",
            "valence": "int32",
            "breeding_target": "string",
            "training_steps": "int64",
            "spawned_at": "int64",
        },
        types=("spawned", "merged", "bred", "updated", "retired"),
        priority="critical",
        doc="A kernel after it was spawned, merged, bred or trained; basin_coordinates has 8 values, "
        "primitive_root is 0..239, regime is linear, geometric or breakdown, parent_kernels a JSON list of ids.",
    ),
    EventType(
        stream="war_history",
        key="simulation_id",
        fields={
            "war_id": "int64",
            "mode": "string",
            "attacker_id": "int64",
            "defender_id": "int64",
            "winner_id": "int64",
            "attacker_phi": "float64",
            "defender_phi": "float64",
            "phi_delta": "float64",
            "rounds": "int32",
            "outcome": "string",
        },
        types=("war",),
        priority="critical",
        doc="One war between two kernels and who won it.",
    ),
)
