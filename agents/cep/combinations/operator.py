"""All rules of a matcher that the combinations operator runs, with their state: pools that grow for the kernels.

State is arrays only, so that a snapshot is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.combinations import layout
from astrocyte.agents.cep.combinations import step as kernel
from astrocyte.agents.cep.combinations.program import CombinationProgram
from astrocyte.agents.cep.operator import COUNTERS, Task, tasks_of_rows
from astrocyte.agents.cep.rows import Outputs, Rows

__all__ = ["CombinationsOperator"]

FIRST_ROOM: Final = 256
MOST_REFS: Final = 1 << 18
"""Size up to which the outputs grow for speed; a completion that needs more is written in parts."""
_FOREVER: Final = 2**62
_SKIPS: Final = {"none": layout.SKIP_NONE, "past_last": layout.SKIP_PAST_LAST, "to_next": layout.SKIP_TO_NEXT,
                 "to_first": layout.SKIP_TO_PLACE, "to_last": layout.SKIP_TO_PLACE}  # fmt: skip
_Piece = tuple[NDArray[np.int64], NDArray[np.int64]]


class CombinationsOperator:
    """An `agents.cep.operator.Operator`; ``room`` is the initial capacity of every pool."""

    def __init__(self, *, room: int = FIRST_ROOM) -> None:
        self._programs: dict[int, CombinationProgram] = {}
        self._rules = np.zeros((0, layout.P_WIDTH), np.int64)
        globals_ = np.zeros(layout.G_WIDTH, np.int64)
        globals_[[layout.G_NODE_FREE, layout.G_TIMER_FREE, layout.G_LEVEL]] = -1
        self._state = layout.State(
            globals_,
            np.zeros((0, layout.Q_WIDTH), np.int64),
            np.full(layout.MOST_PLACES + 1, -1, np.int64),
            np.zeros(_power_of_two(max(4, room)), layout.HEADER),
            np.zeros(room, layout.LIST),
            np.zeros(room, layout.NODE),
            np.zeros(room, layout.TIMER),
            np.zeros((room, layout.M_WIDTH), np.int64),
            np.zeros(max(room, layout.MOST_PLACES), np.int64),
            np.zeros((layout.C_WIDTH, layout.MOST_PLACES), np.int64),
        )

    # -- rules -------------------------------------------------------------------------------------------------------

    def add(self, slot: int, program: CombinationProgram, columns: Sequence[int]) -> None:
        """Add a rule with empty state; it reads no ``columns``."""
        self.add_all([(slot, program, columns)])

    def add_all(self, rules: Sequence[tuple[int, CombinationProgram, Sequence[int]]]) -> None:
        """Add several rules; the tables are built once."""
        for slot, program, _ in rules:
            if slot in self._programs:
                self._clear(slot)
            self._programs[slot] = program
        self._lay_out([slot for slot, _, _ in rules])

    def remove(self, slot: int) -> None:
        """Drop a rule and its state."""
        self._clear(slot)
        del self._programs[slot]
        self._lay_out([slot])

    def _clear(self, slot: int) -> None:
        kernel.clear(self._rules, self._state, slot)
        self._rehash(len(self._state.H))

    def _rehash(self, size: int) -> None:
        headers = np.zeros(size, layout.HEADER)
        kernel.rehash(self._state.H, headers)
        self._state = self._state._replace(H=headers)

    def _lay_out(self, fresh: Sequence[int]) -> None:
        """Tables of the current rules, and counters of which those of the ``fresh`` rules are 0."""
        slots = max(self._programs, default=-1) + 1
        self._rules = np.zeros((slots, layout.P_WIDTH), np.int64)
        self._rules[:, layout.P_PLACES] = 2
        for slot, program in self._programs.items():
            self._rules[slot] = _row(program)
        per_rule = np.zeros((slots, layout.Q_WIDTH), np.int64)
        kept = min(slots, len(self._state.Q))
        per_rule[:kept] = self._state.Q[:kept]
        for slot in {*range(kept, slots), *fresh} & {*range(slots)}:
            per_rule[slot] = 0
            per_rule[slot, [layout.Q_HEAD, layout.Q_TAIL]] = -1
        self._state = self._state._replace(Q=per_rule)

    # -- steps -------------------------------------------------------------------------------------------------------

    def process(self, tasks: Sequence[Task]) -> list[tuple[int, Outputs]]:
        """Process the rows of each task; returns (slot, outputs) of the rules with outputs."""
        pieces: list[_Piece] = []
        for group in tasks_of_rows(tasks):
            self._process(group, group[0].rows, pieces)
        return self._by_slot(pieces) if pieces else []

    def _process(self, tasks: Sequence[Task], rows: Rows, pieces: list[_Piece]) -> None:
        table = np.array([(task.slot, task.shift) for task in tasks], np.int64)
        batch = layout.Batch(table, rows.t, rows.seq, rows.ref, rows.key, rows.mask)
        while not kernel.process(self._rules, self._state, batch):
            self._take(pieces)
            self._make_room()
        self._take(pieces)

    def _make_room(self) -> None:
        """Double the pools that are more than half full, and the outputs up to a limit."""
        state, G = self._state, self._state.G
        larger: dict[str, NDArray[Any]] = {}
        if 2 * (G[layout.G_NODES] + layout.MOST_PLACES) > len(state.N):
            larger["N"] = _room(state.N, 2 * len(state.N) + layout.MOST_PLACES)
        if 2 * G[layout.G_TIMERS] >= len(state.T):
            larger["T"] = _room(state.T, 2 * len(state.T))
        if 2 * (G[layout.G_LIST_HIGH] + layout.MOST_PLACES) > len(state.L):
            larger["L"] = _room(state.L, 2 * len(state.L) + layout.MOST_PLACES)
        if len(state.R) < MOST_REFS:
            larger["R"], larger["M"] = _room(state.R, 2 * len(state.R)), _room(state.M, 2 * len(state.M))
        self._state = state._replace(**larger)
        if 2 * (G[layout.G_HEADERS] + 1) > len(state.H):
            self._rehash(2 * len(state.H))

    def _take(self, pieces: list[_Piece]) -> None:
        G = self._state.G
        if G[layout.G_OUT]:
            pieces.append((self._state.M[: G[layout.G_OUT]].copy(), self._state.R[: G[layout.G_REFS]].copy()))
            G[[layout.G_OUT, layout.G_REFS]] = 0

    def _by_slot(self, pieces: Sequence[_Piece]) -> list[tuple[int, Outputs]]:
        """Outputs by rule, each in the order in which they were made."""
        parts: dict[int, list[_Piece]] = {}
        for heads, refs in pieces:
            slots = heads[:, layout.M_SLOT]
            bounds = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(slots)]
            used = 0
            for first, last in pairwise(bounds):
                slot, part = int(slots[first]), heads[first:last]
                end = used + int(part[:, layout.M_COUNT].sum()) * len(self._programs[slot].atoms)
                parts.setdefault(slot, []).append((part, refs[used:end]))
                used = end
        return [(slot, _outputs(each, self._programs[slot].steps)) for slot, each in sorted(parts.items())]

    def advance(self, now_us: int) -> list[tuple[int, Outputs]]:
        """Advance time to ``now_us`` for every key: drop what is too old. Time alone completes no match."""
        kernel.advance(self._rules, self._state, min(now_us, _FOREVER))
        return []

    def finish(self) -> list[tuple[int, Outputs]]:
        """After the last advance nothing is left: every rule of this operator has a time limit."""
        return []

    # -- state -------------------------------------------------------------------------------------------------------

    def _live_nodes(self) -> NDArray[Any]:
        nodes = self._state.N[: int(self._state.G[layout.G_NODE_HIGH])]
        live: NDArray[Any] = nodes[nodes["seq"] >= 0]
        return live

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to, which is a first one; None if there is none."""
        lists = self._state.H["lists"][self._state.H["rule"] > 0]
        return int(self._state.N["back"][self._state.L["head"][lists]].min()) if len(lists) else None

    def live_refs(self) -> NDArray[np.int64]:
        """Handles of the events that the state refers to, sorted, without duplicates."""
        refs: NDArray[np.int64] = np.sort(self._live_nodes()["ref"])
        return refs[np.append(True, refs[1:] != refs[:-1])] if len(refs) else refs

    def mark_keys(self, slot: int, live: NDArray[np.bool_]) -> None:
        """Set ``live[key]`` for every key that has events of the rule."""
        live[self._state.H["key"][self._state.H["rule"] == slot + 1]] = True

    def mark_strings(self, live: NDArray[np.bool_]) -> None:
        """The state holds no strings: conditions are of single events."""

    def counters(self, slot: int) -> NDArray[np.int64]:
        """Totals of the rule, in the order of `agents.cep.operator.COUNTERS`; ``partials``: events put at a place."""
        first = layout.Q_EVENTS
        totals: NDArray[np.int64] = self._state.Q[slot, first : first + len(COUNTERS)].copy()
        return totals

    def size(self) -> dict[str, int]:
        """Events at their places, timers and keys of the state, and its bytes."""
        names = {"events": layout.G_NODES, "timers": layout.G_TIMERS, "keys": layout.G_HEADERS}
        found = {name: int(self._state.G[index]) for name, index in names.items()}
        return {**found, "bytes": sum(array.nbytes for array in self._state)}

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of the state as arrays, truncated to the used part."""
        G, state = self._state.G, self._state
        used = {"N": layout.G_NODE_HIGH, "T": layout.G_TIMER_HIGH, "L": layout.G_LIST_HIGH}
        whole = {name: getattr(state, name).copy() for name in ("G", "Q", "F", "H")}
        return whole | {name: getattr(state, name)[: int(G[index])].copy() for name, index in used.items()}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot made with the same rules in the same slots."""
        whole = {name: np.array(snapshot[name]) for name in ("G", "Q", "F", "H")}
        grown = {name: _room(np.asarray(snapshot[name]), len(snapshot[name]) + FIRST_ROOM) for name in ("N", "T", "L")}
        self._state = self._state._replace(**whole, **grown)


def _outputs(pieces: Sequence[_Piece], steps: tuple[int, ...]) -> Outputs:
    heads, refs = pieces[0] if len(pieces) == 1 else map(np.concatenate, zip(*pieces, strict=True))
    counts = heads[:, layout.M_COUNT]
    count = len(refs) // len(steps)
    return Outputs(
        np.repeat(heads[:, layout.M_KEY].astype(np.int32), counts),
        np.repeat(heads[:, layout.M_TIME], counts),
        np.zeros(count, np.int8),
        np.arange(count + 1, dtype=np.int64) * len(steps),
        np.tile(np.array(steps, np.int16), count),
        refs,
    )


def _row(program: CombinationProgram) -> list[int]:
    rule = program.rule
    assert rule.within is not None
    row = [0] * layout.P_WIDTH
    row[layout.P_PLACES] = len(program.atoms)
    row[layout.P_LENGTH] = rule.within.time + rule.within.closed
    row[layout.P_LIMIT] = rule.max_partials.limit
    row[layout.P_KEEP_NEW] = int(rule.max_partials.policy == "drop_oldest")
    row[layout.P_MOST] = program.most_matches
    row[layout.P_SKIP] = _SKIPS[rule.skip.kind]
    row[layout.P_SKIP_PLACE] = program.skip_place
    return row


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _room(array: NDArray[Any], length: int) -> NDArray[Any]:
    """A copy with room for ``length`` items."""
    larger = np.zeros((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
