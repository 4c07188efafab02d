"""The three events of the dna scenario (the dna envelope, docs/events.md); their strings are made on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from astrocyte.simulator.event_spec import Column, EventSpec
from astrocyte.simulator.scenarios.dna.config import KEYS, TRAITS, DnaStatic

__all__ = ["BACKUP", "INITIAL", "ROLLBACK", "SAVE", "SOURCES", "agent_strings", "dna_events"]

INITIAL, SAVE, BACKUP, ROLLBACK = range(4)
"""Causes of a snapshot."""
SOURCES = ("manual", "system", "mutation")
_REASONS = {INITIAL: "Initial configuration snapshot", SAVE: "Production configuration backup",
            BACKUP: "Periodic backup"}  # fmt: skip
_KEY_FORMAT = "agent-{:05d}"

Values = Mapping[str, Any]


def agent_strings(values: Values) -> list[str]:
    """Ids of agents from their numbers."""
    return [_KEY_FORMAT.format(number) for number in values["agent"].tolist()]


def _seconds(values: Values) -> Any:
    return values["timestamp"] / 1e6


def _snapshot_reasons(values: Values) -> list[str]:
    return [
        f"Rollback to version {version} (better performance)" if cause == ROLLBACK else _REASONS[cause]
        for cause, version in zip(values["cause"].tolist(), values["back_to"].tolist(), strict=True)
    ]


def _mutation_keys(values: Values) -> list[str]:
    bits = values["changed"].tolist()
    return [orjson.dumps([key for n, key in enumerate(KEYS) if mask >> n & 1]).decode() for mask in bits]


def _traits_delta(values: Values) -> list[str]:
    rows = np.round(values["delta"].astype(np.float64), 4).tolist()
    return [
        orjson.dumps({trait: change for trait, change in zip(TRAITS, row, strict=True) if change}).decode()
        for row in rows
    ]


def _mutation_reasons(values: Values) -> list[str]:
    return [
        "Exploration phase"
        if mate < 0
        else f"Crossover with {_KEY_FORMAT.format(mate)}" + (" (elite)" if elite else "")
        for mate, elite in zip(values["mate"].tolist(), values["elite"].tolist(), strict=True)
    ]


def dna_events(static: DnaStatic) -> tuple[EventSpec, ...]:
    """Kinds of events of dna. A first score has no previous one, so it is a kind of its own."""
    agents = static.island_populations * static.size
    common = (Column("snapshot_id", "id"), Column("agent", "hidden", dtype="int32"),
              Column("agent_id", "derived", derive=agent_strings), Column("version", dtype="int32"))  # fmt: skip
    parent = Column("parent_snapshot_id", "id")
    created = Column("created_at", "derived", derive=_seconds)
    size = (Column("dna_size", dtype="int32"), Column("traits_count", dtype="int32"))
    updated = Column("updated_at", "derived", derive=_seconds)
    snapshot = (
        *common,
        parent,
        Column("source", "enum", SOURCES),
        *size,
        Column("cause", "hidden", dtype="int32"),
        Column("back_to", "hidden", dtype="int32"),
        Column("reason", "derived", derive=_snapshot_reasons),
        created,
    )
    mutation = (
        *common,
        parent,
        Column("changed", "hidden", dtype="int32"),
        Column("delta", "list", width=len(TRAITS)),
        Column("mate", "hidden", dtype="int32"),
        Column("elite", "hidden", dtype="bool"),
        Column("mutation_keys", "derived", derive=_mutation_keys),
        Column("traits_delta", "derived", derive=_traits_delta),
        Column("reason", "derived", derive=_mutation_reasons),
        *size,
        created,
    )
    first = (*common, Column("karma_score"), updated)
    score = (*common, Column("karma_score"), Column("previous_score"), Column("score_delta"), updated)

    def spec(kind: str, stream: str, columns: tuple[Column, ...]) -> EventSpec:
        rows = -(-int(agents * static.watched) // 32) * 32 + 32
        return EventSpec(kind, stream, columns, stream, key="agent", key_format=_KEY_FORMAT, capacity=rows)

    return (
        spec("snapshot", "dna.snapshot_created", snapshot),
        spec("mutation", "dna.mutation_applied", mutation),
        spec("first_karma", "dna.karma_updated", first),
        spec("karma", "dna.karma_updated", score),
    )
