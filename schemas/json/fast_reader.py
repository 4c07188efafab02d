"""Reader of chunks in which every record is a well-formed mono event of a listed stream, column by column.

This is the common case. For any other chunk the readers here return None, and the general reader
(`schemas.json.reader`) reads the chunk record by record; both give the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from astrocyte.schemas.arrow.columns import TEXT
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.json.text import nesting
from astrocyte.schemas.values.mixed import typed_column
from astrocyte.schemas.values.single import CONTROLS, MOST_LEVELS

__all__ = ["JSON_MONO_KEYS", "SIMULATION", "uniform_columns"]

SIMULATION: Final = "simulation_id"
"""Field that events of every listed stream may have, whether or not the catalog lists it for theirs."""
JSON_MONO_KEYS: Final = frozenset({"event_id", "timestamp", "source_stream", "type", "value", "metadata"})
_US: Final = pa.timestamp("us", "UTC")
_BLOCK: Final = 1 << 18
"""Bytes of JSON that are parsed at once: as much as fits into the processor's cache."""
_EXACT: Final = {pa.float64(): 2.0**53, pa.float32(): 2.0**24}
"""Bound below which a floating-point type represents every integer exactly."""
_NEEDED: Final = ("timestamp", "key", "type", "event_id")


class _Record(Protocol):
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


def uniform_columns(records: Sequence[_Record], event_type: EventType | None) -> dict[str, pa.Array] | None:
    """Columns of a chunk of mono events of ``event_type``; None if the chunk holds any other record."""
    if event_type is None or event_type.envelope != "mono" or not records:
        return None
    wanted = [(field.name, field.type) for field in event_type.arrow_schema()][3:]
    plain = all(kind == TEXT or pa.types.is_primitive(kind) for _, kind in wanted)
    try:
        columns = _plain(records, wanted) if plain else _nested(records, wanted)
        if columns is not None:
            columns["key"] = pa.array([record.key for record in records], pa.binary()).cast(pa.utf8())
            if pc.any(pc.match_substring_regex(columns["key"], CONTROLS)).as_py():
                return None  # binary keys, which the general reader writes in hexadecimal
            columns["timestamp"] = pc.cast(columns["timestamp"], _US).cast(pa.int64())
    except (orjson.JSONDecodeError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError, AttributeError):
        return None
    if columns is None or any(columns[name].null_count for name in _NEEDED):
        return None
    order = ["timestamp", "key", "type", *(name for name, _ in wanted)]
    if event_type.key == SIMULATION and SIMULATION not in event_type.fields:
        columns[SIMULATION] = columns["key"].dictionary_encode()
        order.append(SIMULATION)
    order.append("event_id")
    return {name: columns[name] for name in order}


def _plain(records: Sequence[_Record], wanted: list[tuple[str, pa.DataType]]) -> dict[str, pa.Array] | None:
    """Columns by Arrow's JSON reader, which parses lines of JSON without making Python objects."""
    values = [record.value for record in records]
    # Records that begin and end with braces cannot run into one another when they are joined by newlines.
    if any(not value or value[0] != 0x7B or value[-1] != 0x7D for value in values):
        return None
    text = b"\n".join(values)  # type: ignore[arg-type]
    if nesting(text) > MOST_LEVELS and max(map(nesting, values)) > MOST_LEVELS:  # type: ignore[arg-type]
        return None  # Arrow's reader calls itself for each level: enough of them end the process
    table = pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(_BLOCK, 2 * max(map(len, values)))),  # type: ignore[arg-type]
        parse_options=pj.ParseOptions(explicit_schema=_schema(wanted), unexpected_field_behavior="infer"),
    )
    if table.num_rows != len(records) or set(table.column_names) != JSON_MONO_KEYS:
        return None
    table.validate(full=True)  # Arrow accepts text that is not UTF-8
    batch = table.combine_chunks().to_batches()[0]
    details = batch.column("metadata")
    if details.null_count:
        return None
    if SIMULATION not in dict(wanted) and details.type.get_field_index(SIMULATION) >= 0:
        return None
    columns = {name: batch.column(name) for name in ("timestamp", "type", "event_id")}
    for name, kind in wanted:
        column = batch.column("value") if name == "value" else details.field(name)
        if kind == TEXT:
            column = column.dictionary_encode()
        elif pa.types.is_floating(kind):
            if not _faithful(column, _EXACT[kind]):
                return None
            column = column.cast(kind, safe=False)
        columns[name] = column
    return columns


def _schema(wanted: list[tuple[str, pa.DataType]]) -> pa.Schema:
    # As in Python, a number is rounded to 64 bits first, also where the field is narrower.
    kinds = {
        name: pa.utf8() if kind == TEXT else pa.float64() if pa.types.is_floating(kind) else kind
        for name, kind in wanted
    }
    value = kinds.pop("value", None)
    fields = [("event_id", pa.utf8()), ("timestamp", pa.utf8()), ("source_stream", pa.utf8()), ("type", pa.utf8())]
    if value is not None:
        fields.append(("value", value))
    return pa.schema([*fields, ("metadata", pa.struct(list(kinds.items())))])


def _faithful(column: pa.Array, exact: float) -> bool:
    """Whether the column is free of values on which JSON readers differ: NaN, integers that would be rounded, -0."""
    values = column.drop_null().to_numpy()
    return bool((np.abs(values) < exact).all()) and not bool(np.signbit(values[values == 0]).any())


def _nested(records: Sequence[_Record], wanted: list[tuple[str, pa.DataType]]) -> dict[str, pa.Array] | None:
    """Columns by way of Python objects, for types with lists or JSON inside."""
    bodies = [orjson.loads(record.value) for record in records]  # type: ignore[arg-type]
    if not all(body.keys() == JSON_MONO_KEYS for body in bodies):
        return None
    details = [body["metadata"] for body in bodies]
    if SIMULATION not in dict(wanted) and any(SIMULATION in each for each in details):
        return None
    columns = {name: pa.array([body[name] for body in bodies], pa.utf8()) for name in ("timestamp", "type", "event_id")}
    for name, kind in wanted:
        source = bodies if name == "value" else details
        columns[name] = typed_column([body.get(name) for body in source], kind)
    return columns
