"""Frames: many events of one stream as columns, in one Kafka message (an Arrow IPC stream).

Between decoding and encoding everything is a frame. The columns are ``timestamp`` (int64 microseconds, UTC), ``key``
and ``type`` (dictionary-encoded text), then the fields of the event type. Two more columns are optional: ``seq``
(int64, the row's sequence number in its run and stream, where rows are not contiguous) and ``event_id`` (16 bytes
or text, for records whose producer set the ids). `schemas.values.nested.NON_FINITE` is one more, until validators see
it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.arrow.batches import usual_batch, usual_without_rows
from astrocyte.schemas.arrow.columns import (
    HIDDEN,
    RESERVED,
    TEXT,
    field_name,
    frame_column,
    frame_columns,
    non_finite_of,
)
from astrocyte.schemas.arrow.messages import holds_no_rows
from astrocyte.schemas.arrow.stream import MOST_BYTES, read_schema, read_stream
from astrocyte.schemas.catalog import EventType
from astrocyte.schemas.errors import InvalidEvent, InvalidFrame, SchemaMismatch
from astrocyte.schemas.ids import Ids, event_ids, format_ids, ids_from_bytes, parse_ids
from astrocyte.schemas.values.foreign import keeps_digits, plain_column
from astrocyte.schemas.values.mixed import MIXED, to_list, typed_column
from astrocyte.schemas.values.nested import NON_FINITE, reasons_column

__all__ = [
    "CONTENT_TYPE",
    "Frame",
    "conform",
    "decode_frame",
    "encode_frame",
    "pack_frames",
    "unpack_frames",
]

CONTENT_TYPE: Final = "application/vnd.apache.arrow.stream"
_SMALL: Final = 1 << 16
"""Bytes of a frame without rows of which the columns are remembered."""
_LEAST_SEQ, _MOST_SEQ = -(2**62), 2**62
_LEAST_US, _MOST_US = -(2**62), 2**62
_MOST_VERSION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Events of one stream and run as columns. Immutable.

    In a run each event is known by its number. A frame without a run (``""``) and without a column ``event_id`` says
    nothing about that, and its numbers mean nothing: whoever reads it gives its rows ids, as it does for mappings and
    JSON records without one.
    """

    stream: str
    run: str
    batch: pa.RecordBatch
    first_seq: int = 0
    """Sequence number of the first row, where there is no ``seq`` column."""
    version: int = 1
    """Schema version of the event type with which the producer wrote the frame."""
    origin: str = ""
    """Name of the producer: a watermark source is (topic, partition, origin)."""
    watermark_us: int | None = None
    """The producer asserts that no older event follows from this origin on this partition."""
    end: bool = False
    """The run has ended for this origin on this partition."""
    peers: tuple[str, ...] = ()
    """Streams that the same origin writes: a reader's watermark waits for each of them."""
    weight: float = 1.0
    """How many events each row represents (1/p for rows sampled with probability p)."""
    _times: NDArray[np.int64] | None = dataclasses.field(default=None, init=False, repr=False)

    @classmethod
    def from_columns(
        cls, stream: str, run: str, columns: Mapping[str, Any], *, first_seq: int = 0, **meta: Any
    ) -> Self:
        """Build a frame from equally long columns; ``timestamp`` and ``key`` must be among them.

        Text becomes dictionary-encoded, NumPy arrays are taken without a copy, a ``pa.Array`` as it is unless its type
        has another form in frames (see `schemas.values.foreign.plain_column`). In a list each value keeps its own type.
        Numbers of ``timestamp`` are microseconds since 1970 (UTC); see `schemas.arrow.given.time_column`.
        Decimal numbers, and integers beyond 64 bits, keep their digits until rules read the frame (`settled`), which
        say where they tell events apart. ``meta`` holds the other attributes of the frame. In a run ``first_seq`` is
        the number of the first row among those of the stream: rows with a number that came before are duplicates.
        Raises InvalidFrame.
        """
        missing = [name for name in ("timestamp", "key") if name not in columns]
        if missing:
            raise InvalidFrame(
                f"frame of stream {stream!r} has columns {sorted(columns)} and lacks {', '.join(missing)}; "
                "every frame needs timestamp (int64 microseconds) and key (text)"
            )
        try:
            arrays = {name: frame_column(name, values) for name, values in columns.items()}
            reasons = non_finite_of((name, values, arrays[name]) for name, values in columns.items())
            if reasons:
                arrays[NON_FINITE] = reasons_column(reasons, len(arrays["timestamp"]))
        except InvalidEvent as error:
            raise InvalidFrame(f"columns of stream {stream!r} cannot be read: {error}") from error
        if "type" not in arrays:
            arrays["type"] = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(arrays["timestamp"]), np.int32)), pa.array([stream])
            )
        ordered = {name: arrays.pop(name) for name in ("timestamp", "key", "type")} | arrays
        try:
            batch = pa.RecordBatch.from_arrays(list(ordered.values()), names=list(ordered))
        except ValueError as error:  # ArrowInvalid is one too
            lengths = {name: len(values) for name, values in ordered.items()}
            raise InvalidFrame(f"columns of stream {stream!r} differ in length: {lengths}") from error
        if batch.schema.field("timestamp").type != pa.int64():
            raise InvalidFrame(
                f"column 'timestamp' of stream {stream!r} is {batch.schema.field('timestamp').type}; "
                "expected int64 microseconds since 1970 (UTC)"
            )
        return cls(stream, run, batch, first_seq=first_seq, **meta)

    @property
    def num_rows(self) -> int:
        """Number of events."""
        return int(self.batch.num_rows)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the event's own fields, without the reserved columns."""
        return tuple(name for name in self.batch.schema.names if name not in RESERVED)

    def timestamps(self) -> NDArray[np.int64]:
        """Event times in microseconds, as a view."""
        if self._times is None:
            object.__setattr__(self, "_times", self.batch.column("timestamp").to_numpy())
        times: NDArray[np.int64] | None = self._times
        assert times is not None
        return times

    def column(self, name: str) -> pa.Array:
        """Column ``name``; ``simulation_id`` is the run where no column of that name exists. Raises KeyError.

        ``seq`` and ``event_id`` are the event's fields of these names, never the columns that identify a row.
        """
        index = self._index(name)
        if index >= 0:
            return self.batch.column(index)
        if name == "simulation_id":
            return pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(self.num_rows, np.int32)), pa.array([self.run], pa.utf8())
            )
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether `column(name)` would succeed."""
        return name == "simulation_id" or self._index(name) >= 0

    def _index(self, name: str) -> int:
        return int(self.batch.schema.get_field_index(f"{name}_" if name in HIDDEN else name))

    @property
    def has_own_ids(self) -> bool:
        """Whether a producer set the ids, as text."""
        index = self.batch.schema.get_field_index("event_id")
        return index >= 0 and not pa.types.is_fixed_size_binary(self.batch.column(index).type)

    @property
    def is_identified(self) -> bool:
        """Whether the producer said by what the events are known: a run, or ids."""
        return bool(self.run) or self.batch.schema.get_field_index("event_id") >= 0

    def numbered(self, first_seq: int) -> Self:
        """The frame with consecutive numbers from ``first_seq`` on."""
        names = [name for name in self.batch.schema.names if name != "seq"]
        return replace(self, batch=self.batch.select(names), first_seq=first_seq)

    def with_ids(self, ids: Ids) -> Self:
        """The frame with the given ids, shape [n, 2]."""
        data = pa.py_buffer(ids.astype(">u8").tobytes())
        column = pa.Array.from_buffers(pa.binary(16), len(ids), [None, data])
        return replace(self, batch=self.batch.append_column("event_id", column))

    def values(self, name: str) -> list[Any]:
        """Values of column ``name`` as Python objects, each in its own type. Raises KeyError."""
        return _values_of(self.column(name))

    def settled(self, exact: Collection[str] = (), typed: Collection[str] = ()) -> Self:
        """The frame as rules read it: decimal numbers and integers beyond 64 bits are integers or floats.

        ``exact`` and ``typed`` are as in `schemas.arrow.columns.frame_columns`; `decode_frame` settles what it reads.
        """
        schema = self.batch.schema
        if not any(map(keeps_digits, schema.types)):
            return self
        columns = frame_columns(schema.names, self.batch.columns, self.stream, exact, typed)
        return replace(self, batch=pa.RecordBatch.from_arrays(columns, names=schema.names))

    def sequences(self) -> NDArray[np.int64]:
        """Sequence number of each row in (run, stream)."""
        index = self.batch.schema.get_field_index("seq")
        if index >= 0:
            values: NDArray[np.int64] = self.batch.column(index).to_numpy()
            return values
        return np.arange(self.first_seq, self.first_seq + self.num_rows, dtype=np.int64)

    def ids(self, rows: NDArray[np.integer] | None = None) -> Ids:
        """Ids of the given rows (all by default), shape [n, 2]; see `schemas.ids`."""
        index = self.batch.schema.get_field_index("event_id")
        if index < 0:
            sequence = self.sequences()
            return event_ids(self.run, self.stream, sequence if rows is None else sequence[rows])
        column = self.batch.column(index)
        if rows is not None:
            column = column.take(pa.array(rows))
        if pa.types.is_fixed_size_binary(column.type):
            start = column.offset * 16
            return ids_from_bytes(memoryview(column.buffers()[1])[start : start + len(column) * 16])
        return parse_ids(column.to_pylist())

    def id_strings(self, rows: NDArray[np.integer] | None = None) -> list[str]:
        """Ids as text: those that the producer set, else UUIDs."""
        if self.has_own_ids:
            column = self.batch.column("event_id")
            strings: list[str] = (column if rows is None else column.take(pa.array(rows))).to_pylist()
            return strings
        return format_ids(self.ids(rows))

    def take(self, rows: NDArray[np.integer]) -> Self:
        """Frame of the given rows, in that order; rows keep their sequence numbers."""
        batch = self.batch.take(pa.array(rows))
        if self.batch.schema.get_field_index("seq") < 0:
            batch = batch.append_column("seq", pa.array(self.first_seq + np.asarray(rows, np.int64)))
        return replace(self, batch=batch)

    def slice(self, start: int, stop: int) -> Self:
        """Rows ``start`` up to ``stop``, without a copy."""
        return replace(self, batch=self.batch.slice(start, stop - start), first_seq=self.first_seq + start)

    def with_column(self, name: str, column: pa.Array) -> Self:
        """The frame with a field set to ``column``, which has as many values as the frame has rows."""
        index = self.batch.schema.get_field_index(name)
        if index >= 0:
            return replace(self, batch=self.batch.set_column(index, name, column))
        # Fields come before the columns that are no part of an event.
        names = self.batch.schema.names
        at = next((place for place, other in enumerate(names) if other in HIDDEN), len(names))
        return replace(self, batch=self.batch.add_column(at, name, column))

    def noting(self, reasons: Mapping[int, str]) -> Self:
        """The frame with the column `NON_FINITE`, whose reasons by row come after those that it has."""
        batch = self.batch
        index = batch.schema.get_field_index(NON_FINITE)
        if index >= 0:
            before = enumerate(to_list(batch.column(index)))
            reasons = {**reasons, **{row: reason for row, reason in before if reason is not None}}
            batch = batch.remove_column(index)
        return replace(self, batch=batch.append_column(NON_FINITE, reasons_column(reasons, batch.num_rows)))

    def rows(self) -> list[dict[str, Any]]:
        """Rows as dictionaries of Python values (timestamp in microseconds). Slow: for display and tests."""
        return _rows_of(self.batch)

    def event_fields(self) -> list[dict[str, Any]]:
        """Rows as ``timestamp``, ``key``, ``type`` and the event's own fields, by the names that rules use."""
        names = [name for name in self.batch.schema.names if name not in HIDDEN]
        kept = [field_name(name) if name[:-1] in HIDDEN else name for name in names]
        return _rows_of(self.batch.select(names).rename_columns(kept))


def _rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch as dictionaries of Python values."""
    names = batch.schema.names
    columns = [_values_of(column) for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values_of(column: pa.Array) -> list[Any]:
    """The values of a column as Python objects, those of events."""
    return to_list(plain_column(column) if keeps_digits(column.type) else column)


def encode_frame(frame: Frame) -> bytes:
    """Bytes of the frame as one Kafka value: an Arrow IPC stream whose schema metadata holds the attributes."""
    meta = {
        "stream": frame.stream,
        "run": frame.run,
        "seq": str(frame.first_seq),
        "version": str(frame.version),
    }
    if frame.origin:
        meta["origin"] = frame.origin
    if frame.watermark_us is not None:
        meta["watermark"] = str(frame.watermark_us)
    if frame.end:
        meta["end"] = "1"
    if frame.peers:
        meta["peers"] = ",".join(frame.peers)
    if frame.weight != 1.0:
        meta["weight"] = repr(frame.weight)
    batch = frame.batch.replace_schema_metadata(meta)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        if batch.num_rows:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode_frame(
    payload: bytes | memoryview,
    *,
    bounded: bool = True,
    exact: Collection[str] | None = (),
    typed: Collection[str] = (),
) -> Frame:
    """Frame of the bytes, its columns as views into them.

    Everything is checked here, once, so that no value of a frame can fail later: see `schemas.arrow.stream`, which also
    bounds what the bytes may unpack to, unless ``bounded`` is False (for bytes that this program wrote). The columns
    ``exact`` distinguish events, and None keeps all as they came; ``typed`` are held to declared types by the caller:
    see `schemas.arrow.columns.frame_columns`. Raises InvalidFrame.
    """
    batch: pa.RecordBatch | None = None
    if len(payload) <= _SMALL and holds_no_rows(payload):
        schema = read_schema(payload)
    else:
        schema, batch = read_stream(payload, most_bytes=MOST_BYTES if bounded else None)
    try:
        meta = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        columns = None if exact is None else frozenset(exact), frozenset(typed)
        frame = Frame(
            stream=meta["stream"],
            run=meta["run"],
            batch=usual_without_rows(schema.remove_metadata(), meta["stream"], *columns)
            if batch is None
            else usual_batch(batch, meta["stream"], *columns),
            first_seq=_number(meta, "seq", _LEAST_SEQ, _MOST_SEQ, 0),
            version=_number(meta, "version", 0, _MOST_VERSION, 1),
            origin=meta.get("origin", ""),
            watermark_us=_number(meta, "watermark", _LEAST_US, _MOST_US, 0) if "watermark" in meta else None,
            end="end" in meta,
            peers=tuple(meta["peers"].split(",")) if "peers" in meta else (),
            weight=_weight(meta),
        )
    except KeyError as error:
        raise InvalidFrame(
            f"expected a frame, got an Arrow stream without the metadata entry {error.args[0]!r}; "
            "produce with astrocyte.encode_frame, which writes stream and run"
        ) from error
    except (pa.ArrowException, ValueError) as error:
        raise InvalidFrame(f"expected a frame, got an Arrow stream of {len(payload)} bytes: {error}") from error
    if bounded and frame.num_rows * (len(frame.run) + len(frame.stream)) > MOST_BYTES:
        raise InvalidFrame(f"frame of stream {frame.stream[:100]!r}: the name of its run is too long; shorten it")
    return frame


def pack_frames(frames: Sequence[Frame]) -> dict[str, bytes]:
    """Frames as part of a snapshot."""
    return {str(number): encode_frame(frame) for number, frame in enumerate(frames)}


def unpack_frames(packed: Mapping[str, Any]) -> list[Frame]:
    """The frames that `pack_frames` packed."""
    return [decode_frame(bytes(packed[str(number)]), bounded=False) for number in range(len(packed))]


def _number(meta: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    given = meta.get(name)
    if given is None:
        return default
    try:
        found = int(given)
    except ValueError:
        found = most + 1
    if not least <= found <= most:
        raise ValueError(f"metadata entry {name!r} is {given[:80]}; expected a whole number from {least} to {most}")
    return found


def _weight(meta: Mapping[str, str]) -> float:
    given = meta.get("weight", "1")
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ValueError(f"metadata entry 'weight' is {given[:80]}; expected a number above 0")
    return found


def conform(frame: Frame, event_type: EventType) -> Frame:
    """The frame with exactly the catalog's fields, in its order. A frame without a run keeps its rows' own runs.

    Fields that the catalog added since the frame was written are null; fields of a newer producer are dropped. A number
    takes the type of the catalog where that loses nothing; a removed or retyped field raises SchemaMismatch naming both
    versions.
    """
    wanted = event_type.arrow_schema()
    if event_type.has_columns(frame.batch.schema, in_run=bool(frame.run)):
        return replace(frame, version=event_type.version) if frame.version != event_type.version else frame
    frame = frame.settled()
    schema = frame.batch.schema
    where = f"stream {frame.stream!r}: frame of schema version {frame.version}, catalog of version {event_type.version}"
    if frame.version <= event_type.version:
        removed = [name for name in frame.fields if name not in event_type.fields and name != "simulation_id"]
        if removed:
            raise SchemaMismatch(
                f"{where}: field {removed[0]!r} was removed; read this frame with version {frame.version}"
            )
    arrays, names = [], []
    for field in wanted:
        index = schema.get_field_index(field.name)
        if index < 0:
            if frame.version > event_type.version and field.name != "simulation_id":
                raise SchemaMismatch(
                    f"{where}: field {field.name!r} was removed by the newer version; upgrade the catalog"
                )
            if frame.version == event_type.version and field.name == "simulation_id":
                arrays.append(frame.column("simulation_id"))
            else:
                arrays.append(pa.nulls(frame.num_rows, field.type))
        else:
            arrays.append(_retype(frame.batch.column(index), field, where))
        names.append(field.name)
    for name in HIDDEN if frame.run else (*HIDDEN, "simulation_id"):
        index = schema.get_field_index(name)
        if index >= 0 and name not in names:
            arrays.append(frame.batch.column(index))
            names.append(name)
    return replace(frame, batch=pa.RecordBatch.from_arrays(arrays, names=names), version=event_type.version)


def _retype(array: pa.Array, field: pa.Field, where: str) -> pa.Array:
    found, wanted = array.type, field.type
    if found == wanted:
        return array
    if pa.types.is_null(found):
        return pa.nulls(len(array), wanted)
    if found == MIXED:
        try:
            return typed_column(to_list(array), wanted)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise SchemaMismatch(f"{where}: field {field.name!r}: expected {_type_name(wanted)}: {error}") from error
    if _is_number(found) and _is_number(wanted) and not (found == pa.float64() and wanted == pa.float32()):
        if pa.types.is_integer(found) and pa.types.is_floating(wanted):
            # The nearest number, by way of 64 bits as everywhere.
            return array.cast(pa.float64(), safe=False).cast(wanted, safe=False)
        try:
            return array.cast(wanted)
        except pa.ArrowInvalid as error:
            raise SchemaMismatch(f"{where}: field {field.name!r} is {found}; expected {wanted}: {error}") from error
    if wanted == TEXT and pa.types.is_string(found):
        return array.dictionary_encode().cast(TEXT)
    if wanted == pa.utf8() and found == TEXT:
        return array.cast(pa.utf8())
    raise SchemaMismatch(f"{where}: field {field.name!r} is {_type_name(found)}; expected {_type_name(wanted)}")


def _type_name(kind: pa.DataType) -> str:
    """The type in the words of the catalog."""
    return "string" if kind == TEXT or pa.types.is_string(kind) else str(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
