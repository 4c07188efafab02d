"""Event types of the ``dna`` scenario: three events in the dna envelope (docs/events.md), keyed by agent."""

from __future__ import annotations

from typing import Final

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["EVENT_TYPES"]

_SNAPSHOT: Final = Field(
    "int64", "id of the snapshot: tick * 2^25 + agent; it increases and is never used again", low=0
)
_AGENT: Final = Field("string", "the agent")
_VERSION: Final = Field("int64", "number of the snapshot among those of its agent", "snapshots", low=1)
_CREATED: Final = Field("float64", "event time of the snapshot", "s since 1970", low=0)
_SIZES: Final = {
    "dna_size": Field("int32", "keys that the configuration holds; others are at their default", "keys", 0, 12),
    "traits_count": Field("int32", "traits that the configuration expresses, those above 0", "traits", 0, 5),
}
_FIRST: Final = "in an agent's first snapshot"

EVENT_TYPES = (
    EventType(
        stream="dna.snapshot_created",
        key="agent_id",
        about={
            "snapshot_id": _SNAPSHOT,
            "agent_id": _AGENT,
            "version": _VERSION,
            "source": Field("string", "who made it", values=("manual", "system", "mutation")),
            "parent_snapshot_id": Field("int64", "snapshot from which it was made", low=0, null=_FIRST),
            **_SIZES,
            "reason": Field("string", "why it was made, as text"),
            "created_at": _CREATED,
        },
        types=("dna.snapshot_created",),
        priority="critical",
        envelope="dna",
        doc="A snapshot of an agent's configuration, made by the agent's owner or by the system.",
    ),
    EventType(
        stream="dna.mutation_applied",
        key="agent_id",
        about={
            "snapshot_id": Field("int64", "id of the snapshot that the mutation made", low=0),
            "agent_id": _AGENT,
            "version": _VERSION,
            "parent_snapshot_id": Field("int64", "snapshot that was mutated", low=0),
            "mutation_keys": Field("json", "JSON list of the keys that changed"),
            "traits_delta": Field("json", "JSON object: change of each trait that changed"),
            "reason": Field("string", "why it was applied, as text"),
            **_SIZES,
            "created_at": _CREATED,
        },
        types=("dna.mutation_applied",),
        priority="critical",
        envelope="dna",
        doc="A mutation and the snapshot it made.",
    ),
    EventType(
        stream="dna.karma_updated",
        key="agent_id",
        about={
            "snapshot_id": Field("int64", "the snapshot that was scored", low=0),
            "agent_id": _AGENT,
            "version": _VERSION,
            "karma_score": Field("float64", "score; of 0.85 and more: elite", "score", 0.0, 1.0),
            "previous_score": Field(
                "float64", "the agent's score before", "score", 0.0, 1.0, null="in its first score"
            ),
            "score_delta": Field(
                "float64", "karma_score less previous_score", "score", -1.0, 1.0, null="in an agent's first score"
            ),
            "updated_at": Field("float64", "event time of the score", "s since 1970", low=0),
        },
        types=("dna.karma_updated",),
        envelope="dna",
        doc="The score of a snapshot.",
    ),
)
