"""Rows: events prepared for the kernels, with times, key numbers and predicate bits instead of fields.

`Prepared` holds one entry for every (event, rule group) where a rule of the group may react to the event; other events
have no entry. Entries of one event are adjacent and stay so under a stable sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outputs", "Prepared", "Rows", "plain"]


class _View:
    def __init__(self, interface: dict[str, Any], owner: NDArray[Any]) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels take it: contiguous, and not marked read-only (numba would compile a second variant).

    Kernels do not write to their input arrays.
    """
    if not array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    if array.flags.writeable or not array.size:
        return array if array.flags.writeable else array.copy()
    address, _ = array.__array_interface__["data"]
    return np.asarray(_View({**array.__array_interface__, "data": (address, False)}, array))


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Entries in order of their events; made by `Matcher.prepare`, reordered by the engine, fed to `process`."""

    t: NDArray[np.int64]
    """Event time, microseconds."""
    ref: NDArray[np.int64]
    """The engine's handle of the event."""
    group: NDArray[np.int32]
    """Number of the rule group."""
    key: NDArray[np.int32]
    """Number of the event's key in the key table of the group's correlation field."""
    mask: NDArray[np.uint64]
    """One bit for each predicate of the group's rules; never 0."""
    columns: NDArray[np.float64]
    """Shape [fields, entries]: values that conditions over several events need; NaN is null."""
    lows: NDArray[np.float64]
    """Remainder of integers beyond 2**53 that float64 cannot hold, to be added to ``columns``; shape [0, 0] if none."""

    def __len__(self) -> int:
        return len(self.t)

    def take(self, order: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Entries in the given order (indices), those flagged (booleans), or a slice."""
        lows = self.lows[:, order] if self.lows.size else self.lows
        return type(self)(
            self.t[order], self.ref[order], self.group[order], self.key[order], self.mask[order],
            self.columns[:, order], lows,
        )  # fmt: skip

    def split(self, at: int) -> tuple[Self, Self]:
        """Entries before ``at`` and from ``at`` on."""
        return self.take(slice(None, at)), self.take(slice(at, None))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All entries of ``parts``, concatenated; fields that an older part lacks are null there."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        fields = max(part.columns.shape[0] for part in parts)
        wide = any(part.lows.size for part in parts)
        columns = np.concatenate([_padded(part.columns, fields, len(part), np.nan) for part in parts], axis=1)
        lows = (
            np.concatenate([_padded(part.lows, fields, len(part), 0.0) for part in parts], axis=1)
            if wide
            else np.empty((0, 0))
        )
        return cls(
            np.concatenate([part.t for part in parts]),
            np.concatenate([part.ref for part in parts]),
            np.concatenate([part.group for part in parts]),
            np.concatenate([part.key for part in parts]),
            np.concatenate([part.mask for part in parts]),
            columns,
            lows,
        )

    @classmethod
    def empty(cls) -> Self:
        """No entries."""
        return cls(
            np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32),
            np.empty(0, np.uint64), np.empty((0, 0)), np.empty((0, 0)),
        )  # fmt: skip


def _padded(columns: NDArray[np.float64], fields: int, rows: int, fill: float) -> NDArray[np.float64]:
    if columns.shape == (fields, rows):
        return columns
    padded = np.full((fields, rows), fill)
    if columns.size:
        padded[: columns.shape[0]] = columns
    return padded


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Entries of one rule group, in processing order (t non-decreasing): the input of an operator."""

    t: NDArray[np.int64]
    seq: NDArray[np.int64]
    """Number in processing order, increasing over the life of the matcher; ties in t keep this order."""
    ref: NDArray[np.int64]
    key: NDArray[np.int32]
    mask: NDArray[np.uint64]
    columns: NDArray[np.float64]
    lows: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Matches and timeouts of one rule in the order in which they were emitted.

    Rows ``offsets[i]`` to ``offsets[i + 1]`` of ``step`` and ``ref`` are the events of output i, in step order and
    then event order (for a seq this is the order of the events).
    """

    key: NDArray[np.int32]
    time_us: NDArray[np.int64]
    """Time of the last event, or the instant at which an absence or timeout was decided."""
    kind: NDArray[np.int8]
    """0 match, 1 timeout."""
    offsets: NDArray[np.int64]
    step: NDArray[np.int16]
    """Index into ``rule.positive``."""
    ref: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """The outputs of all parts, concatenated."""
        starts = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        shifted = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            np.concatenate([part.key for part in parts]),
            np.concatenate([part.time_us for part in parts]),
            np.concatenate([part.kind for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *shifted]),
            np.concatenate([part.step for part in parts]),
            np.concatenate([part.ref for part in parts]),
        )
