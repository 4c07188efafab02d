"""Base of the repositories: rows as typed results, streamed, or as Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final, TypeVar

import pyarrow as pa
from sqlalchemy import BigInteger, Boolean, Float, Integer, Select
from sqlalchemy.engine import Engine

from astrocyte.schemas.tables import Base

__all__ = ["BATCH_ROWS", "Repository", "arrow_reader", "columns_of"]

T = TypeVar("T")
BATCH_ROWS: Final = 10_000
"""Rows held at once, so that memory use does not grow with the size of a result."""


class Repository:
    """Queries about one simulation."""

    def __init__(self, engine: Engine, simulation_id: str) -> None:
        self.engine = engine
        self.simulation_id = simulation_id

    def _own(self, table: Any) -> Any:
        """The condition that a row of ``table`` is about this simulation."""
        return table.c.simulation_id == self.simulation_id

    def _stream(self, query: Select[Any], kind: type[T]) -> Iterator[T]:
        """Each row as a ``kind``, fetched on demand."""
        with (
            self.engine.connect().execution_options(stream_results=True, yield_per=BATCH_ROWS) as connection,
            connection.execute(query) as result,
        ):
            for part in result.partitions():
                for row in part:
                    yield kind(*row)

    def _all(self, query: Select[Any], kind: type[T]) -> list[T]:
        return list(self._stream(query, kind))

    def _first(self, query: Select[Any], kind: type[T]) -> T | None:
        return next(iter(self._all(query.limit(1), kind)), None)


def arrow_reader(engine: Engine, query: Select[Any], columns: Sequence[Any]) -> pa.RecordBatchReader:
    """Rows of a query as Arrow batches, fetched on demand; close the reader to end the query early."""
    schema = pa.schema([(column.name, _arrow_type(column)) for column in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        with (
            engine.connect().execution_options(stream_results=True, yield_per=BATCH_ROWS) as connection,
            connection.execute(query) as result,
        ):
            for part in result.partitions():
                arrays = [
                    pa.array(values, field.type) for values, field in zip(zip(*part, strict=True), schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _arrow_type(column: Any) -> pa.DataType:
    for kind, arrow in ((Boolean, pa.bool_()), (BigInteger, pa.int64()), (Integer, pa.int64()), (Float, pa.float64())):
        if isinstance(column.type, kind):
            return arrow
    return pa.utf8()


def columns_of(model: type[Base], result: type[Any]) -> list[Any]:
    """The table's columns with the names of the fields of a result type, in the order of the fields."""
    return [model.__table__.c[field.name] for field in fields(result)]
