"""All ``seq`` and ``any`` rules of a matcher with their state: pools that this operator enlarges for the kernel.

State is arrays only, so that a snapshot is a copy. The kernel stops before an event for which there might not be room;
the operator then collects the outputs, doubles the pools that are short, and continues with that event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.compiler.flatten import Program
from astrocyte.agents.cep.operator import Task, tasks_of_rows
from astrocyte.agents.cep.rows import Outputs, Rows
from astrocyte.agents.cep.sequence import layout
from astrocyte.agents.cep.sequence import pools as kernel_pools
from astrocyte.agents.cep.sequence import step as kernel
from astrocyte.agents.cep.sequence import timers as kernel_time
from astrocyte.agents.cep.sequence.tables import build_tables
from astrocyte.agents.cep.values import TextNumbers, mark, mark_constants
from astrocyte.agents.expressions.bytecode import MAX_STACK
from astrocyte.schemas.errors import AstrocyteError

__all__ = ["SequenceOperator", "SkipError"]

FIRST_ROOM: Final = 1024
MOST_OUTPUTS: Final = 16_384
"""Size up to which the output queue grows for speed; beyond it, the queue grows only if one event needs more."""
_LINE: Final = 64
_MOST_DOUBLINGS: Final = 16
"""One event needs at most a few times what its key already holds; needing more indicates a bug."""
_FOREVER: Final = layout.NEVER
_Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]


class SkipError(AstrocyteError):
    """The rule's skip strategy cannot be applied to a match (``on_missing: error``)."""


class SequenceOperator:
    """An `agents.cep.operator.Operator`; ``room`` is the initial capacity of every pool."""

    def __init__(self, strings: TextNumbers, *, room: int = FIRST_ROOM) -> None:
        self._strings = strings
        self._programs: dict[int, tuple[Program, tuple[int, ...]]] = {}
        self._tables = build_tables({}, strings)
        self._waits = False
        globals_ = np.zeros(layout.G_WIDTH, np.int64)
        globals_[[layout.G_RUN_FREE, layout.G_NODE_FREE, layout.G_TIMER_FREE, layout.G_ROW]] = -1
        self._state = layout.State(
            globals_,
            np.zeros((0, layout.Q_WIDTH), np.int64),
            _zeros(max(4, room), layout.HEADER),
            _zeros(room, layout.RUN),
            _zeros(room, layout.NODE),
            np.zeros((room, 1)),
            np.zeros((1, 1)),
            _zeros(room, layout.TIMER),
            np.zeros((room, layout.M_WIDTH), np.int64),
        )
        self._scratch = layout.Scratch(np.zeros(MAX_STACK), np.zeros(MAX_STACK), np.zeros(2, np.uint64))

    # -- rules -------------------------------------------------------------------------------------------------------

    def add(self, slot: int, program: Program, columns: Sequence[int]) -> None:
        """Add a rule with empty state; ``columns[j]`` is the row of the input for ``program.captures[j]``."""
        self.add_all([(slot, program, columns)])

    def add_all(self, rules: Sequence[tuple[int, Program, Sequence[int]]]) -> None:
        """Add several rules; the tables are built once."""
        for slot, program, columns in rules:
            if slot in self._programs:
                self._clear(slot)
            self._programs[slot] = (program, tuple(columns))
        self._rebuild_tables([slot for slot, _, _ in rules])

    def remove(self, slot: int) -> None:
        """Drop a rule and its state."""
        self._clear(slot)
        del self._programs[slot]
        self._rebuild_tables([slot])

    def _clear(self, slot: int, *, settle: bool = False) -> bool:
        """Drop all runs of a rule (-1: of all rules); False if there was no room for the outputs."""
        if not (self._state.G[[layout.G_RUNS, layout.G_TIMERS]].any() or self._waits):
            return True  # the usual case at the end of a stream: no kernel call needed
        if not kernel_pools.clear(self._tables, self._state, slot, settle):
            return False
        headers = _zeros(len(self._state.H), layout.HEADER)
        self._state.G[layout.G_HEADERS] = kernel_pools.rehash(self._state.H, headers)
        self._state = self._state._replace(H=headers)
        return True

    def _rebuild_tables(self, fresh: Sequence[int]) -> None:
        """Rebuild the tables; runs refer to states by number, so their numbers are shifted with their rules."""
        old, new = self._tables.rules, build_tables(self._programs, self._strings)
        per_rule = np.zeros((len(new.rules), layout.Q_WIDTH), np.int64)
        per_rule[:, [layout.Q_HEAD, layout.Q_TAIL]] = -1
        per_rule[:, layout.Q_DUE] = layout.NEVER
        kept = min(len(old), len(new.rules))
        per_rule[:kept] = self._state.Q[:kept]
        for slot in fresh:
            if slot < len(per_rule):
                per_rule[slot] = 0
                per_rule[slot, [layout.Q_HEAD, layout.Q_TAIL]] = -1
                per_rule[slot, layout.Q_DUE] = layout.NEVER
        shift = np.zeros(max(len(self._tables.states), 1), np.int64)
        for slot in range(kept):
            if slot in self._programs and slot not in fresh:
                first = int(old[slot, layout.P_STATE0])
                number = len(self._programs[slot][0].states)
                shift[first : first + number] = int(new.rules[slot, layout.P_STATE0]) - first
        runs = self._state.R
        live = (runs["node"] >= 0) & (runs["state"] >= 0)
        live[int(self._state.G[layout.G_RUN_HIGH]) :] = False
        runs["state"][live] += shift[runs["state"][live]].astype(np.int32)
        width = max([1, *(len(program.slots) for program, _ in self._programs.values())])
        self._state = self._state._replace(Q=per_rule, V=_wider(self._state.V, width))
        if len(self._state.W) > 1:
            self._state = self._state._replace(W=_wider(self._state.W, width))
        elif (new.slots[:, layout.L_RUNNING] == layout.SUM).any():
            self._state = self._state._replace(W=np.zeros_like(self._state.V))  # a sum may exceed float64's integers
        self._tables = new
        self._waits = bool(new.rules[:, layout.P_WAITS].any())

    # -- steps -------------------------------------------------------------------------------------------------------

    def process(self, tasks: Sequence[Task]) -> list[tuple[int, Outputs]]:
        """Process the rows of each task; returns (slot, outputs) of the rules with outputs."""
        pieces: list[_Piece] = []
        for group in tasks_of_rows(tasks):
            self._process(group, group[0].rows, pieces)
        return _by_slot(pieces)

    def _process(self, tasks: Sequence[Task], rows: Rows, pieces: list[_Piece]) -> None:
        if rows.lows.size and len(self._state.W) <= 1:
            self._state = self._state._replace(W=np.zeros_like(self._state.V))
        count = len(rows.t)
        table = np.array([(task.slot, 0, count, task.shift) for task in tasks], np.int64)
        batch = layout.Batch(table, rows.t, rows.seq, rows.ref, rows.key, rows.mask, rows.columns, rows.lows)
        self._run(batch, pieces)

    def process_one(self, batch: Any) -> list[tuple[int, Outputs]]:
        """Process a kernel batch (`layout.Batch`) directly: the fast path for single events."""
        if batch.lows.size and len(self._state.W) <= 1:
            self._state = self._state._replace(W=np.zeros_like(self._state.V))
        pieces: list[_Piece] = []
        self._run(batch, pieces)
        return _by_slot(pieces) if pieces else []

    def _run(self, batch: Any, pieces: list[_Piece]) -> None:
        position, stuck = None, 0
        strings, arena = self._strings.arrays
        if strings is not self._tables.strings or arena is not self._tables.arena:
            self._tables = self._tables._replace(strings=strings, arena=arena)
        while not kernel.process(self._tables, self._state, self._scratch, batch):
            G = self._state.G
            here = int(G[layout.G_TASK]), int(G[layout.G_ROW])
            stuck = stuck + 1 if here == position else 0
            position = here
            if stuck > _MOST_DOUBLINGS:
                raise RuntimeError(f"no room for row {here[1]} after enlarging every pool by a factor of {2**stuck}")
            self._make_room(pieces, stuck > 0)
        if self._state.G[layout.G_OUT]:
            self._take(pieces)
        if self._state.G[layout.G_ERROR]:
            self._raise_errors()

    def advance(self, now_us: int) -> list[tuple[int, Outputs]]:
        """Advance time to ``now_us`` for every key: expire partial matches, decide absences, emit timeouts."""
        pieces: list[_Piece] = []
        now = min(now_us, _FOREVER)
        while not kernel_time.advance(self._tables, self._state, now):
            self._make_room(pieces, True)
        while self._waits and not kernel_time.pass_deadlines(self._tables, self._state, now):
            self._make_room(pieces, True)
        self._take(pieces)
        self._raise_errors()
        return _by_slot(pieces)

    def finish(self) -> list[tuple[int, Outputs]]:
        """After the last advance: drop runs without a time limit and emit completed matches that waited for them."""
        pieces: list[_Piece] = []
        while not self._clear(-1, settle=True):
            self._make_room(pieces, True)
        self._take(pieces)
        self._raise_errors()
        return _by_slot(pieces)

    def _raise_errors(self) -> None:
        slot = int(self._state.G[layout.G_ERROR]) - 1
        if slot >= 0:
            self._state.G[layout.G_ERROR] = 0
            rule = self._programs[slot][0].rule
            raise SkipError(
                f"rule {rule.name!r}: a match has no event of step {rule.skip.step!r}, or begins with it, so that "
                f"skip {rule.skip.kind} cannot be applied; make the step mandatory or remove on_missing: error"
            )

    def _make_room(self, pieces: list[_Piece], stuck: bool) -> None:
        """Collect the outputs, then double the pools that are more than half full; all of them if that did not help."""
        self._take(pieces)
        state, G = self._state, self._state.G
        larger: dict[str, NDArray[Any]] = {}
        if stuck or 2 * G[layout.G_RUNS] > len(state.R):
            larger["R"] = _doubled(state.R)
        if stuck or 2 * G[layout.G_NODES] > len(state.N):
            larger["N"], larger["V"] = _doubled(state.N), _doubled(state.V)
            if len(state.W) > 1:
                larger["W"] = _doubled(state.W)
        if stuck or len(state.M) < MOST_OUTPUTS:
            larger["M"] = _doubled(state.M)
        if stuck or 2 * G[layout.G_TIMERS] > len(state.T):
            larger["T"] = _doubled(state.T)
        if 2 * (G[layout.G_HEADERS] + 1) > len(state.H):
            larger["H"] = _zeros(2 * len(state.H), layout.HEADER)
            G[layout.G_HEADERS] = kernel_pools.rehash(state.H, larger["H"])
        self._state = state._replace(**larger)

    def _take(self, pieces: list[_Piece]) -> None:
        count = int(self._state.G[layout.G_OUT])
        if not count:
            return
        offsets = np.zeros(count + 1, np.int64)
        total = int(kernel_pools.lengths(self._state, offsets))
        step, ref = np.empty(total, np.int16), np.empty(total, np.int64)
        heads = self._state.M[:count].copy()
        kernel_pools.drain(self._state, offsets, step, ref)
        pieces.append((heads, offsets, step, ref))

    # -- state -------------------------------------------------------------------------------------------------------

    def _live_nodes(self) -> NDArray[Any]:
        nodes = self._state.N[: int(self._state.G[layout.G_NODE_HIGH])]
        live: NDArray[Any] = nodes[nodes["users"] > 0]
        return live

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to; None if there is none."""
        if self._state.G[layout.G_NODES] == 0:
            return None
        return int(self._live_nodes()["time"].min())

    def live_refs(self) -> NDArray[np.int64]:
        """Handles of the events that the state refers to, sorted, without duplicates."""
        return np.unique(self._live_nodes()["ref"])

    def mark_keys(self, slot: int, live: NDArray[np.bool_]) -> None:
        """Set ``live[key]`` for every key that has runs or waiting matches of the rule."""
        H = self._state.H
        live[H["key"][(H["rule"] == slot + 1) & ((H["runs"] > 0) | (H["waiting"] > 0))]] = True

    def mark_strings(self, live: NDArray[np.bool_]) -> None:
        """Set ``live[number]`` for every string that a partial match or a constant of a rule holds."""
        high = int(self._state.G[layout.G_NODE_HIGH])
        mark(self._state.V[:high][self._state.N[:high]["users"] > 0], live)
        mark_constants(self._tables.consts, live)

    def counters(self, slot: int) -> NDArray[np.int64]:
        """Totals of the rule, in the order of `agents.cep.operator.COUNTERS`."""
        totals: NDArray[np.int64] = self._state.Q[slot, layout.Q_EVENTS : layout.Q_WORK + 1].copy()
        return totals

    def live_partials(self) -> int:
        """Number of partial matches of all rules and keys."""
        return int(self._state.H["runs"].astype(np.int64).sum())

    def size(self) -> dict[str, int]:
        """Live records and bytes of the state."""
        G = self._state.G
        names = {"runs": layout.G_RUNS, "events": layout.G_NODES, "timers": layout.G_TIMERS}
        found = {name: int(G[index]) for name, index in names.items()}
        found["keys"] = int(G[layout.G_HEADERS])
        return {**found, "bytes": sum(array.nbytes for array in self._state)}

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of the state as arrays, truncated to the used part."""
        G, state = self._state.G, self._state
        runs, nodes, timers = (int(G[name]) for name in (layout.G_RUN_HIGH, layout.G_NODE_HIGH, layout.G_TIMER_HIGH))
        used = {"R": runs, "N": nodes, "V": nodes, "T": timers}
        if len(state.W) > 1:
            used["W"] = nodes
        whole = {name: getattr(state, name).copy() for name in ("G", "Q", "H")}
        return whole | {name: getattr(state, name)[:count].copy() for name, count in used.items()}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot made with the same rules in the same slots."""
        whole = {name: np.array(snapshot[name]) for name in ("G", "Q", "H")}
        grown = {name: _room(np.asarray(snapshot[name]), FIRST_ROOM) for name in ("R", "N", "V", "T")}
        grown["W"] = _room(np.asarray(snapshot["W"]), FIRST_ROOM) if "W" in snapshot else np.zeros((1, 1))
        self._state = self._state._replace(**whole, **grown)


def _zeros(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros aligned to a cache line, so that a record of 32 bytes does not lie across two lines."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.zeros(size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    found: NDArray[Any] = raw[start : start + size].view(kind).reshape(shape)
    return found


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return _room(array, 2 * len(array))


def _room(array: NDArray[Any], least: int) -> NDArray[Any]:
    """A copy with room for ``least`` items, or for a quarter more than it has."""
    larger = _zeros((max(least, len(array) + len(array) // 4), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _wider(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    if values.shape[1] >= width:
        return values
    return np.concatenate([values, np.zeros((len(values), width - values.shape[1]))], axis=1)


def _by_slot(pieces: list[_Piece]) -> list[tuple[int, Outputs]]:
    """Outputs by rule, each in the order in which they were emitted."""
    parts: dict[int, list[Outputs]] = {}
    for heads, offsets, step, ref in pieces:
        slots = heads[:, layout.M_SLOT]
        bounds = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(slots)]
        for first, last in pairwise(bounds):
            begin, end = int(offsets[first]), int(offsets[last])
            part = heads[first:last]
            outputs = Outputs(
                part[:, layout.M_KEY].astype(np.int32),
                part[:, layout.M_TIME].copy(),
                part[:, layout.M_KIND].astype(np.int8),
                offsets[first : last + 1] - begin,
                step[begin:end],
                ref[begin:end],
            )
            parts.setdefault(int(slots[first]), []).append(outputs)
    return [(slot, each[0] if len(each) == 1 else Outputs.concat(each)) for slot, each in sorted(parts.items())]
