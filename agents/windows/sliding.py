"""Sliding windows: at each event, the aggregates over the last ``size_us`` of its key.

The window of an event at t is [t + 1 us - size, t + 1 us): it includes the event itself, but not one that is exactly
``size_us`` older. Events of one key and time share one result. Every result is computed from all its rows, in order, so
that it has no rounding errors of rows that left the window; the cost grows with the number of rows in a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.windows.groups import Groups
from astrocyte.agents.windows.panes import Results
from astrocyte.agents.windows.rows import WindowRows
from astrocyte.schemas.times import NEVER_US

__all__ = ["SlidingWindows"]

_AT_ONCE: Final = 1 << 20
"""Number of window rows that are materialised at a time."""


class SlidingWindows:
    """Rows of all keys that a later window can still contain."""

    def __init__(self, groups: Groups, *, size_us: int) -> None:
        self.groups = groups
        self._size_us = size_us
        self._closed_us = NEVER_US
        self._rows: list[WindowRows] = []

    def add(self, rows: WindowRows) -> NDArray[np.bool_]:
        """Add rows, in any order; flags those that were too late."""
        late = rows.t < self._closed_us
        self._rows.append(rows.take(~late) if late.any() else rows)
        return late

    def close(self, now_us: int) -> Iterator[Results]:
        """Results of the events before ``now_us``; read each before requesting the next."""
        since, self._closed_us = self._closed_us, max(self._closed_us, now_us)
        if not any(len(rows) for rows in self._rows):
            return
        rows = WindowRows.concat(self._rows)
        rows = rows.take(np.lexsort((rows.t, rows.key)))
        self._rows = [rows]
        yield from self._due(rows, since, now_us)
        kept = rows.t > now_us - self._size_us
        self._rows = [rows.take(kept)] if kept.any() else []

    def updates(self, *, preliminary: bool) -> Iterator[Results]:  # noqa: ARG002  the other windows' signature
        """No results: a sliding window has one result, emitted once its event's time has passed."""
        yield from ()

    def next_close_us(self) -> int | None:
        """End of the next window to close; None if none is open."""
        open_ = [int(rows.t[rows.t >= self._closed_us].min(initial=2**63 - 2)) for rows in self._rows]
        return min(open_) + 1 if open_ and min(open_) < 2**63 - 2 else None

    def low_water_us(self) -> int | None:
        """Time of the oldest row in the state; None if there is none."""
        oldest = [int(rows.t.min()) for rows in self._rows if len(rows)]
        return min(oldest) if oldest else None

    def live_keys(self, capacity: int) -> NDArray[np.bool_]:
        """For each key number below ``capacity``, whether the state has rows of it."""
        flags = np.zeros(capacity, np.bool_)
        for rows in self._rows:
            flags[rows.key] = True
        return flags

    def snapshot(self) -> dict[str, Any]:
        """State as arrays."""
        parts: dict[str, Any] = {"times": np.array([self._closed_us], np.int64)}
        if self._rows:
            parts["rows"] = WindowRows.concat(self._rows).snapshot()
        return parts

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot."""
        self._closed_us = int(snapshot["times"][0])
        self._rows = [WindowRows.restore(snapshot["rows"])] if "rows" in snapshot else []

    def _due(self, rows: WindowRows, since_us: int, now_us: int) -> Iterator[Results]:
        """Results at the (key, time) pairs in [since, now) of rows sorted by key and time."""
        t, key = rows.t, rows.key
        last = np.append((np.diff(key) != 0) | (np.diff(t) != 0), True)
        ends = np.flatnonzero(last & (t >= since_us) & (t < now_us))
        begins = np.empty(len(ends), np.int64)
        _first_after(t, key, ends, self._size_us, begins)
        ends = ends[order := np.argsort(t[ends], kind="stable")]
        begins = begins[order]
        sizes = np.concatenate([[0], np.cumsum(ends + 1 - begins)])
        done = 0
        while done < len(ends):
            until = max(done + 1, int(np.searchsorted(sizes, sizes[done] + _AT_ONCE, "right")) - 1)
            begin, end = begins[done:until], ends[done:until]
            counts = end + 1 - begin
            starts = np.cumsum(counts) - counts
            laid = np.arange(int(counts.sum())) + np.repeat(begin - starts, counts)
            places = self.groups.take(len(begin))
            self.groups.add(np.repeat(places, counts), rows.take(laid))
            runs = rows.run[laid]
            low, high = np.minimum.reduceat(runs, starts), np.maximum.reduceat(runs, starts)
            stop = t[end] + 1
            run = np.where(low == high, low, -2).astype(np.int32)
            nothing = np.zeros(len(begin), np.int32)
            yield Results(places, stop - self._size_us, stop, key[end], run, nothing, True)
            self.groups.release(places)
            done = until


@nb.njit(cache=True, error_model="numpy", nogil=True)
def _first_after(t: Any, key: Any, ends: Any, size: int, out: Any) -> None:
    """For each of the rows ``ends`` (ascending), the first row of its key that is less than ``size`` older."""
    first = 0
    for j in range(len(ends)):
        end = ends[j]
        first = min(first, end)
        while key[first] != key[end] or t[first] <= t[end] - size:
            first += 1
        out[j] = first
