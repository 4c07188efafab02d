"""Conditions over earlier events as postfix code, and the running values that they read.

A `Slot` is a value that every partial match keeps up to date as it takes events (such as the sum of a field over the
events of a step), so that a condition costs the same after ten events and after ten thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from astrocyte.agents.expressions.nodes import (
    Aggregate,
    And,
    Arith,
    Call,
    Compare,
    Constant,
    Field,
    IsNull,
    Member,
    Negate,
    Node,
    Not,
    Or,
)
from astrocyte.schemas.errors import InvalidRule

__all__ = ["MAX_STACK", "Code", "Op", "Running", "Slot"]

MAX_STACK: Final = 48


class Op(IntEnum):
    """Instructions; each takes its operands from the stack and leaves one value (NaN is null)."""

    CONST = 0
    COLUMN = 1
    SLOT = 2
    TIME = 3
    NEG = 4
    NOT = 5
    ISNULL = 6
    ABS = 7
    SQRT = 8
    LOG = 9
    ADD = 10
    SUB = 11
    MUL = 12
    DIV = 13
    MOD = 14
    MIN = 15
    MAX = 16
    LT = 17
    LE = 18
    GT = 19
    GE = 20
    EQ = 21
    NE = 22
    AND = 23
    OR = 24


class Running(IntEnum):
    """What a slot keeps over the events of its step."""

    COUNT = 0
    VALUES = 1
    """Number of events whose field is not null."""
    SUM = 2
    MIN = 3
    MAX = 4
    FIRST = 5
    LAST = 6


@dataclass(frozen=True, slots=True)
class Slot:
    """``running`` of field number ``capture`` over the events of step number ``step``."""

    running: Running
    step: int
    capture: int


_ARITH: Final = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "/": Op.DIV, "%": Op.MOD}
_COMPARE: Final = {"<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE, "==": Op.EQ, "!=": Op.NE}
_UNARY: Final = {"abs": Op.ABS, "sqrt": Op.SQRT, "log": Op.LOG}
_RUNNING: Final = {"sum": Running.SUM, "min": Running.MIN, "max": Running.MAX, "first": Running.FIRST,
                   "last": Running.LAST, "count": Running.VALUES}  # fmt: skip


@dataclass(slots=True)
class Code:
    """Collects the code of all dynamic conditions of one rule."""

    steps: dict[str, int]
    captures: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    constants: list[float | int | str] = field(default_factory=list)
    ops: list[tuple[int, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])

    def add(self, node: Node) -> None:
        """Append the code of one condition; the value left on the stack is its truth."""
        depth = self._emit(node)
        if depth > MAX_STACK:
            raise InvalidRule(f"a condition needs {depth} values at once; at most {MAX_STACK} are taken")
        self.starts.append(len(self.ops))

    def _op(self, op: Op, argument: int = 0) -> None:
        self.ops.append((int(op), argument))

    def _capture(self, name: str) -> int:
        if name not in self.captures:
            self.captures.append(name)
        return self.captures.index(name)

    def _slot(self, running: Running, step: str, name: str | None) -> int:
        self._op(Op.SLOT, self._slot_number(running, step, name))
        return 1

    def _slot_number(self, running: Running, step: str, name: str | None) -> int:
        slot = Slot(running, self.steps[step], -1 if name is None else self._capture(name))
        if slot not in self.slots:
            self.slots.append(slot)
        return self.slots.index(slot)

    def _emit(self, node: Node) -> int:
        """Emit code of the node; gives the number of stack places it needs."""
        match node:
            case Constant(None):
                return self._constant(float("nan"))
            case Constant(value):
                return self._constant(value if isinstance(value, str | float) else int(value or 0))
            case Field(None, "timestamp"):
                self._op(Op.TIME)
                return 1
            case Field(None, name):
                self._op(Op.COLUMN, self._capture(name))
                return 1
            case Field(str() as step, name):
                return self._slot(Running.LAST, step, name)
            case Aggregate(_, str() as step, ()):
                return self._slot(Running.COUNT, step, None)
            case Aggregate("mean", str() as step, (Field(_, name),)):
                self._slot(Running.SUM, step, name)
                self._slot(Running.VALUES, step, name)
                self._op(Op.DIV)
                return 2
            case Aggregate(func, str() as step, (Field(_, name),)):
                return self._slot(_RUNNING[func], step, name)
            case Arith(op, left, right):
                return self._binary(_ARITH[op], left, right)
            case Compare(op, left, right):
                return self._binary(_COMPARE[op], left, right)
            case And(parts) | Or(parts):
                return self._join(Op.AND if isinstance(node, And) else Op.OR, parts)
            case Call("min" | "max" as func, args):
                return self._join(Op.MIN if func == "min" else Op.MAX, args)
            case Call(func, (arg,)):
                return self._unary(_UNARY[func], arg)
            case Negate(value):
                return self._unary(Op.NEG, value)
            case Not(value):
                return self._unary(Op.NOT, value)
            case IsNull(value):
                return self._unary(Op.ISNULL, value)
            case Member(value, values):
                return self._join(Op.OR, tuple(Compare("==", value, Constant(each)) for each in values))
        raise InvalidRule(f"{type(node).__name__} cannot be combined with values of earlier events")

    def _constant(self, value: float | int | str) -> int:
        self._op(Op.CONST, len(self.constants))
        self.constants.append(value)
        return 1

    def _unary(self, op: Op, value: Node) -> int:
        depth = self._emit(value)
        self._op(op)
        return depth

    def _binary(self, op: Op, left: Node, right: Node) -> int:
        depth = max(self._emit(left), self._emit(right) + 1)
        self._op(op)
        return depth

    def _join(self, op: Op, parts: tuple[Node, ...]) -> int:
        if not parts:
            return self._constant(0)
        depth = self._emit(parts[0])
        for part in parts[1:]:
            depth = max(depth, self._emit(part) + 1)
            self._op(op)
        return depth
