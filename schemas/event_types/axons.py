"""Event types of the ``axons`` scenario: spikes of types A, B and C on three axons, and planted anomalies."""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["AXON_TYPES", "EVENT_TYPES"]

AXON_TYPES = ("A", "B", "C")

EVENT_TYPES = (
    *(
        EventType(
            stream=f"axon_{number}",
            key="domain",
            about={"value": Field("float64", "strength of the spike; planted ones have more than 20", "strength", 1.0)},
            types=AXON_TYPES,
            doc=f"Spikes on axon {number}, keyed by the domain that they reach.",
        )
        for number in (1, 2, 3)
    ),
    EventType(
        stream="truth",
        key="key",
        about={
            "kind": Field("string", "kind of the planted anomaly", constant="where one kind is planted"),
            "rule": Field(
                "string", "rule that should find it, or of type possible: may", constant="where one kind is planted"
            ),
            "until": Field("int64", "end of the interval that begins at the event's time", "us since 1970", low=0),
            "members": Field(
                "json", "JSON list of the planted events, each as stream and sequence number", null="where it has none",
                constant="where it has none",
            ),
        },
        types=("planted", "possible"),
        priority="critical",
        doc="Planted anomalies: what was planted, for which key, and when.",
    ),
)  # fmt: skip
