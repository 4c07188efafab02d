"""Event types of the ``axons`` scenario: spikes of types A, B and C on three axons, and planted anomalies."""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType

__all__ = ["AXON_TYPES", "EVENT_TYPES"]

AXON_TYPES = ("A", "B", "C")

EVENT_TYPES = (
    *(
        EventType(
            stream=f"axon_{number}",
            key="domain",
            fields={"value": "float64"},
            types=AXON_TYPES,
            doc=f"Spikes on axon {number}, keyed by the domain that they reach.",
        )
        for number in (1, 2, 3)
    ),
    EventType(
        stream="truth",
        key="key",
        fields={"kind": "string", "rule": "string", "until": "int64", "members": "json"},
        types=("planted",),
        priority="critical",
        doc="Planted anomalies: the kind, its key, the interval [timestamp, until] in microseconds, and "
        "which rule should find it; ``members`` is a JSON list of the planted events (stream, sequence).",
    ),
)
