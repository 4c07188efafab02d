"""Batches that any program wrote, as those that frames have, checked once."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import pyarrow as pa

from astrocyte.schemas.arrow.columns import frame_columns, non_finite_of
from astrocyte.schemas.arrow.usual import IDENTIFYING, NEEDED, is_usual
from astrocyte.schemas.errors import InvalidFrame
from astrocyte.schemas.values.nested import NON_FINITE, reasons_column

__all__ = ["usual_batch", "usual_without_rows"]


@lru_cache(maxsize=256)
def usual_without_rows(
    schema: pa.Schema, stream: str, exact: Collection[str] | None, typed: Collection[str]
) -> pa.RecordBatch:
    """The batch of a frame that only says how far time is, which most frames of a quiet stream do. Raises InvalidFrame.

    What `schemas.arrow.stream.read_stream` and `usual_batch` make of no rows depends on the schema alone, and costs
    half a millisecond.
    """
    arrays = [column.combine_chunks() for column in schema.empty_table().columns]
    return usual_batch(pa.RecordBatch.from_arrays(arrays, schema=schema), stream, exact, typed)


def usual_batch(
    batch: pa.RecordBatch, stream: str, exact: Collection[str] | None, typed: Collection[str]
) -> pa.RecordBatch:
    """A batch of another writer with columns of the types that frames have. Raises InvalidFrame.

    ``exact`` and ``typed`` are as in `schemas.arrow.columns.frame_columns`.
    """
    if is_usual(batch, exact):
        return batch
    names, given = batch.schema.names, batch.columns
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidFrame(f"frame of stream {stream!r}: two columns are called {twice!r}; give each a name of its own")
    columns = frame_columns(names, given, stream, exact, typed)
    if any(made is not each for made, each in zip(columns, given, strict=True)):
        if reasons := non_finite_of(zip(names, given, columns, strict=True)):
            names, columns = [*names, NON_FINITE], [*columns, reasons_column(reasons, batch.num_rows)]
        batch = pa.RecordBatch.from_arrays(columns, names=names)
    found = dict(zip(names, columns, strict=True))
    for name, kind in NEEDED.items():
        if name not in found or found[name].type != kind:
            had = found[name].type if name in found else None
            raise InvalidFrame(f"frame of stream {stream!r}: column {name!r} is {had}; expected {kind}")
    if found["timestamp"].null_count:
        raise InvalidFrame(f"frame of stream {stream!r}: column 'timestamp' holds nulls; every event needs a time")
    for name, kinds in IDENTIFYING.items():
        if name in found and (found[name].type not in kinds or found[name].null_count):
            raise InvalidFrame(
                f"frame of stream {stream!r}: column {name!r} is {found[name].type} with "
                f"{found[name].null_count} nulls; expected {' or '.join(map(str, kinds))}, a value for each row"
            )
    return batch
