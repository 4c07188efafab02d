"""Programs of many rules laid out as the kernel's tables (`agents.cep.sequence.layout`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.compiler.flatten import STAYS, Program
from astrocyte.agents.cep.compiler.formula import DYNAMIC, Term
from astrocyte.agents.cep.compiler.nfa import Kind
from astrocyte.agents.cep.compiler.running_values import FROM_COLUMN, FROM_SLOT
from astrocyte.agents.cep.sequence import layout
from astrocyte.agents.cep.values import TextNumbers
from astrocyte.agents.expressions.bytecode import Op

__all__ = ["build_tables"]

_SKIPS: Final = {"none": layout.SKIP_NONE, "past_last": layout.SKIP_PAST_LAST, "to_next": layout.SKIP_TO_NEXT,
                 "to_first": layout.SKIP_TO_FIRST, "to_last": layout.SKIP_TO_LAST}  # fmt: skip
_KINDS: Final = {Kind.NORMAL: layout.NORMAL, Kind.PENDING: layout.NORMAL, Kind.FINAL: layout.FINAL,
                 Kind.STOP: layout.STOP}  # fmt: skip
_MIRROR: Final = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE}
_LOW: Final = (1 << DYNAMIC) - 1


def build_tables(programs: Mapping[int, tuple[Program, Sequence[int]]], strings: TextNumbers) -> Any:
    """Tables of the programs by slot; each program is given with the columns that hold its captures."""
    builder = _Builder(strings)
    slots = max(programs, default=-1) + 1
    rules = np.zeros((slots, layout.P_WIDTH), np.int64)
    for slot, (program, columns) in sorted(programs.items()):
        rules[slot] = builder.add(program, columns)
    return builder.tables(rules)


class _Builder:
    def __init__(self, strings: TextNumbers) -> None:
        self.strings = strings
        self.states: list[tuple[int, ...]] = []
        self.edges: list[tuple[int, ...]] = []
        self.terms: list[tuple[int, int, int, int]] = []
        self.actions: list[NDArray[Any]] = []
        self.needed: list[NDArray[Any]] = []
        self.resolved: list[NDArray[Any]] = []
        self.fired: list[NDArray[Any]] = []
        self.idle: list[NDArray[Any]] = []
        self.react: list[NDArray[Any]] = []
        self.sizes = [0, 0, 0]
        self.slots: list[tuple[int, int, int]] = []
        self.code0: list[int] = []
        self.code: list[tuple[int, int, int]] = []
        self.simple: list[tuple[int, int, int]] = []
        self.consts: list[tuple[float, float]] = []

    def add(self, program: Program, columns: Sequence[int]) -> list[int]:
        """Append a program; returns its row of the rule table."""
        rule, table = program.rule, program.table
        row = [0] * layout.P_WIDTH
        row[layout.P_WINDOW] = rule.within.time if rule.within else 0
        row[layout.P_CLOSED] = int(rule.within.closed) if rule.within else 0
        row[layout.P_SKIP] = _SKIPS[rule.skip.kind]
        row[layout.P_SKIP_STEP] = rule.positive.index(rule.skip.step) if rule.skip.step else -1
        row[layout.P_STRICT_SKIP] = int(rule.skip.on_missing == "error")
        row[layout.P_STATE0] = len(self.states)
        row[layout.P_START] = len(self.states) + program.start
        row[layout.P_BITS] = table.bits
        row[layout.P_KNOWN] = table.dynamic_bits
        row[layout.P_ACT] = self.sizes[0]
        row[layout.P_RESOLVED] = self.sizes[1]
        row[layout.P_IDLE] = self.sizes[2]
        row[layout.P_FAN] = max(program.fan_out, 1)
        row[layout.P_TIMEOUTS] = int(rule.on_timeout is not None)
        row[layout.P_EAGER] = int(rule.emit_mode == "eager")
        row[layout.P_LIMIT] = rule.max_partials.limit
        row[layout.P_KEEP_NEW] = int(rule.max_partials.policy == "drop_oldest")
        row[layout.P_WAITS] = int(any(state.deadline_us for state in program.states))
        row[layout.P_TIMED] = int(any(edge.wait_us for state in program.states for edge in state.edges))
        row[layout.P_SLOT0] = len(self.slots)
        self.slots += [
            (int(slot.running), slot.step, columns[slot.capture] if slot.capture >= 0 else -1) for slot in program.slots
        ]
        row[layout.P_SLOT1] = len(self.slots)
        row[layout.P_CODE0] = len(self.code0)
        row[layout.P_DYNAMIC] = len(program.code.starts) - 1
        row[layout.P_WORD] = max(len(program.atoms), 1)
        self._add_code(program, columns)
        self._add_states(program)
        react = np.zeros(table.actions.shape[1], np.uint32)
        for number, actions in enumerate(table.actions):
            react |= np.where(actions != STAYS, np.uint32(1 << (number & 31)), np.uint32(0)).astype(np.uint32)
        self.actions.append(table.actions.ravel())
        self.needed.append(table.needed.ravel())
        self.resolved.append(table.resolved.ravel())
        self.fired.append(table.fired.reshape(-1, 2))
        self.idle.append(table.idle)
        self.react.append(react)
        for index, array in enumerate((table.actions, table.resolved, table.idle)):
            self.sizes[index] += array.size
        return row

    def _add_code(self, program: Program, columns: Sequence[int]) -> None:
        first, code = len(self.consts), program.code
        self.consts += [self.strings.on_stack(constant) for constant in code.constants]
        base = len(self.code)
        self.code0 += [base + start for start in code.starts]
        ops = [_moved(op, first, columns) for op in code.ops]
        self.simple += [_simple(ops[begin:end]) for begin, end in pairwise(code.starts)]
        self.simple.append((0, 0, 0))
        self.code += ops

    def _add_states(self, program: Program) -> None:
        base = len(self.states)
        for number, state in enumerate(program.states):
            first = len(self.edges)
            for edge in state.edges:
                terms, final = self._add_terms(edge.terms), self._add_terms(edge.final)
                self.edges.append(
                    (int(edge.take), edge.step, base + edge.target, _KINDS[edge.kind], *terms, *final, edge.wait_us)
                )
            same = (*state.unchanged, 0, 0)[:2]
            pending = int(state.kind is Kind.PENDING)
            self.states.append((first, len(self.edges), state.deadline_us, pending, *same, number))

    def _add_terms(self, terms: Sequence[Term]) -> tuple[int, int]:
        first = len(self.terms)
        self.terms += [(care & _LOW, want & _LOW, care >> DYNAMIC, want >> DYNAMIC) for care, want in terms]
        return first, len(self.terms)

    def tables(self, rules: NDArray[np.int64]) -> Any:
        """Everything added, as arrays."""
        return layout.Tables(
            rules=rules,
            states=np.array(self.states, np.int64).reshape(-1, layout.S_WIDTH),
            edges=np.array(self.edges, np.int64).reshape(-1, layout.E_WIDTH),
            terms=np.array(self.terms, np.uint64).reshape(-1, 4),
            act=np.concatenate([*self.actions, np.zeros(1, np.uint8)]),
            needed=np.concatenate([*self.needed, np.zeros(1, np.uint8)]),
            resolved=np.concatenate([*self.resolved, np.zeros(1, np.uint8)]),
            fired=np.concatenate([*self.fired, np.zeros((1, 2), np.uint64)]),
            idle=np.concatenate([*self.idle, np.zeros(1, np.uint8)]),
            react=np.concatenate([*self.react, np.zeros(1, np.uint32)]),
            slots=np.array(self.slots, np.int64).reshape(-1, layout.L_WIDTH),
            code0=np.array([*self.code0, len(self.code)], np.int64),
            code=np.array(self.code, np.int64).reshape(-1, 3),
            simple=np.array([*self.simple, (0, 0, 0)], np.int64),
            consts=np.array([*self.consts, (0.0, 0.0)], np.float64),
            strings=self.strings.arrays[0],
            arena=self.strings.arrays[1],
        )


def _moved(op: tuple[int, int, int], first: int, columns: Sequence[int]) -> tuple[int, int, int]:
    """An instruction with the number of its constant, or the column of its operand, in the tables of all rules."""
    code, one, two = op
    if code == Op.CONST:
        return code, first + one, two
    return code, one, columns[two] if code == Op.LOAD and one == FROM_COLUMN else two


def _simple(ops: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """(comparison, column, slot) of code that compares a field with a running value, the usual case; else zeros."""
    if len(ops) == 3 and ops[0][0] == ops[1][0] == Op.LOAD and Op.LT <= ops[2][0] <= Op.GE:
        (_, first, a), (_, second, b), (compare, _, _) = ops
        if (first, second) == (FROM_COLUMN, FROM_SLOT):
            return compare, a, b
        if (first, second) == (FROM_SLOT, FROM_COLUMN):
            return _MIRROR[Op(compare)], b, a
    return 0, 0, 0
