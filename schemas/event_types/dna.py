"""Event types of the ``dna`` scenario: three events in the dna envelope (docs/events.md), keyed by agent."""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType

__all__ = ["EVENT_TYPES"]

EVENT_TYPES = (
    EventType(
        stream="dna.snapshot_created",
        key="agent_id",
        fields={
            "snapshot_id": "int64",
            "agent_id": "string",
            "version": "int64",
            "source": "string",
            "parent_snapshot_id": "int64",
            "dna_size": "int32",
            "traits_count": "int32",
            "reason": "string",
            "created_at": "float64",
        },
        types=("dna.snapshot_created",),
        priority="critical",
        envelope="dna",
        doc="A snapshot of an agent's configuration; source is manual, system or mutation.",
    ),
    EventType(
        stream="dna.mutation_applied",
        key="agent_id",
        fields={
            "snapshot_id": "int64",
            "agent_id": "string",
            "version": "int64",
            "parent_snapshot_id": "int64",
            "mutation_keys": "json",
            "traits_delta": "json",
            "reason": "string",
            "dna_size": "int32",
            "traits_count": "int32",
            "created_at": "float64",
        },
        types=("dna.mutation_applied",),
        priority="critical",
        envelope="dna",
        doc="A mutation and the snapshot it made; mutation_keys is a JSON list, traits_delta a JSON object.",
    ),
    EventType(
        stream="dna.karma_updated",
        key="agent_id",
        fields={
            "snapshot_id": "int64",
            "agent_id": "string",
            "version": "int64",
            "karma_score": "float64",
            "previous_score": "float64",
            "score_delta": "float64",
            "updated_at": "float64",
        },
        types=("dna.karma_updated",),
        envelope="dna",
        doc="The score (0 to 1) of a snapshot; scores of 0.85 and more belong to the elite pool.",
    ),
)
