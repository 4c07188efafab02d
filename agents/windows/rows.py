"""Input rows of windows: time, key number, run and the columns that the aggregates read; no other fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnData", "WindowRows"]


class ColumnData(NamedTuple):
    """One column; rows that are not ``valid`` have no value (``valid`` None: all rows have one).

    ``low`` is to be added to numbers that float64 cannot hold (None: to none).
    """

    data: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    low: NDArray[np.float64] | None = None

    def take(self, order: NDArray[np.integer] | NDArray[np.bool_] | slice) -> ColumnData:
        """Rows in the given order (indices), those flagged (booleans), or a slice."""
        return ColumnData(*(None if each is None else each[order] for each in self))  # type: ignore[arg-type]

    def as_objects(self) -> ColumnData:
        """The same values as Python objects: numbers are floats, unless these cannot hold them."""
        if self.data.dtype == np.object_:
            return self
        data = np.empty(len(self.data), np.object_)
        data[:] = self.data.tolist()
        if self.low is not None:
            for row in np.flatnonzero(self.low).tolist():
                data[row] = int(self.data[row]) + int(self.low[row])
        return ColumnData(data, self.valid)

    @classmethod
    def concat(cls, pieces: Sequence[ColumnData]) -> ColumnData:
        """All rows of the pieces, concatenated."""
        valid = low = None
        if any(piece.data.dtype == np.object_ for piece in pieces):
            pieces = [piece.as_objects() for piece in pieces]
        if any(piece.valid is not None for piece in pieces):
            valid = np.concatenate(
                [np.ones(len(piece.data), np.bool_) if piece.valid is None else piece.valid for piece in pieces]
            )
        if any(piece.low is not None for piece in pieces):
            low = np.concatenate([np.zeros(len(piece.data)) if piece.low is None else piece.low for piece in pieces])
        return cls(np.concatenate([piece.data for piece in pieces]), valid, low)


@dataclass(frozen=True, slots=True, eq=False)
class WindowRows:
    """Rows that `WindowOperator.prepare` made of a frame; the engine reorders and joins them, then calls `add`."""

    t: NDArray[np.int64]
    row: NDArray[np.int64]
    """Index of each row in its frame (rows for which ``where`` is false are left out)."""
    key: NDArray[np.int32]
    run: NDArray[np.int32]
    weights: NDArray[np.float64] | None
    columns: tuple[ColumnData, ...]

    def __len__(self) -> int:
        return len(self.t)

    def take(self, order: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Rows in the given order (indices), those flagged (booleans), or a slice."""
        columns = (column.take(order) for column in self.columns)
        weights = None if self.weights is None else self.weights[order]
        return type(self)(self.t[order], self.row[order], self.key[order], self.run[order], weights, tuple(columns))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of ``parts`` (at least one part) of one operator, concatenated."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        weights = None
        if any(part.weights is not None for part in parts):
            weights = np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts])
        columns = [ColumnData.concat([part.columns[index] for part in parts]) for index in range(len(parts[0].columns))]
        t, row, key, run = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("t", "row", "key", "run")
        )
        return cls(t, row, key, run, weights, tuple(columns))

    def snapshot(self) -> dict[str, Any]:
        """The rows as arrays and bytes."""
        parts: dict[str, Any] = {"t": self.t, "row": self.row, "key": self.key, "run": self.run}
        if self.weights is not None:
            parts["weights"] = self.weights
        for index, column in enumerate(self.columns):
            objects = column.data.dtype == np.object_
            parts[f"data{index}"] = json.dumps(column.data.tolist()).encode() if objects else column.data
            for name in ("valid", "low"):
                if getattr(column, name) is not None:
                    parts[f"{name}{index}"] = getattr(column, name)
        parts["columns"] = len(self.columns)
        return parts

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> Self:
        """Rows of a snapshot."""
        columns = []
        for index in range(int(snapshot["columns"])):
            data = snapshot[f"data{index}"]
            if not isinstance(data, np.ndarray):
                values = json.loads(bytes(data))
                data = np.empty(len(values), np.object_)
                data[:] = values
            columns.append(ColumnData(data, snapshot.get(f"valid{index}"), snapshot.get(f"low{index}")))
        t, row, key, run = (snapshot[name] for name in ("t", "row", "key", "run"))
        return cls(t, row, key, run, snapshot.get("weights"), tuple(columns))
