"""The conjunction operator: events in any order within a window, for all ``all`` rules of a matcher.

State is arrays only, so that a snapshot is a copy. `agents.cep.conjunction.step` has the steps and
`agents.cep.conjunction.program` compiles a rule. Arrays grow when a kernel reports that they are full; the kernel then
continues with the row at which it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.conjunction import fast_path as plain
from astrocyte.agents.cep.conjunction import waiting_lists as layout
from astrocyte.agents.cep.conjunction.program import ConjunctionProgram
from astrocyte.agents.cep.operator import Task, tasks_of_rows
from astrocyte.agents.cep.rows import Outputs
from astrocyte.agents.cep.values import TextNumbers, mark, mark_constants
from astrocyte.agents.expressions.bytecode import MAX_STACK, Op

__all__ = ["ConjunctionOperator"]

Ints = NDArray[np.int64]

SMALLEST_RING: Final = 64
SMALLEST_TABLE: Final = 64
FIRST_OUTPUT: Final = 1024
LARGEST_OUTPUT: Final = 1 << 16
FOREVER_US: Final = 2**62
_PAIRINGS: Final = {"once": layout.ONCE, "each": layout.EACH, "latest": layout.LATEST}
_COUNTERS: Final = [
    layout.G_EVENTS,
    layout.G_PARTIALS,
    layout.G_MATCHES,
    layout.G_TIMEOUTS,
    layout.G_CUT,
    layout.G_WORK,
]


class ConjunctionOperator:
    """All ``all`` rules of a matcher with their waiting events; an `agents.cep.operator.Operator`.

    ``strings`` numbers the strings among the captured values.
    """

    def __init__(self, strings: TextNumbers | None = None) -> None:
        self._strings = strings or TextNumbers()
        self._programs: dict[int, tuple[ConjunctionProgram, tuple[int, ...]]] = {}
        self._slots: list[int] = []
        self._row_of: dict[int, int] = {}
        self._tests: list[int] = []
        self._tables: Any = None
        self._state: Any = None
        self._ring_end = 0
        self._spare = np.zeros((0, 0), np.uint32)  # the previous table, reused for the next one: fresh memory is slow
        self._rebuild([], _Waiting.none())
        self._scratch = layout.Scratch(
            np.zeros(64, np.int64), np.zeros(MAX_STACK), np.zeros(MAX_STACK), *self._strings.arrays
        )
        self._output = _output(FIRST_OUTPUT)
        self._nothing = layout.Input(
            np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint64),
            np.zeros((0, 0)), np.zeros((0, 0)),
        )  # fmt: skip

    # -- rules ---------------------------------------------------------------------------------------------------

    def add(self, slot: int, program: ConjunctionProgram, columns: Sequence[int]) -> None:
        """Add a rule with empty state; ``columns[j]`` is the row of the input for ``program.captures[j]``."""
        self.add_all([(slot, program, columns)])

    def add_all(self, rules: Sequence[tuple[int, ConjunctionProgram, Sequence[int]]]) -> None:
        """Add several rules at once; much cheaper than one by one."""
        totals = self._totals()
        waiting = self._waiting()
        for slot, program, columns in rules:
            self._programs[slot] = (program, tuple(columns))
            totals.pop(slot, None)
            waiting = waiting.without(slot)
        self._rebuild(list(totals.items()), waiting)

    def remove(self, slot: int) -> None:
        """Drop a rule and its state."""
        totals, waiting = self._totals(), self._waiting()
        self._programs.pop(slot, None)
        totals.pop(slot, None)
        self._rebuild(list(totals.items()), waiting.without(slot))

    # -- steps ---------------------------------------------------------------------------------------------------

    def process(self, tasks: Sequence[Task]) -> list[tuple[int, Outputs]]:
        """Process the rows of each task; returns (slot, outputs) of the rules with outputs."""
        found: list[_Batch] = []
        for group in tasks_of_rows(tasks):
            self._process(group, found)
        return self._by_slot(found)

    def _process(self, tasks: Sequence[Task], found: list[_Batch]) -> None:
        rows = tasks[0].rows
        entries = layout.Input(rows.t, rows.ref, rows.key, rows.mask, rows.columns, rows.lows)
        if rows.lows.size and self._state.values.shape[1] == self._tables.fields.shape[1]:
            values = self._state.values
            self._state = self._state._replace(values=np.concatenate([values, np.zeros_like(values)], axis=1))
        table = np.empty((len(tasks), 3), np.int64)
        for index, task in enumerate(tasks):
            row = self._row_of[task.slot]
            table[index] = row, task.shift, self._tests[row]
        self._refresh_strings()
        task_index, entry, step = 0, 0, plain.process_plain
        while True:
            task_index, entry, reason = step(
                *self._tables, *self._state, *self._output, *self._scratch, *entries, table, task_index, entry
            )
            if reason == plain.DONE:
                break
            if reason == plain.GENERAL:
                step = _general().process
            else:
                self._make_room(reason, int(table[task_index, 0]), found)
        self._take(found)

    def advance(self, now_us: int) -> list[tuple[int, Outputs]]:
        """All events up to and including ``now_us`` were processed: expire waiting events and emit timeouts."""
        found: list[_Batch] = []
        now = max(now_us, -FOREVER_US)
        plain.advance_plain(*self._tables, *self._state, now)
        if self._tables.rules[:, layout.R_TIMEOUTS].any():
            general = _general()
            self._refresh_strings()
            while not general.advance(*self._tables, *self._state, *self._output, *self._scratch, *self._nothing, now):
                self._make_room(plain.OUTPUT_FULL, 0, found)
        self._take(found)
        return self._by_slot(found)

    def finish(self) -> list[tuple[int, Outputs]]:
        """After the last advance: expire everything; every rule of this kind has a window, so the state is empty."""
        return self.advance(FOREVER_US)

    def _refresh_strings(self) -> None:
        """Pass the current arrays of the string table to the kernels: it replaces them when it grows."""
        strings, arena = self._strings.arrays
        if strings is not self._scratch.strings or arena is not self._scratch.arena:
            self._scratch = self._scratch._replace(strings=strings, arena=arena)

    def _make_room(self, reason: int, row: int, found: list[_Batch]) -> None:
        if reason == plain.OUTPUT_FULL:
            self._take(found)
            size = 2 * len(self._output.matches)
            self._output = _output(size) if size <= LARGEST_OUTPUT else self._output
        elif reason == plain.RING_FULL:
            self._grow_ring(row)
        else:
            self._renew_table()

    def _take(self, found: list[_Batch]) -> None:
        matches = int(self._state.all[layout.A_MATCHES])
        if matches:
            rows = int(self._state.all[layout.A_ROWS])
            found.append((self._output.matches[:matches].copy(), self._output.rows[:rows].copy()))
            self._state.all[layout.A_MATCHES] = self._state.all[layout.A_ROWS] = 0

    def _by_slot(self, found: list[_Batch]) -> list[tuple[int, Outputs]]:
        if not found:
            return []
        if len(self._slots) == 1:
            return [(self._slots[0], _outputs(found))]
        pieces: dict[int, list[_Batch]] = {}
        for matches, rows in found:
            rule = matches["rule"]
            bounds = np.flatnonzero(np.concatenate([[True], rule[1:] != rule[:-1], [True]]))
            for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                begin = int(matches["end"][first - 1]) if first else 0
                part = matches[first:last]
                pieces.setdefault(int(rule[first]), []).append((part, rows[begin : int(part["end"][-1])]))
        return [(self._slots[row], _outputs(parts)) for row, parts in sorted(pieces.items())]

    # -- state ---------------------------------------------------------------------------------------------------

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to; None if there is none."""
        oldest = int(plain.low_water(*self._state))
        return None if oldest == np.iinfo(np.int64).max else oldest

    def live_refs(self) -> NDArray[np.int64]:
        """Handles of the waiting events, sorted, without duplicates."""
        return np.unique(self._waiting(values=False).refs)

    def mark_keys(self, slot: int, live: NDArray[np.bool_]) -> None:
        """Set ``live[key]`` for every key that has events waiting for the rule."""
        waiting = self._waiting(values=False)
        live[waiting.keys[waiting.slots == slot]] = True

    def mark_strings(self, live: NDArray[np.bool_]) -> None:
        """Set ``live[number]`` for every string that a waiting event or a constant of a rule holds."""
        mark(self._waiting().values[:, : self._tables.fields.shape[1]], live)
        mark_constants(self._tables.constants, live)

    def counters(self, slot: int) -> NDArray[np.int64]:
        """Totals of the rule, in the order of `agents.cep.operator.COUNTERS`."""
        totals: NDArray[np.int64] = self._state.rules[self._row_of[slot], _COUNTERS]
        return totals

    def size(self) -> dict[str, int]:
        """Waiting events, headers of keys and bytes of the state."""
        arrays = [self._state.headers, self._spare, self._state.ring, self._state.values, self._state.words]
        return {
            "waiting": int(plain.live(*self._state, *_Waiting.none().arrays)),
            "keys": int(self._state.all[layout.A_HEADERS]),
            "bytes": sum(array.nbytes for array in arrays),
        }

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of the waiting events as arrays; its size is that of the waiting events, not of the state's arrays."""
        waiting = self._waiting()
        slots = np.array(self._slots, np.int64)
        return {
            "slots": slots,
            "totals": self._state.rules[:, _COUNTERS].copy(),
            "rule": waiting.slots,
            "key": waiting.keys,
            "ref": waiting.refs,
            "time": waiting.times,
            "roles": waiting.roles,
            "flags": waiting.flags,
            "words": waiting.words,
            "values": waiting.values,
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot made with the same rules in the same slots."""
        names = ("rule", "key", "ref", "time", "roles", "flags", "words", "values")
        totals = dict(zip(snapshot["slots"].tolist(), np.asarray(snapshot["totals"], np.int64), strict=True))
        self._rebuild(list(totals.items()), _Waiting(*(np.array(snapshot[name]) for name in names)))

    def _waiting(self, *, values: bool = True) -> _Waiting:
        count = int(plain.live(*self._state, *_Waiting.none().arrays))
        rows = np.empty(count, np.int64)
        waiting = _Waiting.room(count)
        plain.live(*self._state, *waiting.arrays[:-1], rows)
        waiting.slots = np.array(self._slots, np.int64)[waiting.slots]
        if values:
            waiting.values = self._state.values[rows]
            if len(self._state.words):
                waiting.words = self._state.words[rows]
        return waiting

    def _totals(self) -> dict[int, NDArray[np.int64]]:
        return {slot: self.counters(slot).copy() for slot in self._slots}

    def _rebuild(self, totals: Sequence[tuple[int, NDArray[np.int64]]], waiting: _Waiting) -> None:
        """Build tables for the current rules, and state arrays that hold ``waiting`` with room to spare."""
        self._slots = sorted(self._programs)
        self._row_of = {slot: row for row, slot in enumerate(self._slots)}
        chosen = [self._programs[slot] for slot in self._slots]
        self._tables = _tables(chosen, self._strings)
        self._tests = [program.tests for program, _ in chosen]
        slots = max((program.slots for program, _ in chosen), default=1)
        rows_of = {slot: np.flatnonzero(waiting.slots == slot) for slot in self._slots}
        rules = np.zeros((len(self._slots), layout.G_WIDTH), np.int64)
        rules[:, [layout.G_LOW, layout.G_HIGH, layout.G_BASE]] = 1
        end = 0
        for row, slot in enumerate(self._slots):
            entries = int(np.bitwise_count(waiting.roles[rows_of[slot]].astype(np.uint64)).sum()) if len(waiting) else 0
            size = _power_of_two(max(2 * entries, SMALLEST_RING))
            rules[row, layout.G_START], rules[row, layout.G_MASK] = end, size - 1
            end += size
        for slot, counts in totals:
            if slot in self._row_of:
                rules[self._row_of[slot], _COUNTERS] = counts
        self._ring_end = end
        table = _power_of_two(max(4 * len(waiting), SMALLEST_TABLE))
        everything = np.zeros(layout.A_WIDTH, np.int64)
        everything[layout.A_SHIFT] = 65 - table.bit_length()
        fields = self._tables.fields.shape[1]
        wide = 2 * fields if waiting.values.shape[1] > fields and fields else fields
        words = end if any(program.asks_words for program, _ in chosen) else 0
        self._state = layout.State(
            everything, rules, np.zeros((table, _header_width(slots)), np.uint32), np.zeros(end, layout.RING),
            np.full((end, wide), np.nan), np.zeros(words, np.int64),
        )  # fmt: skip
        if len(waiting):
            kept = np.isin(waiting.slots, self._slots)
            rows = np.array([self._row_of.get(slot, 0) for slot in waiting.slots.tolist()], np.int64)
            values = np.full((len(waiting), wide), np.nan)
            shared = min(wide, waiting.values.shape[1])
            values[:, :shared] = waiting.values[:, :shared]
            parts = (rows, waiting.keys, waiting.refs, waiting.times, waiting.roles, waiting.flags, waiting.words)
            plain.refill(*self._tables, *self._state, *(part[kept] for part in parts), values[kept])

    def _grow_ring(self, row: int) -> None:
        """Double the ring of a rule, at the end of the pool; its sequence numbers stay valid."""
        rules = self._state.rules
        low, high, start, mask = (int(rules[row, name]) for name in
                                  (layout.G_LOW, layout.G_HIGH, layout.G_START, layout.G_MASK))  # fmt: skip
        size = 2 * (mask + 1)
        if self._ring_end + size > len(self._state.ring):
            self._compact(row, size)
            return
        alive = np.arange(low, high)
        for array in (self._state.ring, self._state.values, self._state.words):
            if len(array):
                array[self._ring_end + (alive & (size - 1))] = array[start + (alive & mask)]
        rules[row, [layout.G_START, layout.G_MASK, layout.G_BASE]] = self._ring_end, size - 1, low
        self._ring_end += size

    def _compact(self, grown: int, size: int) -> None:
        """Copy all rings into a new pool with room to spare; ring ``grown`` gets ``size``."""
        rules = self._state.rules
        sizes = rules[:, layout.G_MASK] + 1
        needed = rules[:, layout.G_HIGH] - rules[:, layout.G_LOW]
        # A ring that was large and is nearly empty now shrinks.
        sizes = np.where((16 * needed < sizes) & (sizes > 4096), sizes // 4, sizes)
        sizes[grown] = size
        starts = np.concatenate([[0], np.cumsum(sizes)])
        room = 2 * int(starts[-1])
        old = (self._state.ring, self._state.values, self._state.words)
        new = tuple(np.zeros((room if len(array) else 0, *array.shape[1:]), array.dtype) for array in old)
        for row in range(len(rules)):
            alive = np.arange(rules[row, layout.G_LOW], rules[row, layout.G_HIGH])
            source = rules[row, layout.G_START] + (alive & rules[row, layout.G_MASK])
            target = starts[row] + (alive & (sizes[row] - 1))
            for before, after in zip(old, new, strict=True):
                if len(before):
                    after[target] = before[source]
        rules[:, layout.G_START], rules[:, layout.G_MASK] = starts[:-1], sizes - 1
        rules[:, layout.G_BASE] = rules[:, layout.G_LOW]
        self._ring_end = int(starts[-1])
        self._state = self._state._replace(ring=new[0], values=new[1], words=new[2])

    def _renew_table(self) -> None:
        """Copy the headers in use into a table with room for as many again."""
        old = self._state.headers
        shift = int(self._state.all[layout.A_SHIFT])
        # The number of headers in use is not known in advance: a first pass at the old size counts them.
        table = self._spare if self._spare.shape == old.shape else np.empty_like(old)
        table.fill(0)
        plain.sweep(*self._tables, *self._state, table)
        used = int(self._state.all[layout.A_HEADERS])
        size = _power_of_two(max(8 * used // 3, SMALLEST_TABLE))
        self._state, self._spare = self._state._replace(headers=table), old
        if size != len(old):
            shift = 65 - size.bit_length()
            self._state.all[layout.A_SHIFT] = shift
            larger = np.zeros((size, old.shape[1]), np.uint32)
            plain.sweep(*self._tables, *self._state, larger)
            self._state, self._spare = self._state._replace(headers=larger), self._spare[:0]


_Batch = tuple[NDArray[Any], NDArray[Any]]


@dataclass(slots=True)
class _Waiting:
    """Every waiting event once: rule (by slot), key, ref, time, slots it waits in, flags, test results, values."""

    slots: Ints
    keys: Ints
    refs: Ints
    times: Ints
    roles: Ints
    flags: Ints
    words: Ints
    values: NDArray[np.float64]

    @classmethod
    def room(cls, count: int) -> _Waiting:
        """Arrays for ``count`` events, without values."""
        slots, keys, refs, times, roles, flags, words = np.zeros((7, count), np.int64)
        return cls(slots, keys, refs, times, roles, flags, words, np.zeros((count, 0)))

    @classmethod
    def none(cls) -> _Waiting:
        """No events."""
        return cls.room(0)

    @property
    def arrays(self) -> tuple[Ints, ...]:
        """Arrays that the kernel ``live`` fills; the last one receives row numbers."""
        return (self.slots, self.keys, self.refs, self.times, self.roles, self.flags, self.words)

    def __len__(self) -> int:
        return len(self.slots)

    def without(self, slot: int) -> _Waiting:
        """All events except those of one rule."""
        keep = self.slots != slot
        slots, keys, refs, times, roles, flags, words = (part[keep] for part in self.arrays)
        return _Waiting(slots, keys, refs, times, roles, flags, words, self.values[keep])


def _tables(chosen: Sequence[tuple[ConjunctionProgram, tuple[int, ...]]], strings: TextNumbers) -> Any:
    rules = np.zeros((len(chosen), layout.R_WIDTH), np.int64)
    fields = np.zeros((len(chosen), max((len(columns) for _, columns in chosen), default=0)), np.int64)
    conditions: list[tuple[int, int, int, int, int]] = []
    code: list[tuple[int, int, int]] = []
    constants: list[tuple[float, float]] = []
    for row, (program, columns) in enumerate(chosen):
        rule = program.rule
        assert rule.within is not None
        first = len(conditions)
        for condition, (begin, end) in zip(program.conditions, pairwise(program.code.starts), strict=True):
            place = len(code) + begin, len(code) + end
            conditions.append((condition.owner, condition.level, condition.slots, *place))
        code += [(op, one + len(constants) if op == Op.CONST else one, two) for op, one, two in program.code.ops]
        constants += [strings.on_stack(constant) for constant in program.code.constants]
        fields[row, : len(columns)] = columns
        rules[row] = (
            program.positive, program.slots, rule.within.time + rule.within.closed, rule.within.time,
            _PAIRINGS[rule.pairing], _is_simple(program), rule.on_timeout is not None, rule.max_partials.limit,
            rule.max_partials.policy == "drop_newest", program.kill, first, len(conditions), len(columns),
        )  # fmt: skip
    return layout.Tables(
        rules,
        fields,
        np.array(conditions, np.int64).reshape(-1, layout.C_WIDTH),
        np.array(code, np.int64).reshape(-1, 3),
        np.array(constants, np.float64).reshape(-1, 2),
    )


def _is_simple(program: ConjunctionProgram) -> bool:
    return not (program.conditions or program.kill or program.rule.on_timeout or program.rule.pairing == "each")


def _general() -> Any:
    """The kernels for all cases, imported (and compiled) when they are first needed."""
    from astrocyte.agents.cep.conjunction import step as conjunction_kernel

    return conjunction_kernel


def _header_width(slots: int) -> int:
    width = layout.H_LISTS + 3 * slots
    return _power_of_two(width) if width <= 16 else width


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _output(matches: int) -> Any:
    # Room for the rows of at least one match of the longest rule.
    return layout.Output(np.empty(matches, layout.MATCH), np.empty(4 * matches, layout.ROW))


def _outputs(parts: Sequence[_Batch]) -> Outputs:
    ends = [matches["end"] for matches, _ in parts]
    begin = 0
    for index, (_, rows) in enumerate(parts):
        # Ends count from the start of the kernel's output: shift them to the rows of this rule so far.
        ends[index] = ends[index] + (begin + len(rows) - int(ends[index][-1]))
        begin += len(rows)
    matches = parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts])
    rows = parts[0][1] if len(parts) == 1 else np.concatenate([part for _, part in parts])
    return Outputs(
        key=np.ascontiguousarray(matches["key"]),
        time_us=np.ascontiguousarray(matches["time"]),
        kind=matches["kind"].astype(np.int8),
        offsets=np.concatenate([[0], *ends]),
        step=rows["step"].astype(np.int16),
        ref=np.ascontiguousarray(rows["ref"]),
    )
