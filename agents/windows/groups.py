"""Groups: the open (key, time range) pairs, each with a slot in the arrays of every state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.windows.aggregates import Members, State
from astrocyte.agents.windows.rows import ColumnData, WindowRows

__all__ = ["SLOT", "Groups", "Slots"]

Slots = NDArray[np.int32]

SLOT: Final = np.dtype(
    [
        ("start", np.int64),  # first microsecond that belongs to the group
        ("stop", np.int64),  # first microsecond after it
        ("last", np.int64),  # end of the last window that the group belongs to
        ("oldest", np.int64),  # time of its oldest row
        ("key", np.int32),
        ("run", np.int32),  # number of the run of its rows; MIXED if there are several
        ("link", np.int32),  # next group of the same key, newest first; -1 ends the list
        ("live", np.bool_),
        ("dirty", np.bool_),  # changed since the last preliminary result
        ("stale", np.bool_),  # changed after a window that contains it had closed
    ],
    align=True,
)
MIXED: Final = -2


class Groups:
    """Slots with their states; free slots are in ``free[: free_count[0]]``, and the arrays grow by doubling."""

    def __init__(self, states: Sequence[tuple[State, int | None]]) -> None:
        self.states = states
        """Each state with the index of the column that it reads (None: it reads no column)."""
        self.slots = np.zeros(0, SLOT)
        self.free = np.zeros(0, np.int32)
        self.free_count = np.zeros(1, np.int64)
        self.heads = np.zeros(0, np.int32)
        """Newest group of each key, -1 if it has none."""

    @property
    def live(self) -> NDArray[np.int64]:
        """Slots in use."""
        return np.flatnonzero(self.slots["live"])

    def live_keys(self, capacity: int) -> NDArray[np.bool_]:
        """For each key number below ``capacity``, whether it has a group."""
        flags = np.zeros(capacity, np.bool_)
        flags[: len(self.heads)] = self.heads[:capacity] >= 0
        return flags

    def reserve_keys(self, keys: int) -> None:
        """Make room for key numbers below ``keys``."""
        if keys > len(self.heads):
            self.heads = np.concatenate([self.heads, np.full(max(keys, 64), -1, np.int32)])

    def keep_keys(self, keys: int) -> None:
        """Give back the room for key numbers from ``keys`` on, none of which has a group."""
        self.heads = self.heads[:keys].copy()

    def grow(self, wanted: int = 1) -> None:
        """Double the number of slots until ``wanted`` are free."""
        old = len(self.slots)
        capacity = max(64, 2 * old)
        while capacity - old + int(self.free_count[0]) < wanted:
            capacity *= 2
        self.slots = np.concatenate([self.slots, np.zeros(capacity - old, SLOT)])
        kept = self.free[: self.free_count[0]]
        self.free = np.empty(capacity, np.int32)
        self.free_count[0] = capacity - old + len(kept)
        # Low slots are used first, so that few memory pages of the arrays are touched.
        self.free[: capacity - old] = np.arange(capacity - 1, old - 1, -1)
        self.free[capacity - old : self.free_count[0]] = kept
        for state, _ in self.states:
            state.grow(capacity)

    def take(self, count: int) -> Slots:
        """Allocate empty slots for results that are merged from several groups; `release` frees them."""
        if self.free_count[0] < count:
            self.grow(count)
        self.free_count[0] -= count
        return self.free[self.free_count[0] : self.free_count[0] + count].copy()

    def release(self, slots: NDArray[np.integer]) -> None:
        """Clear slots and free them."""
        self.slots["live"][slots] = False
        count = int(self.free_count[0])
        self.free[count : count + len(slots)] = slots
        self.free_count[0] = count + len(slots)
        for state, _ in self.states:
            state.clear(slots)

    def add(self, slots: Slots, rows: WindowRows) -> None:
        """Add each row, in order, to its group's states; rows with slot -1 are left out."""
        members = Members(slots, rows.t, rows.weights)
        kept = slots >= 0
        if not kept.all():
            members, rows = members.take(kept), rows.take(kept)
        nothing = ColumnData(np.empty(0))
        for state, column in self.states:
            if column is None:
                state.add(members, nothing)
                continue
            values = rows.columns[column]
            if values.valid is None or values.valid.all():
                state.add(members, values)
            else:
                state.add(members.take(values.valid), values.take(values.valid))

    def merge(self, into: Slots, other: Slots) -> None:
        """Merge the newer group ``other[j]`` into ``into[j]``, in that order."""
        for state, _ in self.states:
            state.merge(into, other)

    def low_water_us(self) -> int | None:
        """Time of the oldest row in any group; None if there is none."""
        oldest = self.slots["oldest"][self.slots["live"]]
        return int(oldest.min()) if len(oldest) else None

    def snapshot(self) -> dict[str, Any]:
        """Live groups and their states."""
        live = self.live
        fields = {name: self.slots[name][live] for name in SLOT.names or ()}
        links = np.full(len(self.slots) + 1, -1, np.int32)
        links[live] = np.arange(len(live), dtype=np.int32)
        fields["link"] = links[fields["link"]]
        return {
            "slots": fields,
            "heads": links[self.heads],
            "states": {str(index): state.snapshot(live) for index, (state, _) in enumerate(self.states)},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restore a snapshot; there must be no groups."""
        fields = snapshot["slots"]
        count = len(fields["key"])
        if count:
            self.take(count)
            places = np.arange(count)
            # A new pool allocates its lowest slots first, so these are exactly the slots taken.
            for name in SLOT.names or ():
                self.slots[name][places] = fields[name]
            for index, (state, _) in enumerate(self.states):
                state.restore(places, snapshot["states"][str(index)])
        self.heads = snapshot["heads"].copy()
