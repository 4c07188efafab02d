"""One event at a time: the same predicates and kernels as for frames, without allocation per event.

All kernel arguments for one row are allocated once and filled in place, so that an event costs microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from astrocyte.agents.cep.operator import Task
from astrocyte.agents.cep.rows import Rows
from astrocyte.agents.cep.sequence import layout
from astrocyte.agents.cep.values import TextNumbers
from astrocyte.schemas.values.single import key_text

if TYPE_CHECKING:
    from astrocyte.agents.cep.compiler.rule_groups import PredicateGroups
    from astrocyte.agents.cep.keys import KeyTable

__all__ = ["Single"]


class Single:
    """The arrays of one row, and the tasks that a row of each rule group causes."""

    def __init__(self, groups: PredicateGroups, keys: Mapping[str | None, KeyTable], strings: TextNumbers) -> None:
        self._strings = strings
        self._fields = list(groups.columns)
        self._t, self._seq, self._ref = (np.zeros(1, np.int64) for _ in range(3))
        self._key, self._mask = np.zeros(1, np.int32), np.zeros(1, np.uint64)
        self._columns, self._lows = np.full((len(self._fields), 1), np.nan), np.zeros((len(self._fields), 1))
        self._none = np.empty((0, 0))
        row = (self._t, self._seq, self._ref, self._key, self._mask, self._columns)
        self.rows, self.wide_rows = Rows(*row, self._none), Rows(*row, self._lows)
        self._by: list[tuple[str | None, KeyTable | None]] = []
        self._batches: list[tuple[Any, Any]] = []
        self._tasks: list[list[Task]] = []
        for group in groups.all:
            shifts = [(slot, groups.places[slot].shift) for slot in group.slots]
            table = np.array([(slot, 0, 1, shift) for slot, shift in shifts], np.int64).reshape(-1, 4)
            self._batches.append((layout.Batch(table, *row, self._none), layout.Batch(table, *row, self._lows)))
            own = [] if group.operator == "automaton" else shifts  # that operator takes batches
            self._tasks.append([Task(slot, shift, self.rows) for slot, shift in own])
            self._by.append((group.by, keys.get(group.by)))

    def forget(self) -> None:
        """Forget the values of the last event: the numbers of its strings may be given to others."""
        self._columns[:] = np.nan

    def key(self, group: int, event: Mapping[str, Any]) -> int:
        """Number of the event's key for the group; -1 where it has none."""
        by, table = self._by[group]
        assert table is not None
        if by is None:
            return table.number("")
        value = event.get(by)
        text = value if isinstance(value, str) else key_text(value)
        return -1 if text is None else table.number(text)

    def fill(self, event: Mapping[str, Any], captures: tuple[int, ...], t: int, ref: int) -> bool:
        """Write the event into the row; True if an integer does not fit into float64."""
        self._t[0], self._ref[0] = t, ref
        wide = False
        for column in captures:
            value, low = self._strings.pair(event.get(self._fields[column]))
            self._columns[column, 0] = value
            self._lows[column, 0] = low
            wide = wide or low != 0.0
        return wide

    def place(self, seq: int, key: int, word: int) -> None:
        """Write the event's number, and its key and word for one group."""
        self._seq[0], self._key[0], self._mask[0] = seq, key, word

    def batch(self, group: int, wide: bool) -> Any:
        """The row as the batch of the sequence operator for the rules of one group, after `place`."""
        return self._batches[group][wide]

    def tasks(self, group: int, wide: bool) -> list[Task]:
        """The tasks of the row for the rules of one group, after `place`."""
        tasks = self._tasks[group]
        return [Task(task.slot, task.shift, self.wide_rows) for task in tasks] if wide else tasks
