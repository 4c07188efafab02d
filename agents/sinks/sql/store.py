"""The database interface of sinks and loggers, and the classification of its errors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from astrocyte.agents.sinks.sql.rows import Rows

__all__ = ["Fault", "Store"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Class of a driver's error: a retry may succeed (transient), the row is invalid (row), or neither (fatal)."""

    kind: Literal["transient", "row", "fatal"]
    reason: str


class Store(Protocol):
    """One connection to one database; all methods block, and are called from one thread at a time."""

    enforces: bool
    """Whether the database checks foreign keys."""

    def connect(self) -> None:
        """Open the connection unless it is open. Raises the driver's error or SinkError."""

    def disconnect(self) -> None:
        """Close the connection; uncommitted changes are lost. Never raises."""

    def transaction(self) -> AbstractContextManager[None]:
        """Transaction: committed at the end of the block, rolled back if it raises."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Savepoint in a transaction: if the block raises, only its changes are rolled back."""

    def upsert(self, rows: Rows) -> None:
        """Insert the rows; rows that exist are handled by the ``conflict`` of their target."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query whose parameters are question marks."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement whose parameters are question marks; returns the number of rows changed."""

    def lock(self, name: str) -> None:
        """In a transaction: take the exclusive lock ``name``, held until the transaction ends."""

    def fault_of(self, error: Exception) -> Fault:
        """Class of an error that one of the other methods raised."""
