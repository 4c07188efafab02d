"""A batch of what was read from Kafka as points, each with the place to which a refusal leads back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from agents.sinks.base import RecordKind, Rejected, Sourced, SourcedFrame, SourcedRecords
from agents.sinks.influx_lines import Lines, frame_lines, record_lines
from schemas.catalog import CATALOG, Catalog
from schemas.events import us_from_iso
from schemas.measurements import ALERT, MULTI_EVENT, Measurement, measurement_of, window_measurement
from schemas.records import frame_to_records
from schemas.topics import metrics_topic

__all__ = ["Points", "points_of"]

_RECORDS: Final[Mapping[RecordKind, tuple[Measurement, str]]] = {
    "multi_events": (MULTI_EVENT, "event_id"),
    "alerts": (ALERT, "alert_id"),
}
_RENAMED: Final = {"correlation_rule": "rule"}


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Lines of one item of a batch."""

    lines: Lines
    item: Sourced

    def rejected(self, line: int, reason: str) -> Rejected:
        """What a refusal of one line means for the row that it is of."""
        row = int(self.lines.rows[line])
        item = self.item
        if isinstance(item, SourcedRecords):
            record = orjson.dumps(item.records[row], default=repr)
            return Rejected(item.kind, item.topic, item.partition, item.offset_of(row), None, reason, None, record)
        made = frame_to_records(item.frame.take(np.array([row])))[0]
        inside = row if item.offsets is None else None
        place = (item.topic, item.partition, item.offset_of(row))
        return Rejected(item.frame.stream, *place, inside, reason, made.key, made.value)


def points_of(batch: Sequence[Sourced], *, entity_limit: int, catalog: Catalog = CATALOG) -> Iterator[Points]:
    """Points of a batch; streams and kinds without a measurement give none."""
    for item in batch:
        if isinstance(item, SourcedFrame):
            measurement = _measurement(item, catalog)
            if measurement is not None and item.frame.num_rows:
                offsets = item.offset if item.offsets is None else item.offsets
                yield Points(frame_lines(item.frame, measurement, entity_limit=entity_limit, offsets=offsets), item)
        elif item.kind in _RECORDS and item.records:
            measurement, identity = _RECORDS[item.kind]
            records = [_flat(record) for record in item.records]
            times_us = np.array([us_from_iso(str(record["timestamp"])) for record in records], np.int64)
            yield Points(record_lines(measurement, records, times_us, identity), item)


def _measurement(item: SourcedFrame, catalog: Catalog) -> Measurement | None:
    frame = item.frame
    if item.topic == metrics_topic(frame.stream):
        return window_measurement(frame.stream, frame.fields)
    return measurement_of(frame.stream, catalog)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat = {_RENAMED.get(name, name): value for name, value in record.items()}
    if "source_events" in flat:
        flat["sources"] = len(flat["source_events"])
    return flat
