"""What a scenario emits: the shape of its events, and rows that the host adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column", "EventSpec", "HostRow", "born_in", "cell_id", "id_parts"]

TICK_BITS, PLACE_BITS = 38, 25
"""An id is birth tick (38 bits) and place (25 bits) in one positive int64: 33.5 M slots, and at 20,000 ticks a second
159 days until the tick would wrap. The birth tick is the first in which the individual acts: the one after its birth,
0 for founders. The device keeps 32 bits of each; the host knows the full tick and restores its upper bits."""

ColumnKind = Literal["value", "enum", "id", "fixed", "list", "tick", "hidden", "derived"]


@dataclass(frozen=True, slots=True)
class Column:
    """One field of an event, and how it is made from device values.

    - ``value``: the array unchanged, of ``dtype``, widened to the catalog's type;
    - ``enum``: int32 codes into ``categories``;
    - ``id``: a pair of uint32 arrays (birth tick, place) that becomes one int64; place 0xFFFFFFFF means null;
    - ``fixed``: int32 fixed point; the value is divided by ``scale``;
    - ``list``: a float32 matrix [width, lanes] that becomes a list;
    - ``tick``: no array; the tick at which the row was emitted, as int64;
    - ``derived``: no array; ``derive`` makes the values on the host from the row's other columns;
    - ``hidden``: an array of ``dtype`` that `Scenario.report` sees and the frame does not carry.
    """

    name: str
    kind: ColumnKind = "value"
    categories: tuple[str, ...] = ()
    scale: float = 1.0
    dtype: Literal["float32", "int32", "bool"] = "float32"
    """Of a ``value`` or ``hidden`` column. (Enums and fixed point are int32, ids uint32, lists float32.)"""
    width: int = 1
    """Values in a ``list``."""
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    """Of a ``derived`` column: takes the other columns as NumPy arrays by name, and ``tick`` and ``timestamp``; returns
    as many values, an array or a list with None for null. For strings and for what 32 bits cannot hold."""

    @property
    def words(self) -> tuple[str, ...]:
        """Device types of the 32-bit words of a row of this column."""
        by_kind = {"enum": ("int32",), "fixed": ("int32",), "id": ("uint32", "uint32"), "tick": (), "derived": ()}
        if self.kind == "list":
            return ("float32",) * self.width
        return by_kind.get(self.kind, (self.dtype,))


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One kind of event: what ``ctx.emit(kind, mask, **columns)`` takes and the stream that it goes to.

    Several kinds may share a stream; a column that a kind lacks is null. ``type`` is the event's type, or the name of
    an ``enum`` column. ``key`` is "run", "island", or the name of an int32 column that ``key_format`` formats as a
    string. ``capacity`` is the initial size of the buffer in rows per tick and island: it grows when needed and never
    drops rows. ``weight`` is how many events a row stands for (1/p when rows are sampled with probability p).
    ``timed``: the rows have ``at=``, their microsecond within the tick. ``every``: there are rows only in ticks whose
    number (modulo 2**32) is a multiple of it, which keeps the buffers of rare samples small; rows in other ticks are an
    error.
    """

    kind: str
    stream: str
    columns: tuple[Column, ...]
    type: str
    key: str = "island"
    key_format: str = "{}"
    capacity: int = 1024
    weight: float = 1.0
    timed: bool = False
    every: int = 1

    def active(self, tick: int) -> bool:
        """Whether there may be rows at ``tick``."""
        return (tick & 0xFFFFFFFF) % self.every == 0


@dataclass(frozen=True, slots=True)
class HostRow:
    """A row that the host adds to a stream (`Scenario.report`): aggregates, planted truth."""

    stream: str
    tick: int
    type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    """The key; the name of the run by default."""
    timestamp_us: int | None = None
    """Event time; the tick's time by default. It lies in the interval that reports it."""


def born_in(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tick of each individual's birth, that in which its birth is emitted, by its id; 0 of founders. int64."""
    ticks: NDArray[np.int64] = np.maximum((ids >> PLACE_BITS) - 1, 0)
    return ticks


def cell_id(birth_tick: int, place: int) -> int:
    """Id of the individual that was born at ``birth_tick`` in ``place`` (island * slots + slot). Never reused."""
    return (birth_tick << PLACE_BITS) | place


def id_parts(number: int) -> tuple[int, int]:
    """Birth tick and place of an id."""
    return number >> PLACE_BITS, number & ((1 << PLACE_BITS) - 1)
