"""The stream of a running simulation's control messages, of every scenario that takes some (docs/simulator.md)."""

from __future__ import annotations

from astrocyte.schemas.catalog import EventType, Field

__all__ = ["EVENT_TYPES"]

EVENT_TYPES = (
    EventType(
        stream="simulation_controls",
        key="simulation_id",
        about={
            "tick": Field("int64", "tick from which the message applies, or at which it was refused", "ticks", low=0),
            "control": Field("string", "name of the control, that of its topic without `control.`"),
            "message": Field("json", "the message; one that is no JSON object as member value"),
            "error": Field("string", "why it was refused", null="of a message that applies"),
        },
        types=("applied", "refused"),
        priority="critical",
        doc="A control message that a running simulation has taken: with these and the seed the run can be repeated.",
    ),
)
