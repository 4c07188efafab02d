"""A time axis of a fixed number of buckets, which grow wider where the time that they cover grows.

Buckets are numbered from 1970 on, and the width is the least of `LEAST_US` doubled as often as needed that covers the
oldest and the newest time. So the axis depends on these two times alone, not on the order or the portions in which
events came, and a bucket of the wider axis is the union of two buckets of the narrower one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BUCKETS", "EMPTY", "LEAST_US", "Axis"]

BUCKETS: Final = 256
"""Buckets of every axis: about as many as a chart has pixels to tell apart."""
LEAST_US: Final = 10_000
"""Least width of a bucket, microseconds."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Oldest and newest time, in microseconds since 1970, and the width of a bucket."""

    oldest_us: int
    newest_us: int
    width_us: int = LEAST_US

    @property
    def is_empty(self) -> bool:
        """Whether no time has been seen."""
        return self.newest_us < self.oldest_us

    @property
    def first(self) -> int:
        """Number, counted from 1970, of the first bucket."""
        return 0 if self.is_empty else self.oldest_us // self.width_us

    @property
    def start_us(self) -> int:
        """Time at which the first bucket begins."""
        return self.first * self.width_us

    @property
    def used(self) -> int:
        """Number of buckets up to that of the newest time."""
        return 0 if self.is_empty else self.newest_us // self.width_us - self.first + 1

    def covering(self, oldest_us: int, newest_us: int) -> Axis:
        """The axis that covers these times as well."""
        oldest = oldest_us if self.is_empty else min(self.oldest_us, oldest_us)
        newest = newest_us if self.is_empty else max(self.newest_us, newest_us)
        width = self.width_us
        while newest // width - oldest // width >= BUCKETS:
            width *= 2
        return Axis(oldest, newest, width)

    def positions(self, times_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bucket of each time, from 0. The times must be on the axis."""
        return times_us // self.width_us - self.first

    def places(self, to: Axis) -> NDArray[np.int64]:
        """Bucket of ``to``, which covers all of this axis, of each bucket in use."""
        return (np.arange(self.first, self.first + self.used) * self.width_us) // to.width_us - to.first

    def moved(self, values: NDArray[Any], to: Axis) -> NDArray[Any]:
        """Sums by bucket, shape [..., BUCKETS], as sums by the buckets of ``to``, which covers all of this axis."""
        if self.is_empty or (self.width_us, self.first) == (to.width_us, to.first):
            return values
        kept = values[..., : self.used]
        places = self.places(to)
        result = np.zeros_like(values)
        for place in np.unique(places):
            result[..., place] = kept[..., places == place].sum(axis=-1)
        return result


EMPTY: Final = Axis(0, -1)
