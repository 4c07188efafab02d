"""Arrow IPC streams of other programs, within bounds: nothing is unpacked or used before it was checked.

Arrow trusts what it reads: an offset, index or length that is wrong is found when a value is used, by reading memory
that is not its own. So the sizes that compressed buffers claim are added up before anything is unpacked, every batch is
validated completely, and the size of its values is computed as if each were written out, since a dictionary, a view or
a run of equal values may stand for any number of large ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from astrocyte.schemas.arrow.known import KnownSchemas
from astrocyte.schemas.arrow.messages import unpacked_bytes
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.values.foreign import is_binary

__all__ = [
    "ARROW_MAGIC",
    "MOST_BYTES",
    "PLAIN_TYPES",
    "arrow_reason",
    "read_schema",
    "read_stream",
    "refuse_large",
]

ARROW_MAGIC: Final = b"\xff\xff\xff\xff"
"""Continuation marker with which each message of an Arrow IPC stream begins; no JSON text can begin with it."""
MOST_BYTES: Final = 64 << 20
"""Bytes to which the values of one frame may amount, unpacked and written out; each value counts as at least 8."""
_LEAST: Final = 8
_SMALL: Final = 1 << 20
PLAIN_TYPES: Final = frozenset(
    kind.id
    for kind in (pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
                 pa.uint64(), pa.float32(), pa.float64(), pa.null())
)  # fmt: skip
"""Ids of the types of numbers and booleans that frames have."""
_TEXT: Final = pa.utf8().id
_ENCODED: Final = pa.dictionary(pa.int32(), pa.utf8()).id


def read_stream(payload: bytes | memoryview, *, most_bytes: int | None) -> tuple[pa.Schema, pa.RecordBatch]:
    """Schema and rows of an Arrow IPC stream, as one batch whose columns are views into the bytes.

    Without ``most_bytes`` its size is not limited: for what this program wrote itself. Raises InvalidFrame.
    """
    try:
        if most_bytes is not None:
            claimed = unpacked_bytes(payload)
            if claimed > most_bytes:
                raise InvalidFrame(
                    f"a frame of {len(payload):,} bytes unpacks to {claimed:,}; expected at most {most_bytes:,} bytes, "
                    "divide it"
                )
        reader = pa.ipc.open_stream(pa.py_buffer(payload))
        schema, batches = reader.schema, list(reader)
        for batch in batches:
            batch.validate(full=True)
        if most_bytes is not None:
            refuse_large(schema, batches, most_bytes, len(payload) if claimed == 0 else None)
        if len(batches) == 1:
            return schema, batches[0]
        table = pa.Table.from_batches(batches, schema).combine_chunks()
        arrays = [column.combine_chunks() for column in table.columns]
        return schema, pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, struct.error, IndexError, ValueError, OSError, EOFError) as error:
        raise InvalidFrame(
            f"expected an Arrow IPC stream, got {len(payload)} other bytes: {arrow_reason(error)}"
        ) from error


def arrow_reason(error: Exception) -> str:
    """What Arrow says, and what to do about types that it does not have."""
    wide = isinstance(error, pa.ArrowNotImplementedError) and "64 bits" in str(error)
    return f"{error}; write them as decimals, which keep all digits, or as Int64" if wide else str(error)


def read_schema(payload: bytes | memoryview) -> pa.Schema:
    """Schema of an Arrow IPC stream, whose rows are not looked at. Raises InvalidFrame."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(payload))
    except (pa.ArrowException, ValueError, OSError, EOFError) as error:
        raise InvalidFrame(
            f"expected an Arrow IPC stream, got {len(payload)} other bytes: {arrow_reason(error)}"
        ) from error


def refuse_large(schema: pa.Schema, batches: Sequence[pa.RecordBatch], most: int, size: int | None) -> None:
    """Raise InvalidFrame where the values of validated batches amount to more than ``most`` bytes.

    ``size`` is that of their messages if these are not compressed: text in them is not longer.
    """
    values = sum(batch.num_rows for batch in batches) * max(len(schema), 1)
    if size is not None and values * (_LEAST + size) <= most and _FLAT.holds(schema):
        return
    if _LEAST * values > most:
        raise _too_large(values, most)
    columns = [column for batch in batches for column in batch.columns]
    if _exceeds(map(_most_bytes, columns), most) and _exceeds(
        (float(_sizes(column, most).sum()) for column in columns), most
    ):
        raise InvalidFrame(
            f"the values of a frame amount to more than {most:,} bytes, as it names some of them many times; divide it"
        )


def _is_flat(schema: pa.Schema) -> bool:
    """Whether all columns are of numbers, text, or bytes of a fixed size: of types that hold no other values."""
    return all(
        kind.id in PLAIN_TYPES
        or kind.id == _TEXT
        or (kind.id == _ENCODED and kind.value_type.id == _TEXT)
        or (pa.types.is_fixed_size_binary(kind) and not isinstance(kind, pa.BaseExtensionType))
        for kind in schema.types
    )


_FLAT: Final = KnownSchemas(_is_flat)


def _exceeds(sizes: Iterable[float], most: int) -> bool:
    """Whether the sum is above ``most``; no more sizes are computed than are needed to know."""
    return any(total > most for total in accumulate(sizes))


def _too_large(values: int, most: int) -> InvalidFrame:
    return InvalidFrame(f"a frame holds {values:,} values or more; expected at most {most // _LEAST:,}, divide it")


def _most_bytes(column: pa.Array) -> float:
    """An upper bound of the bytes of the values; infinite where it takes `_sizes` to know."""
    kind, count = column.type, len(column)
    if kind.id in PLAIN_TYPES:
        return _LEAST * count
    if kind.id == _TEXT:
        return _LEAST * count + _text_bytes(column)
    if kind.id == _ENCODED and kind.value_type.id == _TEXT:
        # Of few rows or short strings it is known without looking at each of them.
        values = column.dictionary
        longest = _text_bytes(values)
        if count * longest > _SMALL:
            longest = pc.max(pc.binary_length(values)).as_py() or 0
        return count * (_LEAST + longest)
    if pa.types.is_list(kind):
        return _LEAST * count + _most_bytes(column.values)
    if pa.types.is_struct(kind):
        return _LEAST * count + sum(_most_bytes(column.field(number)) for number in range(kind.num_fields))
    if pa.types.is_primitive(kind):
        return _LEAST * count
    if pa.types.is_fixed_size_binary(kind):
        return float(count * (_LEAST + kind.byte_width))
    return np.inf


def _text_bytes(column: pa.StringArray) -> int:
    """Bytes of the buffer of a column of text, which its values do not exceed."""
    data = column.buffers()[2]
    return 0 if data is None else int(data.size)


def _sizes(column: pa.Array, most: int) -> NDArray[np.float64]:
    """Bytes of each value, written out. Raises InvalidFrame for more than ``most`` bytes at any level."""
    kind, types, count = column.type, pa.types, len(column)
    if _LEAST * count > most:
        raise _too_large(count, most)
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(column.storage, most)
    if types.is_dictionary(kind):
        values = np.append(_sizes(column.dictionary, most), _LEAST)
        named = column.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(values[named.astype(np.int64)])
    if types.is_run_end_encoded(kind):
        rows = np.arange(column.offset, column.offset + count)
        return _sizes(column.values, most)[np.searchsorted(column.run_ends, rows, side="right")]
    return _LEAST + _bytes_inside(column, most)


def _bytes_inside(column: pa.Array, most: int) -> NDArray[np.float64]:
    """Bytes of what each value holds: text, bytes and other values; 0 for a number."""
    kind, types, count = column.type, pa.types, len(column)
    if types.is_struct(kind):
        return sum((_sizes(column.field(number), most) for number in range(kind.num_fields)), np.zeros(count))
    if types.is_union(kind):
        # Of a dense union a member may be named many times, of a sparse one each has a value for every row.
        parts = (_sizes(column.field(number), most) for number in range(kind.num_fields))
        return np.full(count, sum(float(part.max(initial=0)) for part in parts))
    if types.is_fixed_size_list(kind):
        if _LEAST * count * kind.list_size > most:
            raise _too_large(count * kind.list_size, most)
        inside = _sizes(column.values, most)[: count * kind.list_size]
        return np.asarray(inside.reshape(count, kind.list_size).sum(axis=1))
    if types.is_nested(kind):
        ends = np.append(0.0, np.cumsum(_sizes(column.values, most)))
        first = np.asarray(column.offsets).astype(np.int64)
        if types.is_list_view(kind) or types.is_large_list_view(kind):
            last = first + np.asarray(column.sizes).astype(np.int64)
        else:  # lists and maps
            first, last = first[:-1], first[1:]
        beyond = len(ends) - 1
        return np.asarray(ends[np.clip(last, 0, beyond)] - ends[np.clip(first, 0, beyond)])
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(column.buffers()[1], np.int32, 4 * count, column.offset * 16)[::4] if count else ()
        return np.maximum(views, 0.0)
    if types.is_string(kind) or types.is_large_string(kind) or is_binary(kind):
        return np.asarray(pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False), np.float64)
    return np.zeros(count)
