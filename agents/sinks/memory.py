"""The sink that keeps events and records in memory: for tests, examples and programs that embed the pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from astrocyte.agents.sinks.base import RecordKind, Rejected, Sourced, SourcedRecords, highest_offsets

__all__ = ["MemorySink"]

_ID_OF: Final[Mapping[RecordKind, str]] = {
    "multi_events": "event_id",
    "alerts": "alert_id",
    "dead_letters": "letter_id",
    "experiments": "experiment_id",
    "simulations": "simulation_id",
    "audit": "event_id",
}


class MemorySink:
    """Keeps events and records by id, so that writing a batch again has no effect."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.events: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        """Stream -> event id -> the event's columns."""
        self.records: dict[RecordKind, dict[str, dict[str, Any]]] = defaultdict(dict)
        """Kind -> id -> record."""
        self.positions: dict[tuple[str, int], int] = {}
        """(topic, partition) -> next offset."""
        self.writes = 0

    async def open(self) -> None:
        """Does nothing."""

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Store the batch; rejects nothing."""
        for item in batch:
            if isinstance(item, SourcedRecords):
                name = _ID_OF[item.kind]
                self.records[item.kind].update({str(record[name]): dict(record) for record in item.records})
            elif item.frame.num_rows:
                rows = dict(zip(item.frame.id_strings(), item.frame.rows(), strict=True))
                self.events[item.frame.stream].update(rows)
        for place, following in highest_offsets(batch).items():
            self.positions[place] = max(self.positions.get(place, 0), following)
        self.writes += 1
        return []

    async def close(self) -> None:
        """Does nothing; the content stays readable."""
