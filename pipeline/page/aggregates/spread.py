"""The lowest, highest and last value of each bucket, which means do not tell, and the value at the beginning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.axis import BUCKETS, Axis

__all__ = ["Spread"]

_NEVER_US: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Of each group and bucket, shape [groups, BUCKETS]: lowest, highest and last value, NaN without values.

    The last is that of the latest time; of values with the same time, the one that came last.
    """

    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    lasts: NDArray[np.float64]
    lasts_us: NDArray[np.int64]
    """Times of the last values, in microseconds since 1970."""
    firsts: NDArray[np.float64]
    """By group, the value of the earliest time; of several with that time, the one that came last."""
    firsts_us: NDArray[np.int64]

    @classmethod
    def of(cls, groups: int) -> Self:
        """Without values."""
        shape = (groups, BUCKETS)
        return cls(
            np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, _NEVER_US),
            np.full(groups, np.nan), np.full(groups, np.iinfo(np.int64).max),
        )  # fmt: skip

    def added(self, flat: NDArray[np.int64], values: NDArray[np.float64], times_us: NDArray[np.int64]) -> Spread:
        """With more values in the order in which they came; ``flat`` is their group times BUCKETS plus their bucket."""
        shape = self.lows.shape
        lows, highs = self.lows.ravel().copy(), self.highs.ravel().copy()
        np.fmin.at(lows, flat, values)
        np.fmax.at(highs, flat, values)
        order = np.argsort(times_us, kind="stable")
        flat, values, times_us = flat[order], values[order], times_us[order]
        lasts, lasts_us = self.lasts.ravel().copy(), self.lasts_us.ravel().copy()
        # Of a place that is named several times, the last assignment holds.
        newest, newest_us = lasts.copy(), np.full_like(lasts_us, _NEVER_US)
        newest[flat], newest_us[flat] = values, times_us
        later = (newest_us >= lasts_us) & (newest_us > _NEVER_US)
        lasts[later], lasts_us[later] = newest[later], newest_us[later]
        firsts, firsts_us = self.firsts.copy(), self.firsts_us.copy()
        groups = flat // BUCKETS
        for group in np.unique(groups):
            own_us, own = times_us[groups == group], values[groups == group]
            if own_us[0] <= firsts_us[group]:
                firsts[group] = own[np.searchsorted(own_us, own_us[0], side="right") - 1]
                firsts_us[group] = own_us[0]
        return Spread(
            lows.reshape(shape), highs.reshape(shape), lasts.reshape(shape), lasts_us.reshape(shape), firsts, firsts_us
        )

    def moved(self, axis: Axis, to: Axis) -> Spread:
        """By the buckets of another axis, which covers all of the first."""
        if axis.is_empty or (axis.width_us, axis.first) == (to.width_us, to.first):
            return self
        groups = len(self.firsts)
        places = axis.places(to)
        flat = (np.arange(groups)[:, None] * BUCKETS + places).ravel()
        low, high, last = (each[:, : axis.used].ravel() for each in (self.lows, self.highs, self.lasts))
        last_us = self.lasts_us[:, : axis.used].ravel()
        there = last_us > _NEVER_US
        joined = Spread.of(groups).added(flat[there], last[there], last_us[there])
        lows, highs = (np.full(groups * BUCKETS, np.nan) for _ in range(2))
        np.fmin.at(lows, flat, low)
        np.fmax.at(highs, flat, high)
        shape = self.lows.shape
        return Spread(
            lows.reshape(shape), highs.reshape(shape), joined.lasts, joined.lasts_us, self.firsts, self.firsts_us
        )
