"""What travels through Astrocyte: events, frames, ids, topics and the catalog of event types."""

from __future__ import annotations

from schemas import events_axons, events_cells, events_dna, events_ecology, events_kernels
from schemas.catalog import CATALOG, Catalog, EventType
from schemas.errors import AstrocyteError
from schemas.frames import Frame, decode_frame, encode_frame

__all__ = ["CATALOG", "AstrocyteError", "Catalog", "EventType", "Frame", "decode_frame", "encode_frame"]

for _module in (events_axons, events_cells, events_dna, events_ecology, events_kernels):
    for _event_type in _module.EVENT_TYPES:
        CATALOG.register(_event_type)
