"""What a sink or a logger needs of a database, and which of its errors mean what."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from astrocyte.agents.sinks.sql.rows import Rows

__all__ = ["Fault", "Store"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a driver's error means: it passes (transient), the row is wrong (row), or the store is unusable (fatal)."""

    kind: Literal["transient", "row", "fatal"]
    reason: str


class Store(Protocol):
    """One connection to one database; all methods block, and are called from one thread at a time."""

    enforces: bool
    """Whether the database itself refuses a row that refers to a missing one."""

    def connect(self) -> None:
        """Open the connection where there is none. Raises the driver's error or SinkError."""

    def disconnect(self) -> None:
        """Close the connection; what was not committed is gone. Never raises."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside is committed at its end, or nothing is."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Inside a transaction: what is inside is undone where it raises, and what was before stands."""

    def upsert(self, rows: Rows) -> None:
        """Insert the rows, or do with those that exist what their target says."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query whose parameters are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Number of rows that a statement, whose parameters are question marks, changed."""

    def lock(self, name: str) -> None:
        """Inside a transaction: let no other transaction that takes the lock ``name`` run until this one ends."""

    def fault_of(self, error: Exception) -> Fault:
        """Meaning of an error that one of the other methods raised."""
