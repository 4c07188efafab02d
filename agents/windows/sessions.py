"""Session windows: successive rows of one key with less than ``gap_us`` between them.

A session lasts from its first row to ``gap_us`` after its last one; [start, end) is half-open, so that a row exactly
``gap_us`` after the last one starts a new session.
"""
# ruff: noqa: PLR0917  kernels take arrays one by one, for numba

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.jit import loop
from astrocyte.agents.windows.groups import Groups
from astrocyte.agents.windows.panes import FOREVER_US, Results, unlink
from astrocyte.agents.windows.rows import WindowRows
from astrocyte.schemas.times import NEVER_US

__all__ = ["SessionWindows"]


@loop
def assign_sessions(
    begin: int, t: Any, key: Any, run: Any, gap: int, closed_us: int, heads: Any, slots: Any, free: Any,
    free_count: Any, out: Any, merged: Any, merged_count: Any,
) -> int:  # fmt: skip
    """Write the session of each row from ``begin`` on (rows in time order) to ``out``; -1: the row is late.

    A row between two sessions joins them: (older, newer) is appended to ``merged``, and the caller merges their states
    before it adds the rows. Returns the row for which there was no free slot, or the number of rows.
    """
    for i in range(begin, len(t)):
        # Sessions of a key are listed newest first and do not overlap.
        before, place = -1, heads[key[i]]
        while place >= 0 and slots[place].start >= t[i] + gap:
            before, place = place, slots[place].link
        if place >= 0 and t[i] < slots[place].stop:
            older = slots[place].link
            if older >= 0 and t[i] < slots[older].stop:
                if merged_count[0] == len(merged):
                    return i
                newer, place = place, older
                merged[merged_count[0], 0], merged[merged_count[0], 1] = place, newer
                merged_count[0] += 1
                slots[place].stop = slots[newer].stop
                slots[place].oldest = min(slots[place].oldest, slots[newer].oldest)
                if slots[place].run != slots[newer].run:
                    slots[place].run = -2
                if before < 0:
                    heads[key[i]] = place
                else:
                    slots[before].link = place
                slots[newer].live = False
        else:
            if t[i] + gap <= closed_us:
                out[i] = -1
                continue
            if free_count[0] == 0:
                return i
            free_count[0] -= 1
            link, place = place, free[free_count[0]]
            group = slots[place]
            group.start = t[i]
            group.stop = t[i] + gap
            group.oldest = t[i]
            group.key = key[i]
            group.run = run[i]
            group.link = link
            group.live = True
            group.stale = False
            if before < 0:
                heads[key[i]] = place
            else:
                slots[before].link = place
        group = slots[place]
        group.start = min(group.start, t[i])
        group.stop = max(group.stop, t[i] + gap)
        group.last = group.stop
        group.oldest = min(group.oldest, t[i])
        group.dirty = True
        if group.run != run[i]:
            group.run = -2
        out[i] = place
    return len(t)


class SessionWindows:
    """Open sessions of all keys."""

    def __init__(self, groups: Groups, *, gap_us: int) -> None:
        self.groups = groups
        self._gap_us = gap_us
        self._closed_us = NEVER_US
        self._next_us = FOREVER_US
        self._revisions: dict[int, int] = {}

    def add(self, rows: WindowRows) -> NDArray[np.bool_]:
        """Add rows, in any order; flags those that were too late."""
        order = None
        if len(rows) and (np.diff(rows.t) < 0).any():
            order = np.argsort(rows.t, kind="stable")
            rows = rows.take(order)
        out = np.empty(len(rows), np.int32)
        groups, row = self.groups, 0
        merged, merged_count = np.empty((256, 2), np.int32), np.zeros(1, np.int64)
        while True:
            row = assign_sessions(
                row, rows.t, rows.key, rows.run, self._gap_us, self._closed_us, groups.heads, groups.slots, groups.free,
                groups.free_count, out, merged, merged_count,
            )  # fmt: skip
            if row == len(rows):
                break
            if groups.free_count[0] == 0:
                groups.grow()
            if merged_count[0] == len(merged):
                merged = np.concatenate([merged, np.empty_like(merged)])
        pairs = merged[: merged_count[0]]
        if len(pairs):
            # Rows are in time order, so none of them can be in the newer session before the two are joined.
            groups.merge(pairs[:, 0].copy(), pairs[:, 1].copy())
            groups.release(pairs[:, 1])
            for older, newer in pairs.tolist():
                count = max(self._revisions.pop(newer, 0), self._revisions.get(older, 0))
                if count:
                    self._revisions[older] = count
        groups.add(out, rows)
        if len(rows):
            self._next_us = min(self._next_us, int(rows.t.min()) + self._gap_us)
        late = np.empty(len(rows), np.bool_)
        late[slice(None) if order is None else order] = out < 0
        return late

    def close(self, now_us: int) -> Iterator[Results]:
        """Results of the sessions that end at or before ``now_us``."""
        self._closed_us = max(self._closed_us, now_us)
        if now_us < self._next_us:
            return
        slots, live = self.groups.slots, self.groups.live
        closing = live[slots["stop"][live] <= now_us].astype(np.int32)
        if len(closing):
            yield self._results(closing, final=True)
            for place in closing.tolist() if self._revisions else ():
                self._revisions.pop(place, None)
            unlink(closing, self.groups.heads, slots)
            self.groups.release(closing)
        stops = slots["stop"][self.groups.live]
        self._next_us = int(stops.min()) if len(stops) else FOREVER_US

    def updates(self, *, preliminary: bool) -> Iterator[Results]:
        """Preliminary results of the sessions that changed since the last call."""
        slots, live = self.groups.slots, self.groups.live
        changed = live[slots["dirty"][live]].astype(np.int32)
        if preliminary and len(changed):
            yield self._results(changed, final=False)
            for place in changed.tolist():
                self._revisions[place] = self._revisions.get(place, 0) + 1
            slots["dirty"][changed] = False

    def next_close_us(self) -> int | None:
        """A time before which no session can end; None if none is open."""
        return None if self._next_us == FOREVER_US else self._next_us

    def snapshot(self) -> dict[str, Any]:
        """State as arrays."""
        live = self.groups.live
        return {
            "groups": self.groups.snapshot(),
            "times": np.array([self._closed_us, self._next_us], np.int64),
            "revisions": np.array([self._revisions.get(place, 0) for place in live.tolist()], np.int64),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot."""
        self.groups.restore(snapshot["groups"])
        self._closed_us, self._next_us = (int(time) for time in snapshot["times"])
        self._revisions = {place: count for place, count in enumerate(snapshot["revisions"].tolist()) if count}

    def _results(self, places: NDArray[np.int32], *, final: bool) -> Results:
        slots = self.groups.slots[places]
        revision = np.array([self._revisions.get(place, 0) for place in places.tolist()], np.int32)
        return Results(places, slots["start"], slots["stop"], slots["key"], slots["run"], revision, final)
