"""The declarative base and the column types that SQLite and PostgreSQL share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from astrocyte.schemas.errors import InvalidEvent

__all__ = ["SIMULATION_ID", "Base", "Real", "Recorded", "TextArray", "Vector", "simulation_key", "vector_index"]

SIMULATION_ID: Final = 64
"""Longest simulation id, in characters."""

Real = Float(53)
"""FLOAT in double precision on every database (a bare FLOAT is single precision on MySQL)."""


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Recorded:
    """Mixin of tables with retention: ``recorded_at`` is the wall time at which the sink first wrote the row.

    Retention uses it rather than event time, which may be any time in a simulation.
    """

    recorded_at: Mapped[int | None] = mapped_column(BigInteger, sort_order=1000)


def simulation_key(*, primary: bool = False, nullable: bool = False) -> Mapped[Any]:
    """Column ``simulation_id``, a foreign key to ``simulations``."""
    return mapped_column(
        String(SIMULATION_ID),
        ForeignKey("simulations.simulation_id"),
        primary_key=primary,
        nullable=nullable,
    )


class Vector(TypeDecorator[Any]):
    """A vector of ``size`` float32: pgvector's ``vector(size)`` on PostgreSQL, a little-endian BLOB elsewhere.

    Accepts a sequence or array of ``size`` finite numbers and returns a float32 array. Raises InvalidEvent.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pgvector's type on PostgreSQL, bytes elsewhere."""
        if dialect.name == "postgresql":
            from pgvector.sqlalchemy import VECTOR

            return dialect.type_descriptor(VECTOR(self.size))
        return dialect.type_descriptor(LargeBinary(4 * self.size))

    def as_array(self, value: Sequence[float] | NDArray[np.floating] | bytes) -> NDArray[np.float32]:
        """The vector as an array of ``size`` finite float32. Raises InvalidEvent."""
        array = np.frombuffer(value, "<f4") if isinstance(value, bytes) else np.asarray(value, dtype=np.float32)
        if array.shape != (self.size,):
            raise InvalidEvent(f"expected a vector of {self.size} numbers, got one of shape {array.shape}")
        if not np.isfinite(array).all():
            raise InvalidEvent(f"a vector holds {array[~np.isfinite(array)][0]}; expected finite numbers")
        return array

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """A list for pgvector, bytes elsewhere."""
        if value is None:
            return None
        array = self.as_array(value)
        return array.tolist() if dialect.name == "postgresql" else array.astype("<f4").tobytes()

    def process_result_value(self, value: Any, dialect: Dialect) -> NDArray[np.float32] | None:
        """The stored vector as float32 on every database."""
        del dialect
        return None if value is None else self.as_array(value)


class TextArray(TypeDecorator[list[str]]):
    """A list of strings: ``TEXT[]`` on PostgreSQL, a JSON array as text elsewhere."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """A native array on PostgreSQL, text elsewhere."""
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        """The list itself, or its JSON."""
        if value is None or dialect.name == "postgresql":
            return value
        return orjson.dumps([str(item) for item in value]).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str] | None:
        """The list on every database."""
        if value is None or dialect.name == "postgresql":
            return value  # type: ignore[no-any-return]
        items: list[str] = orjson.loads(value)
        return items


def vector_index(name: str, column: str) -> Index:
    """HNSW index over ``column`` by cosine distance; exists on PostgreSQL only."""
    index = Index(name, column, postgresql_using="hnsw", postgresql_ops={column: "vector_cosine_ops"})
    index.ddl_if(dialect="postgresql")
    return index


Json = JSON(none_as_null=True)
"""A JSON document; None is SQL's NULL."""
