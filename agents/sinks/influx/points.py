"""A batch read from Kafka as points, each with its source row, so that a refused line can be reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.agents.sinks.base import RecordKind, Rejected, Sourced, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.influx.lines import Lines, encode_points
from astrocyte.schemas.catalog import CATALOG, Catalog, arrow_type
from astrocyte.schemas.event_types.insight import result_identity
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.measurements import (
    ALERT,
    MULTI_EVENT,
    Measurement,
    hashes_apart,
    measurement_of,
    number_field,
    times_apart,
    window_measurement,
)
from astrocyte.schemas.times import us_from_iso
from astrocyte.schemas.topics import metrics_topic

__all__ = ["PointBatch", "PointRules", "Points", "frame_lines", "points_of", "record_lines"]

_RECORDS: Final[Mapping[RecordKind, tuple[Measurement, str]]] = {
    "multi_events": (MULTI_EVENT, "event_id"),
    "alerts": (ALERT, "alert_id"),
}
_RENAMED: Final = {"correlation_rule": "rule"}
_NUMBERS: Final = frozenset({"integrated_value", "confidence"})
_COUNTS: Final = frozenset({"sources"})
_UNDECIDED: Final = frozenset({"provisional", "retracted"})
_WEIGHT: Final = "weight"
_UNKEYED: Final = "unkeyed"
"""Tag of the results of windows for events without a key."""
_PARTITIONS_APART: Final = 16
_MOST_US: Final = (2**63 - 1) // 1_000 - 10_000
"""Greatest distance from 1970 in microseconds whose nanoseconds, shifted by up to a tick, fit 64 bits."""


@dataclass(frozen=True, slots=True)
class PointRules:
    """Options: entity ids below ``entity_limit`` are tags; with ``run_tag`` each point has its run as a tag."""

    entity_limit: int = 10_000
    run_tag: bool = False
    catalog: Catalog = field(default_factory=lambda: CATALOG)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Lines of one item of a batch."""

    lines: Lines
    item: Sourced

    def rejected(self, line: int, reason: str) -> Rejected:
        """The source row of a refused line."""
        return self.item.rejected(int(self.lines.rows[line]), reason)


class PointBatch(NamedTuple):
    """What becomes of a batch: points, and the rows that no InfluxDB could hold."""

    points: list[Points]
    refused: list[Rejected]
    """Records without required fields, and times outside the range of InfluxDB."""


def points_of(batch: Sequence[Sourced], rules: PointRules) -> PointBatch:
    """Points of a batch, in its order, and its refused rows; streams without a measurement have neither."""
    read = {id(item): _read(item) for item in batch if isinstance(item, SourcedRecords)}
    lines = _record_lines([item for item in batch if isinstance(item, SourcedRecords)], read)
    points: list[Points] = []
    refused: list[Rejected] = []
    for item in batch:
        if isinstance(item, SourcedRecords):
            made: Lines | None = lines.get(id(item))
            problems = [(row, f"{item.kind}: {reason}") for row, reason in read[id(item)].problems]
        else:
            made, problems = _frame_points(item, rules)
        refused += [item.rejected(row, reason) for row, reason in problems]
        if made is not None and len(made):
            points.append(Points(made, item))
    return PointBatch(points, refused)


def _in_range(times_us: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (times_us >= -_MOST_US) & (times_us <= _MOST_US)
    return found


def _shape(item: SourcedFrame, catalog: Catalog) -> Measurement | None:
    frame = item.frame
    if item.topic == metrics_topic(frame.stream):
        return window_measurement(frame.stream, frame.fields, result_identity(frame))
    return measurement_of(frame.stream, catalog)


def _frame_points(item: SourcedFrame, rules: PointRules) -> tuple[Lines | None, list[tuple[int, str]]]:
    """Lines of a frame, and the rows that it has none of because of their time, with the reason."""
    frame = item.frame
    measurement = _shape(item, rules.catalog) if frame.num_rows else None
    if measurement is None:
        return None, []
    if item.topic == metrics_topic(frame.stream):
        if not result_identity(frame):  # those of a statistic have declared types
            frame = _stable_window(frame, rules.catalog)
        if "key" in measurement.tags and not frame.has(_UNKEYED):
            frame, measurement = _unkeyed_apart(frame, measurement, item.partition)
    numbers = None
    if item.offsets is not None:
        # Records of other programs are numbered by offset; partitions are interleaved so that numbers differ.
        numbers = np.asarray(item.offsets, np.int64) * _PARTITIONS_APART + item.partition % _PARTITIONS_APART
    times = frame.timestamps()
    in_range = _in_range(times)
    if in_range.all():
        return frame_lines(frame, measurement, rules=rules, numbers=numbers), []
    why = "is outside the years 1678 to 2261, the range of InfluxDB"
    refused = [(row, f"timestamp {times[row]} {why}") for row in np.flatnonzero(~in_range).tolist()]
    rows = np.flatnonzero(in_range)
    numbers = None if numbers is None else numbers[rows]
    lines = frame_lines(frame.take(rows), measurement, rules=rules, numbers=numbers)
    return replace(lines, rows=rows[lines.rows]), refused


def frame_lines(
    frame: Frame, measurement: Measurement, *, rules: PointRules, numbers: NDArray[np.int64] | None = None
) -> Lines:
    """Points of a frame's rows. ``numbers`` make their timestamps unique; by default the rows' sequence numbers.

    The numbers are offset by a hash of the run's name, so that points of two runs with the same event time rarely
    collide; with ``rules.run_tag`` they never do.
    """
    times_ns = frame.timestamps() * 1_000
    if measurement.apart:
        numbers = frame.sequences() if numbers is None else numbers
        times_ns = times_apart(frame.timestamps(), numbers + _start(frame.run))
    tags = {name: frame.column(name) for name in measurement.tags if frame.has(name)}
    fields = {name: frame.column(name) for name in measurement.fields if frame.has(name)}
    if measurement.apart and not frame.has(_WEIGHT) and (frame.weight != 1.0 or _WEIGHT in measurement.fields):
        fields[_WEIGHT] = pa.array(np.full(frame.num_rows, frame.weight))
    if rules.run_tag:
        tags["simulation_id"] = frame.column("simulation_id")
        fields.pop("simulation_id", None)
    for entity in measurement.entities:
        if entity in tags and pa.types.is_integer(tags[entity].type):
            ids = tags[entity]
            nothing = pa.scalar(None, ids.type)
            small = pc.and_(pc.less(ids, rules.entity_limit), pc.greater_equal(ids, 0))
            tags[entity] = pc.if_else(small, ids, nothing)
            fields[number_field(entity)] = pc.if_else(small, nothing, ids)
    return encode_points(measurement.name, tags, fields, times_ns)


def _unkeyed_apart(frame: Frame, measurement: Measurement, partition: int) -> tuple[Frame, Measurement]:
    """Results without a key with their partition as a tag, since each partition has its own, and ``''`` has no tag."""
    keys = frame.column("key")
    if not keys.null_count:
        return frame, measurement
    own = pc.if_else(keys.is_null(), pa.scalar(str(partition)), pa.scalar(None, pa.utf8()))
    return frame.with_column(_UNKEYED, own), replace(measurement, tags=(*measurement.tags, _UNKEYED))


def _start(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=5).digest(), "big")


def _stable_window(frame: Frame, catalog: Catalog) -> Frame:
    """A window's results with numbers as floats: after a change of the rule a sum of integers may be one of floats."""
    event_type = catalog.find(frame.stream)
    known = {} if event_type is None else event_type.fields
    arrays = []
    for name, column in zip(frame.batch.schema.names, frame.batch.columns, strict=True):
        if name in known and known[name] not in ("string", "json", "list<float32>"):
            with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
                column = column.cast(arrow_type(known[name]), safe=False)
        elif pa.types.is_integer(column.type) and name not in ("timestamp", "window_start", "window_end", "seq"):
            column = column.cast(pa.float64(), safe=False)
        arrays.append(column)
    batch = pa.RecordBatch.from_arrays(arrays, names=frame.batch.schema.names)
    return Frame(frame.stream, frame.run, batch, first_seq=frame.first_seq)


@dataclass(frozen=True, slots=True)
class _Read:
    """Records with the names of their measurement, the row of each, and the problems of the others."""

    flat: list[dict[str, Any]]
    rows: list[int]
    problems: list[tuple[int, str]]


def _read(item: SourcedRecords) -> _Read:
    """The records of an item that become points. What may yet be retracted is none: no point can be taken back."""
    found = _Read([], [], [])
    if item.kind not in _RECORDS:
        return found
    measurement, identity = _RECORDS[item.kind]
    for row, record in enumerate(item.records):
        if record.get("status") in _UNDECIDED:
            continue
        try:
            found.flat.append(_flat(record, measurement, identity))
        except KeyError as error:
            found.problems.append((row, f"{error} is missing"))
        except (TypeError, ValueError, OverflowError) as error:
            found.problems.append((row, str(error)))
        else:
            found.rows.append(row)
    return found


def _record_lines(items: Sequence[SourcedRecords], read: Mapping[int, _Read]) -> dict[int, Lines]:
    """Lines of items of records. Those of one kind are made together: they come in many chunks of a few records."""
    found: dict[int, Lines] = {}
    for kind, (measurement, identity) in _RECORDS.items():
        own = [item for item in items if item.kind == kind and read[id(item)].flat]
        counts = [len(read[id(item)].flat) for item in own]
        if not own:
            continue
        lines = record_lines(measurement, [each for item in own for each in read[id(item)].flat], identity)
        ends = np.searchsorted(lines.rows, np.cumsum(counts))
        at = first = 0
        for item, count, end in zip(own, counts, ends.tolist(), strict=True):
            rows = np.array(read[id(item)].rows, np.int64)[lines.rows[at:end] - first]
            found[id(item)] = Lines(lines.strings.slice(at, end - at), rows, count - len(rows))
            at, first = end, first + count
    return found


def record_lines(measurement: Measurement, records: Sequence[Mapping[str, Any]], identity: str) -> Lines:
    """Points of flat records with ``time_us``; ``identity`` names the id whose hash makes their timestamps unique."""
    hashes = np.array([_hash(str(record[identity])) for record in records], np.uint64)
    times_us = np.array([record["time_us"] for record in records], np.int64)
    times_ns, slots = hashes_apart(times_us, hashes)
    tags = {name: _text([record.get(name) for record in records]) for name in measurement.tags if name != "slot"}
    tags["slot"] = pa.array(slots)
    fields = {name: _values(name, [record.get(name) for record in records]) for name in measurement.fields}
    return encode_points(measurement.name, tags, fields, times_ns)


def _flat(record: Mapping[str, Any], measurement: Measurement, identity: str) -> dict[str, Any]:
    """The record with the measurement's names. Raises KeyError, TypeError or ValueError for an invalid record."""
    flat = {_RENAMED.get(name, name): value for name, value in record.items()}
    for needed in ("timestamp", identity, "rule"):
        if flat.get(needed) is None:
            raise KeyError(needed)
    flat["time_us"] = us_from_iso(str(flat["timestamp"]))
    if abs(flat["time_us"]) > _MOST_US:
        raise ValueError(f"timestamp {flat['timestamp']!r} is outside the years 1678 to 2261, the range of InfluxDB")
    if "source_events" in flat:
        flat["sources"] = len(flat["source_events"])
    for name in _NUMBERS.intersection(measurement.fields):
        value = flat.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"field {name!r} is {value!r}; expected a number")
            flat[name] = float(value)
    return flat


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _text(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.utf8()).dictionary_encode()


def _values(name: str, values: Sequence[Any]) -> pa.Array:
    """A column whose type depends only on its name, so that it is the same in every batch."""
    if name in _NUMBERS:
        return pa.array(values, pa.float64())
    return pa.array(values, pa.int64()) if name in _COUNTS else _text(values)
