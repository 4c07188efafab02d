"""A batch of what was read from Kafka as points, each with the place to which a refusal leads back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agents.sinks.base import RecordKind, Rejected, Sourced, SourcedFrame, SourcedRecords
from agents.sinks.influx_lines import Lines, encode_points
from schemas.catalog import CATALOG, Catalog, arrow_type
from schemas.events import us_from_iso
from schemas.frames import Frame
from schemas.measurements import (
    ALERT,
    MULTI_EVENT,
    Measurement,
    hashes_apart,
    measurement_of,
    times_apart,
    window_measurement,
)
from schemas.records import frame_to_records
from schemas.topics import metrics_topic

__all__ = ["PointRules", "Points", "frame_lines", "points_of", "record_lines"]

_RECORDS: Final[Mapping[RecordKind, tuple[Measurement, str]]] = {
    "multi_events": (MULTI_EVENT, "event_id"),
    "alerts": (ALERT, "alert_id"),
}
_RENAMED: Final = {"correlation_rule": "rule"}
_NUMBERS: Final = frozenset({"integrated_value", "confidence"})
_COUNTS: Final = frozenset({"sources"})
_PARTITIONS_APART: Final = 16


@dataclass(frozen=True, slots=True)
class PointRules:
    """What a user may choose: up to which id entities are tags, and whether each point has its run as a tag."""

    entity_limit: int = 10_000
    run_tag: bool = False
    catalog: Catalog = field(default_factory=lambda: CATALOG)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Lines of one item of a batch."""

    lines: Lines
    item: Sourced

    def rejected(self, line: int, reason: str) -> Rejected:
        """What a refusal of one line means for the row that it is of."""
        return _rejected(self.item, int(self.lines.rows[line]), reason)


def points_of(batch: Sequence[Sourced], rules: PointRules, refuse: Callable[[Rejected], None]) -> Iterator[Points]:
    """Points of a batch; streams and kinds without a measurement give none, unreadable records go to ``refuse``."""
    for item in batch:
        lines = _frame_points(item, rules) if isinstance(item, SourcedFrame) else _record_points(item, refuse)
        if lines is not None and len(lines):
            yield Points(lines, item)


def _rejected(item: Sourced, row: int, reason: str) -> Rejected:
    if isinstance(item, SourcedRecords):
        record = orjson.dumps(item.records[row], default=repr)
        return Rejected(item.kind, item.topic, item.partition, item.offset_of(row), None, reason, None, record)
    made = frame_to_records(item.frame.take(np.array([row])))[0]
    inside = row if item.offsets is None else None
    place = (item.topic, item.partition, item.offset_of(row))
    return Rejected(item.frame.stream, *place, inside, reason, made.key, made.value)


def _frame_points(item: SourcedFrame, rules: PointRules) -> Lines | None:
    frame = item.frame
    if not frame.num_rows:
        return None
    if item.topic == metrics_topic(frame.stream):
        return frame_lines(
            _stable_window(frame, rules.catalog), window_measurement(frame.stream, frame.fields), rules=rules
        )
    measurement = measurement_of(frame.stream, rules.catalog)
    if measurement is None:
        return None
    numbers = None
    if item.offsets is not None:
        # Records of other programs are numbered by their place: offsets of different partitions are interleaved.
        numbers = np.asarray(item.offsets, np.int64) * _PARTITIONS_APART + item.partition % _PARTITIONS_APART
    return frame_lines(frame, measurement, rules=rules, numbers=numbers)


def frame_lines(
    frame: Frame, measurement: Measurement, *, rules: PointRules, numbers: NDArray[np.int64] | None = None
) -> Lines:
    """Points of a frame's rows. ``numbers`` keep rows apart; by default they are the rows' sequence numbers.

    The sequence starts at a place that follows from the run's name, so that two runs with the same event time rarely
    lie on each other; with ``rules.run_tag`` they never do.
    """
    times_ns = frame.timestamps() * 1_000
    if measurement.apart:
        numbers = frame.sequences() if numbers is None else numbers
        times_ns = times_apart(frame.timestamps(), numbers + _start(frame.run))
    tags = {name: frame.column(name) for name in measurement.tags if frame.has(name)}
    fields = {name: frame.column(name) for name in measurement.fields if frame.has(name)}
    if rules.run_tag:
        tags["simulation_id"] = frame.column("simulation_id")
        fields.pop("simulation_id", None)
    for entity in measurement.entities:
        if entity in tags and pa.types.is_integer(tags[entity].type):
            ids = tags[entity]
            nothing = pa.scalar(None, ids.type)
            small = pc.and_(pc.less(ids, rules.entity_limit), pc.greater_equal(ids, 0))
            tags[entity] = pc.if_else(small, ids, nothing)
            fields[entity] = pc.if_else(small, nothing, ids)
    return encode_points(measurement.name, tags, fields, times_ns)


def _start(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=5).digest(), "big")


def _stable_window(frame: Frame, catalog: Catalog) -> Frame:
    """A window's results with numbers as floats: a changed rule may make a sum of floats of one of integers."""
    event_type = catalog.find(frame.stream)
    known = {} if event_type is None else event_type.fields
    arrays = []
    for name in frame.batch.schema.names:
        column = frame.column(name)
        if name in known and known[name] not in ("string", "json", "list<float32>"):
            column = column.cast(arrow_type(known[name]), safe=False)
        elif pa.types.is_integer(column.type) and name not in ("timestamp", "window_start", "window_end", "seq"):
            column = column.cast(pa.float64(), safe=False)
        arrays.append(column)
    batch = pa.RecordBatch.from_arrays(arrays, names=frame.batch.schema.names)
    return Frame(frame.stream, frame.run, batch, first_seq=frame.first_seq)


def _record_points(item: SourcedRecords, refuse: Callable[[Rejected], None]) -> Lines | None:
    if item.kind not in _RECORDS:
        return None
    measurement, identity = _RECORDS[item.kind]
    good: list[dict[str, Any]] = []
    rows: list[int] = []
    for row, record in enumerate(item.records):
        try:
            good.append(_flat(record, measurement, identity))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            refuse(_rejected(item, row, f"{item.kind}: {what}"))
        else:
            rows.append(row)
    return record_lines(measurement, good, identity, np.array(rows, np.int64)) if good else None


def record_lines(
    measurement: Measurement, records: Sequence[Mapping[str, Any]], identity: str, rows: NDArray[np.int64] | None = None
) -> Lines:
    """Points of flat records with ``time_us``; ``identity`` names the id that keeps them apart."""
    hashes = np.array([_hash(str(record[identity])) for record in records], np.uint64)
    times_us = np.array([record["time_us"] for record in records], np.int64)
    times_ns, slots = hashes_apart(times_us, hashes)
    tags = {name: _text([record.get(name) for record in records]) for name in measurement.tags if name != "slot"}
    tags["slot"] = pa.array(slots)
    fields = {name: _values(name, [record.get(name) for record in records]) for name in measurement.fields}
    return encode_points(measurement.name, tags, fields, times_ns, rows)


def _flat(record: Mapping[str, Any], measurement: Measurement, identity: str) -> dict[str, Any]:
    """The record under the measurement's names. Raises KeyError, TypeError or ValueError where it is none."""
    flat = {_RENAMED.get(name, name): value for name, value in record.items()}
    for needed in ("timestamp", identity, "rule"):
        if flat.get(needed) is None:
            raise KeyError(needed)
    flat["time_us"] = us_from_iso(str(flat["timestamp"]))
    if "source_events" in flat:
        flat["sources"] = len(flat["source_events"])
    for name in _NUMBERS.intersection(measurement.fields):
        value = flat.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"field {name!r} is {value!r}; a number was wanted")
            flat[name] = float(value)
    return flat


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _text(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.utf8()).dictionary_encode()


def _values(name: str, values: Sequence[Any]) -> pa.Array:
    """A column whose type follows from its name alone, so that no batch can change it."""
    if name in _NUMBERS:
        return pa.array(values, pa.float64())
    return pa.array(values, pa.int64()) if name in _COUNTS else _text(values)
