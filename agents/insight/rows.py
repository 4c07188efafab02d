"""Input rows of a statistic: event time, run and the columns that it reads, kept until no window needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import SchemaMismatch
from astrocyte.schemas.frames import Frame

__all__ = ["NO_ID", "Rows", "Source", "one_of_each"]

NO_ID: Final = np.iinfo(np.int64).min
"""Stands for an id that is null."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a statistic reads of one stream: ids (whole numbers), numbers, and rows of some types (empty: of all)."""

    stream: str
    ids: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def read(self, frame: Frame, runs: dict[str, int]) -> Rows:
        """The rows of a frame of the source's types; ``runs`` are the numbers of the runs, to which new ones are added.

        The run of a row is its ``simulation_id``. ``kind`` is the index of a row's type in ``types``; a null id is
        `NO_ID`, a null number NaN. Raises SchemaMismatch for a field that is absent or has another type.
        """
        row: NDArray[np.int64] | None = None  # all
        kind = np.zeros(frame.num_rows, np.int8)
        if self.types:
            known = {name: number for number, name in enumerate(self.types)}
            names, codes = _strings(frame.column("type"))
            kind = np.array([known.get(name, -1) for name in names], np.int8)[codes]
            if (kind < 0).any():
                row = np.flatnonzero(kind >= 0)
                kind = kind[row]
        columns = {name: self._column(frame, name, row, whole=True) for name in self.ids}
        columns |= {name: self._column(frame, name, row, whole=False) for name in self.numbers}
        t, run = frame.timestamps(), _run_numbers(frame, runs)
        if row is None:
            return Rows(t, run, kind, np.arange(frame.num_rows), columns)
        return Rows(t[row], run[row], kind, row, columns)

    def _column(self, frame: Frame, name: str, row: NDArray[np.int64] | None, *, whole: bool) -> NDArray[Any]:
        if not frame.has(name):
            known = CATALOG.find(self.stream)
            if known is not None and name in known.fields:  # a frame need not carry a field that has no values in it
                count = frame.num_rows if row is None else len(row)
                return np.full(count, NO_ID, np.int64) if whole else np.full(count, np.nan)
            raise SchemaMismatch(
                f"stream {self.stream!r} has no field {name!r}, which a statistic reads; it has "
                f"{', '.join(frame.fields) or 'none'}: name one of these in the statistic's settings"
            )
        column = frame.column(name)
        if row is not None:
            column = column.take(pa.array(row))
        fits = pa.types.is_integer(column.type) or (
            not whole and (pa.types.is_floating(column.type) or pa.types.is_boolean(column.type))
        )
        if not fits:
            if column.null_count < len(column):
                raise SchemaMismatch(
                    f"stream {self.stream!r}: field {name!r} is {column.type}; a statistic reads it as "
                    f"{'an id, which is a whole number' if whole else 'a number'}: name another field in its settings"
                )
            return np.full(len(column), NO_ID, np.int64) if whole else np.full(len(column), np.nan)
        if column.null_count:
            column = column.cast(pa.int64()).fill_null(NO_ID) if whole else column.cast(pa.float64())
        # Where floating-point numbers are null, Arrow gives NaN.
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype(np.int64 if whole else np.float64)
        return values

    def no_rows(self) -> Rows:
        """Rows of this source, none."""
        columns: dict[str, NDArray[Any]] = {name: np.empty(0, np.int64) for name in self.ids}
        columns |= {name: np.empty(0) for name in self.numbers}
        nothing = np.empty(0, np.int64)
        return Rows(nothing, nothing.astype(np.int32), nothing.astype(np.int8), nothing, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one source, all columns of shape [n]."""

    t: NDArray[np.int64]
    run: NDArray[np.int32]
    kind: NDArray[np.int8]
    row: NDArray[np.int64]
    """Index of each row in its frame."""
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Rows in the given order (indices), those flagged (booleans), or a slice."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return type(self)(self.t[chosen], self.run[chosen], self.kind[chosen], self.row[chosen], columns)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of ``parts``, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        t, run, kind, row = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("t", "run", "kind", "row")
        )
        return cls(t, run, kind, row, columns)

    def ordered(self) -> Self:
        """The rows by run, time and contents: an order that does not depend on how they arrived.

        Sums of floating-point numbers depend on their order; with this one, results are bit-identical.
        """
        names = list(self.columns)
        keys = [*(self.columns[name] for name in names[:1] if self.columns[name].dtype == np.int64), self.t, self.run]
        order = np.lexsort(keys)
        equal = np.ones(max(len(self) - 1, 0), np.bool_)
        for key in keys:
            equal &= key[order][1:] == key[order][:-1]
        if equal.any():
            order = np.lexsort([self.kind, *(self.columns[name] for name in reversed(names)), self.t, self.run])
        return self.take(order)

    def snapshot(self) -> dict[str, Any]:
        """The rows as arrays; the places in frames are left out."""
        return {"t": self.t, "run": self.run, "kind": self.kind} | {
            f"column_{name}": values for name, values in self.columns.items()
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> Self:
        """Rows of a snapshot."""
        columns = {
            name.removeprefix("column_"): values for name, values in snapshot.items() if name.startswith("column_")
        }
        t = snapshot["t"]
        return cls(t, snapshot["run"], snapshot["kind"], np.zeros(len(t), np.int64), columns)


def one_of_each(ids: NDArray[np.int64], *, last: bool = False) -> NDArray[np.int64]:
    """Place of the first (or last) row of each id, by ascending id."""
    order = np.argsort(ids, kind="stable")
    found = ids[order]
    change = found[1:] != found[:-1]
    return order[np.append(change, True) if last else np.append(True, change)] if len(order) else order


def _strings(column: pa.Array) -> tuple[list[str], NDArray[np.integer]]:
    """Distinct values of a column as text, and the place of each row's among them; null is the empty text."""
    column = column if pa.types.is_dictionary(column.type) else column.cast(pa.utf8()).dictionary_encode()
    names = ["" if name is None else str(name) for name in column.dictionary.to_pylist()]
    indices = column.indices
    if indices.null_count:
        names, indices = [*names, ""], indices.fill_null(len(names))
    return names, indices.to_numpy(zero_copy_only=False)


def _run_numbers(frame: Frame, runs: dict[str, int]) -> NDArray[np.int32]:
    """Number of the run of each row."""
    if "simulation_id" not in frame.batch.schema.names:
        return np.full(frame.num_rows, runs.setdefault(frame.run, len(runs)), np.int32)
    names, codes = _strings(frame.column("simulation_id"))
    numbers = np.full(len(names), -1, np.int32)
    for code in np.flatnonzero(np.bincount(codes, minlength=len(names))).tolist():
        numbers[code] = runs.setdefault(names[code], len(runs))
    found: NDArray[np.int32] = numbers[codes]
    return found
