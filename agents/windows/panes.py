"""Tumbling and hopping windows, by panes: the time ranges between adjacent edges of windows.

A row is added to one pane, independent of the number of windows that contain it; a window's result is merged from its
panes when it closes. If the size is not a multiple of the step, each step has two panes (Krishnamurthy, Wu and Franklin
2006).
"""
# ruff: noqa: PLR0917  kernels take arrays one by one, for numba

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.windows.groups import Groups, Slots
from astrocyte.agents.windows.rows import WindowRows
from astrocyte.schemas.times import NEVER_US

__all__ = ["PaneWindows", "Results", "windows_for"]

FOREVER_US: Final = 2**63 - 1


def windows_for(time_us: int, *, size_us: int, step_us: int, offset_us: int = 0) -> list[tuple[int, int]]:
    """The windows [start, end) that contain ``time_us``, oldest first.

    Windows are half-open and aligned to 1970 plus ``offset_us``: one starts every ``step_us`` and lasts ``size_us``.
    A tumbling window's step is its size.
    """
    newest = (time_us - offset_us) // step_us * step_us + offset_us
    starts = range(newest, time_us - size_us, -step_us)
    return [(start, start + size_us) for start in reversed(starts)]


class Results(NamedTuple):
    """Groups whose results are due: slots to read, and the window, key and run of each."""

    slots: Slots
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    key: NDArray[np.int32]
    run: NDArray[np.int32]
    revision: NDArray[np.int32]
    final: bool


_jit = nb.njit(cache=True, error_model="numpy", nogil=True)


@_jit
def assign_panes(
    begin: int, t: Any, key: Any, run: Any, shape: Any, closed_us: int, heads: Any, slots: Any, free: Any,
    free_count: Any, out: Any,
) -> int:  # fmt: skip
    """Write the pane of each row from ``begin`` on to ``out`` (-1: late, or between two windows).

    Returns the row for which there was no free slot, or the number of rows. ``shape`` is (offset, step, size, keep).
    """
    offset, step, size, keep = shape
    whole = size // step
    rest = size - whole * step
    for i in range(begin, len(t)):
        place = heads[key[i]]
        while place >= 0 and not slots[place].start <= t[i] < slots[place].stop:
            place = slots[place].link
        if place < 0:
            base = (t[i] - offset) // step
            edge = offset + base * step
            late_half = rest > 0 and t[i] >= edge + rest
            if edge + size + keep <= closed_us or (late_half and whole == 0):
                out[i] = -1
                continue
            if free_count[0] == 0:
                return i
            free_count[0] -= 1
            place = free[free_count[0]]
            group = slots[place]
            group.start = edge + rest if late_half else edge
            group.stop = edge + (rest if rest > 0 and not late_half else step)
            group.last = edge + size
            group.oldest = t[i]
            group.key = key[i]
            group.run = run[i]
            group.link = heads[key[i]]
            group.live = True
            group.dirty = False
            group.stale = False
            heads[key[i]] = place
        elif slots[place].last + keep <= closed_us:
            out[i] = -1
            continue
        group = slots[place]
        group.dirty = True
        # End of the first window that contains the pane.
        spare = 0 if rest > 0 and (group.start - offset) % step == 0 else 1
        if group.last - (whole - spare) * step <= closed_us:
            group.stale = True
        group.oldest = min(group.oldest, t[i])
        if group.run != run[i]:
            group.run = -2
        out[i] = place
    return len(t)


@_jit
def unlink(closing: Any, heads: Any, slots: Any) -> None:
    """Remove groups from their keys' lists."""
    for place in closing:
        key = slots[place].key
        if heads[key] == place:
            heads[key] = slots[place].link
        else:
            before = heads[key]
            while slots[before].link != place:
                before = slots[before].link
            slots[before].link = slots[place].link


class PaneWindows:
    """Open panes of all keys. ``keep_us`` is how long a closed window can still be corrected."""

    def __init__(self, groups: Groups, *, size_us: int, step_us: int, offset_us: int, keep_us: int) -> None:
        self.groups = groups
        self._shape = (offset_us, step_us, size_us, keep_us)
        self._whole, self._rest = divmod(size_us, step_us)
        self._closed_us = NEVER_US
        self._next_us = FOREVER_US
        self._revisions: dict[tuple[int, int], int] = {}

    def add(self, rows: WindowRows) -> NDArray[np.bool_]:
        """Add rows; flags those that were too late for every window."""
        out = np.empty(len(rows), np.int32)
        groups, row = self.groups, 0
        while True:
            row = assign_panes(
                row, rows.t, rows.key, rows.run, self._shape, self._closed_us, groups.heads, groups.slots, groups.free,
                groups.free_count, out,
            )  # fmt: skip
            if row == len(rows):
                break
            groups.grow()
        groups.add(out, rows)
        if len(rows):
            self._next_us = min(self._next_us, self._first_end(int(rows.t.min())))
        return out < 0

    def close(self, now_us: int) -> Iterator[Results]:
        """Results of the windows that end at or before ``now_us``, oldest first; read each before taking the next."""
        if now_us >= self._next_us:
            live = self._by_start()
            for end in self._ends(live, self._closed_us, now_us):
                yield from self._window(live, end, final=True)
        elif not self._shape[3]:
            self._closed_us = max(self._closed_us, now_us)
            return
        self._closed_us = max(self._closed_us, now_us)
        self._release()

    def updates(self, *, preliminary: bool) -> Iterator[Results]:
        """Corrected results of closed windows that changed, and with ``preliminary`` results of open ones that did."""
        slots = self.groups.slots
        changed = np.flatnonzero(slots["live"] & slots["dirty" if preliminary else "stale"])
        if len(changed) == 0:
            return
        live = self._by_start()
        past, keep = self._closed_us, self._shape[3]
        for end in self._ends(changed, max(past - keep, NEVER_US), int(slots["last"][changed].max())):
            if end > past and not preliminary:
                break
            starts = slots["start"][changed]
            inside = changed[(starts >= end - self._shape[2]) & (starts < end)]
            touched = slots["key"][inside[slots["stale" if end <= past else "dirty"][inside]]]
            yield from self._window(live, end, final=end <= past, keys=np.unique(touched))
        slots["dirty"][changed] = False
        slots["stale"][changed] = False

    def next_close_us(self) -> int | None:
        """End of the next window to close; None if none is open."""
        return None if self._next_us == FOREVER_US else self._next_us

    def snapshot(self) -> dict[str, Any]:
        """State as arrays."""
        counted = list(self._revisions.items())
        return {
            "groups": self.groups.snapshot(),
            "times": np.array([self._closed_us, self._next_us], np.int64),
            "revisions": np.array([(key, end, count) for (key, end), count in counted], np.int64).reshape(-1, 3),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot."""
        self.groups.restore(snapshot["groups"])
        self._closed_us, self._next_us = (int(time) for time in snapshot["times"])
        self._revisions = {(key, end): count for key, end, count in snapshot["revisions"].tolist()}

    def _first_end(self, time_us: int) -> int:
        """End of the first window that ends after ``time_us`` and is open."""
        offset, step, size, _ = self._shape
        end = offset + ((time_us - offset - size) // step + 1) * step + size
        return _later(end, self._closed_us, step)

    def _by_start(self) -> NDArray[np.int64]:
        """Slots in use, oldest pane first."""
        live = self.groups.live
        return live[np.argsort(self.groups.slots["start"][live], kind="stable")]

    def _ends(self, live: NDArray[np.int64], after_us: int, until_us: int) -> list[int]:
        """Ends in (after, until] of the windows that contain any of the panes."""
        offset, step, size, _ = self._shape
        ends: set[int] = set()
        for start in np.unique(self.groups.slots["start"][live]).tolist():
            first = offset + ((start - offset - size) // step + 1) * step + size
            last = offset + (start - offset) // step * step + size
            ends.update(range(_later(first, after_us, step), min(last, until_us) + 1, step))
        return sorted(ends)

    def _window(
        self, live: NDArray[np.int64], end: int, *, final: bool, keys: NDArray[np.int32] | None = None
    ) -> Iterator[Results]:
        """Results of the window that ends at ``end``, for the given keys (None: all keys with rows in it)."""
        slots = self.groups.slots
        start = end - self._shape[2]
        starts = slots["start"][live]
        inside = live[np.searchsorted(starts, start) : np.searchsorted(starts, end)]
        if keys is not None:
            inside = inside[np.isin(slots["key"][inside], keys)]
        if len(inside) == 0:
            return
        of_key = slots["key"][inside]
        single = self._whole == 1 and self._rest == 0
        if single:
            result, key, run = inside.astype(np.int32), of_key, slots["run"][inside]
        else:
            key, group = np.unique(of_key, return_inverse=True)
            result = self.groups.take(len(key))
            self.groups.merge(result[group], inside.astype(np.int32))
            slots = self.groups.slots
            runs = slots["run"][inside]
            low, high = np.full(len(key), 2**31 - 1, np.int32), np.full(len(key), -3, np.int32)
            np.minimum.at(low, group, runs)
            np.maximum.at(high, group, runs)
            run = np.where(low == high, low, -2).astype(np.int32)
        revision = self._count(key, end, final=final, corrected=keys is not None)
        whole = np.full(len(key), start, np.int64), np.full(len(key), end, np.int64)
        yield Results(result, *whole, key.astype(np.int32), run, revision, final)
        if not single:
            self.groups.release(result)

    def _count(self, keys: NDArray[np.int32], end: int, *, final: bool, corrected: bool) -> NDArray[np.int32]:
        """Revision of this result: the number of earlier results of each key's window."""
        counts = [self._revisions.get((key, end), 0) for key in keys.tolist()] if self._revisions or corrected else []
        keep = self._shape[3]
        if corrected or (final and keep):
            for key, count in zip(keys.tolist(), counts or [0] * len(keys), strict=True):
                self._revisions[key, end] = count + 1
        return np.array(counts or np.zeros(len(keys)), np.int32)

    def _release(self) -> None:
        """Free the panes that are in no open window and in no window that can still be corrected."""
        slots, groups, keep = self.groups.slots, self.groups, self._shape[3]
        live = groups.live
        gone = live[slots["last"][live] + keep <= self._closed_us].astype(np.int32)
        if len(gone):
            unlink(gone, groups.heads, slots)
            groups.release(gone)
        if self._revisions:
            self._revisions = {
                (key, end): count for (key, end), count in self._revisions.items() if end + keep > self._closed_us
            }
        left = groups.live
        starts = slots["start"][left[slots["last"][left] > self._closed_us]]
        self._next_us = self._first_end(int(starts.min())) if len(starts) else FOREVER_US


def _later(end: int, after_us: int, step: int) -> int:
    """The first of ``end``, ``end + step``, ... that is greater than ``after_us``."""
    return end if end > after_us else end + -(-(after_us + 1 - end) // step) * step
