"""States: the data that groups of rows keep for their aggregates, as arrays with one slot per group.

A state adds rows (`add`), merges newer groups of rows (`merge`), and is read by one or more aggregates; the mean and
the sum of one field share a state. Operations are vectorised over all groups.
"""
# ruff: noqa: D102  the docstrings of State's methods apply to every subclass

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.windows.aggregates import accumulate as kernels
from astrocyte.agents.windows.aggregates.bags import TOKENS, Arena
from astrocyte.agents.windows.rows import ColumnData

__all__ = [
    "Ewma",
    "Extreme",
    "Histogram",
    "Members",
    "Moment",
    "Need",
    "Occurrence",
    "Slope",
    "Spread",
    "State",
    "Tokens",
    "Values",
]

Need = Literal["rows", "present", "true", "number", "object", "token", "label"]
"""Input of a state: nothing, whether there is a value, whether it is true, numbers, Python objects, or uint64 tokens of
the values (label: of those that are no numbers)."""

Slots = NDArray[np.int32]
Floats = NDArray[np.float64]
_ONE: Final = np.ones(1)
_ZERO: Final = np.zeros(1)


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Rows and the groups they belong to, in the order in which they are to be added."""

    slots: Slots
    t: NDArray[np.int64]
    weights: Floats | None = None
    """Number of events that each row represents; None: one each."""

    @property
    def w(self) -> tuple[Floats, int]:
        """Weights as kernel arguments: an array and the step from one row's weight to the next."""
        return (_ONE, 0) if self.weights is None else (self.weights, 1)

    def take(self, rows: NDArray[np.bool_]) -> Members:
        """The flagged rows."""
        return Members(self.slots[rows], self.t[rows], None if self.weights is None else self.weights[rows])


class State(ABC):
    """Arrays with a slot for each group; ``fields`` has their types. ``n`` is the weight of the rows added."""

    fields: ClassVar[Mapping[str, type]] = {}

    def __init__(self, need: Need) -> None:
        self.need = need
        self.arrays: dict[str, NDArray[Any]] = {}
        for name, dtype in {"n": np.float64, **self.fields}.items():
            self.arrays[name] = np.zeros(0, dtype)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` groups; new slots are empty."""
        for name, array in self.arrays.items():
            added = np.zeros((capacity - len(array), *array.shape[1:]), array.dtype)
            self.arrays[name] = np.concatenate([array, added])

    def clear(self, slots: NDArray[np.integer]) -> None:
        """Clear the given slots."""
        for array in self.arrays.values():
            array[slots] = 0

    @abstractmethod
    def add(self, rows: Members, values: ColumnData) -> None:
        """Add the rows with their values, all valid (empty if the state needs none), to their groups."""

    @abstractmethod
    def merge(self, into: Slots, other: Slots) -> None:
        """Merge the newer group ``other[j]`` into ``into[j]``; the slots of ``other`` are not changed."""

    def snapshot(self, slots: NDArray[np.integer]) -> dict[str, Any]:
        """State of the given slots."""
        parts: dict[str, Any] = {}
        for name, array in self.arrays.items():
            taken = array[slots]
            parts[name] = json.dumps(taken.tolist()).encode() if taken.dtype == np.object_ else taken
        return parts

    def restore(self, slots: NDArray[np.integer], snapshot: Mapping[str, Any]) -> None:
        """Write a snapshot's groups to the given (empty) slots."""
        for name, array in self.arrays.items():
            array[slots] = json.loads(bytes(snapshot[name])) if array.dtype == np.object_ else snapshot[name]


def _low(values: ColumnData) -> tuple[Floats, int]:
    """Low parts as kernel arguments: an array and the step from one row's to the next."""
    return (_ZERO, 0) if values.low is None else (values.low, 1)


class Moment(State):
    """Weight and sum, which is kept as a pair (`agents.expressions.numbers.accumulate`); or the weight alone."""

    fields: ClassVar = {"total": np.float64, "rest": np.float64}

    def add(self, rows: Members, values: ColumnData) -> None:
        if self.need == "number":
            kernels.add_sum(rows.slots, values.data, *_low(values), *rows.w, *self.arrays.values())
        else:
            kernels.add_count(rows.slots, *rows.w, self.arrays["n"])

    def merge(self, into: Slots, other: Slots) -> None:
        kernels.merge_sum(into, other, *self.arrays.values())


class Spread(State):
    """Weight, mean and sum of squared deviations."""

    fields: ClassVar = {"mean": np.float64, "m2": np.float64}

    def add(self, rows: Members, values: ColumnData) -> None:
        kernels.add_std(rows.slots, values.data, *rows.w, *self.arrays.values())

    def merge(self, into: Slots, other: Slots) -> None:
        kernels.merge_std(into, other, *self.arrays.values())


class Extreme(State):
    """Least or greatest value."""

    fields: ClassVar = {"value": np.float64, "low": np.float64}

    def __init__(self, need: Need, which: Literal["min", "max"]) -> None:
        super().__init__(need)
        self._add = kernels.add_min if which == "min" else kernels.add_max
        self._merge = kernels.merge_min if which == "min" else kernels.merge_max

    def add(self, rows: Members, values: ColumnData) -> None:
        self._add(rows.slots, values.data, *_low(values), *self.arrays.values())

    def merge(self, into: Slots, other: Slots) -> None:
        self._merge(into, other, *self.arrays.values())


class Occurrence(State):
    """First or last value in event time; for equal times the first, or the last, in processing order.

    With the need of objects a value may be of any kind: what is no number is in ``thing``, flagged by ``held``.
    """

    fields: ClassVar = {"time": np.int64, "value": np.float64, "low": np.float64}

    def __init__(self, need: Need, which: Literal["first", "last"]) -> None:
        super().__init__(need)
        if need == "object":
            self.arrays |= {"thing": np.zeros(0, np.object_), "held": np.zeros(0, np.bool_)}
        self._add = kernels.add_first if which == "first" else kernels.add_last
        self._merge = kernels.merge_first if which == "first" else kernels.merge_last
        self._winner = np.zeros(0, np.int64)

    def grow(self, capacity: int) -> None:
        super().grow(capacity)
        self._winner = np.full(capacity, -1, np.int64)

    def add(self, rows: Members, values: ColumnData) -> None:
        a = self.arrays
        self._add(rows.slots, rows.t, a["n"], a["time"], self._winner)
        touched = rows.slots[self._winner[rows.slots] == np.arange(len(rows.slots))]
        winners = self._winner[touched]
        objects = values.data.dtype == np.object_
        if self.need == "object":
            a["held"][touched] = objects
        if objects:
            a["thing"][touched] = values.data[winners]
        else:
            a["value"][touched] = values.data[winners]
            a["low"][touched] = 0.0 if values.low is None else values.low[winners]
        self._winner[touched] = -1

    def merge(self, into: Slots, other: Slots) -> None:
        a = self.arrays
        source = np.empty(len(into), np.int64)
        self._merge(into, other, a["n"], a["time"], source)
        # Several groups may merge into one; the last assignment, in order, is that of the winner.
        parts = [array for name, array in a.items() if name not in ("n", "time")]
        for target, origin in zip(into[source >= 0].tolist(), source[source >= 0].tolist(), strict=True):
            for array in parts:
                array[target] = array[origin]


class Slope(State):
    """Running covariance of value and time."""

    fields: ClassVar = {
        "origin": np.int64, "mean_t": np.float64, "mean_x": np.float64, "ctt": np.float64, "ctx": np.float64,
    }  # fmt: skip

    def add(self, rows: Members, values: ColumnData) -> None:
        kernels.add_slope(rows.slots, rows.t, values.data, *self.arrays.values())

    def merge(self, into: Slots, other: Slots) -> None:
        kernels.merge_slope(into, other, *self.arrays.values())


class Ewma(State):
    """Exponentially weighted mean: the first row sets it, each later row moves it by ``alpha`` times the difference."""

    fields: ClassVar = {"first": np.float64, "value": np.float64}

    def __init__(self, need: Need, alpha: float) -> None:
        super().__init__(need)
        self.alpha = alpha

    def add(self, rows: Members, values: ColumnData) -> None:
        kernels.add_ewma(rows.slots, values.data, self.alpha, *self.arrays.values())

    def merge(self, into: Slots, other: Slots) -> None:
        kernels.merge_ewma(into, other, self.alpha, *self.arrays.values())


class Histogram(State):
    """Weight in each of equal bins between fixed bounds; values outside count in the outermost bins."""

    def __init__(self, need: Need, bins: int, low: float, high: float) -> None:
        super().__init__(need)
        self.low, self.high = low, high
        self.arrays["counts"] = np.zeros((0, bins))

    def add(self, rows: Members, values: ColumnData) -> None:
        kernels.add_histogram(rows.slots, values.data, *rows.w, self.low, self.high, self.arrays["counts"])

    def merge(self, into: Slots, other: Slots) -> None:
        counts = self.arrays["counts"]
        np.add.at(counts, into, counts[other])


class _Bag(State):
    """The values or tokens themselves, in an arena of bags."""

    def __init__(self, need: Need, arena: Arena) -> None:
        super().__init__(need)
        self.arrays = {}
        self.arena = arena

    def grow(self, capacity: int) -> None:
        self.arena.grow(capacity)

    def clear(self, slots: NDArray[np.integer]) -> None:
        self.arena.clear(slots)

    def add(self, rows: Members, values: ColumnData) -> None:
        self.arena.add(rows.slots, values.data, *rows.w)

    def merge(self, into: Slots, other: Slots) -> None:
        self.arena.merge(into, other)

    def snapshot(self, slots: NDArray[np.integer]) -> dict[str, Any]:
        return dict(zip(("heads", "items", "weights"), self.arena.gather(slots), strict=True))

    def restore(self, slots: NDArray[np.integer], snapshot: Mapping[str, Any]) -> None:
        self.arena.load(slots, (snapshot["heads"], snapshot["items"], snapshot["weights"]))


class Values(_Bag):
    """The values, exact up to `bags.VALUES` of a group and a t-digest beyond."""

    def __init__(self, need: Need) -> None:
        super().__init__(need, Arena(None))


class Tokens(_Bag):
    """The distinct values as tokens; with ``estimate``, a group with more than `bags.TOKENS` becomes an estimate."""

    def __init__(self, need: Need, *, estimate: bool) -> None:
        super().__init__(need, Arena(TOKENS if estimate else 2**62))
