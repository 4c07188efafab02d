"""Code generation for the stack machine `agents.expressions.vm`, and its instructions.

The operator defines what a field or an aggregate means: its `Read` turns one into an operand, two numbers that the
operator's loader interprets, or into an expression over such operands.
"""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = ["MAX_STACK", "NUMBER", "NUMBER_OR_ZERO", "PRESENT", "Code", "Op", "Operand", "Read"]

MAX_STACK: Final = 64


class Op(IntEnum):
    """Instructions; each pops its values from the stack and pushes one."""

    CONST = 0
    LOAD = 1
    NEG = 2
    NOT = 3
    ISNULL = 4
    NUMBER = 5
    """A number is kept, everything else becomes null."""
    NUMBER_OR_ZERO = 6
    """A number is kept, everything else becomes 0."""
    PRESENT = 7
    """1, of null 0."""
    ABS = 8
    SQRT = 9
    LOG = 10
    ADD = 11
    SUB = 12
    MUL = 13
    DIV = 14
    MOD = 15
    MIN = 16
    MAX = 17
    LT = 18
    LE = 19
    GT = 20
    GE = 21
    EQ = 22
    NE = 23
    AND = 24
    OR = 25


NUMBER: Final = "number"
NUMBER_OR_ZERO: Final = "number or zero"
PRESENT: Final = "present"
"""Internal functions, which rules cannot name, for the expressions into which a `Read` turns aggregates."""

Operand = tuple[int, int]
Read = Callable[[Node], Operand | Node | None]
"""Operand of a node, or a node to compile instead; None if it is computed from its parts."""

_BINARY: Final = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "/": Op.DIV, "%": Op.MOD, "min": Op.MIN, "max": Op.MAX,
                  "<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE, "==": Op.EQ, "!=": Op.NE}  # fmt: skip
_UNARY: Final = {"abs": Op.ABS, "sqrt": Op.SQRT, "log": Op.LOG, NUMBER: Op.NUMBER, NUMBER_OR_ZERO: Op.NUMBER_OR_ZERO,
                 PRESENT: Op.PRESENT}  # fmt: skip


@dataclass(slots=True)
class Code:
    """Code of all conditions of one rule: that of condition j is ``ops[starts[j]:starts[j + 1]]``.

    An instruction is (`Op`, first, second): for LOAD the operand, for CONST the number of the constant and 0.
    """

    read: Read
    constants: list[float | int | str | None] = field(default_factory=list)
    ops: list[tuple[int, int, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])

    def add(self, node: Node) -> None:
        """Append the code of one condition, which pushes its value. Raises InvalidRule."""
        depth = self._emit(node)
        if depth > MAX_STACK:
            raise InvalidRule(
                f"a condition needs a stack of {depth} values; the limit is {MAX_STACK}, split it with 'and'"
            )
        self.starts.append(len(self.ops))

    def _op(self, op: Op, first: int = 0, second: int = 0) -> None:
        self.ops.append((int(op), first, second))

    def _emit(self, node: Node) -> int:
        """Emit the code of the node; returns the stack depth that it needs."""
        found = self.read(node)
        if isinstance(found, tuple):
            self._op(Op.LOAD, *found)
            return 1
        if found is not None and found is not node:
            return self._emit(found)
        match node:
            case Constant(value):
                self._op(Op.CONST, len(self.constants))
                self.constants.append(value)
                return 1
            case Arith(op, left, right) | Compare(op, left, right):
                return self._join(_BINARY[op], (left, right))
            case And(parts) | Or(parts):
                return self._join(Op.AND if isinstance(node, And) else Op.OR, parts)
            case Call("min" | "max" as func, args):
                return self._join(_BINARY[func], args)
            case Call(func, (arg,)):
                return self._unary(_UNARY[func], arg)
            case Negate(value):
                return self._unary(Op.NEG, value)
            case Not(value):
                return self._unary(Op.NOT, value)
            case IsNull(value):
                return self._unary(Op.ISNULL, value)
            case Member(value, values) if isinstance(value, Field | Aggregate) or not _has_text(values):
                if not values:
                    return self._emit(Constant(False))
                return self._join(Op.OR, tuple(Compare("==", value, Constant(each)) for each in values))
        raise InvalidRule(
            "a text test can read the fields of one event only; compare text of two events with ==, !=, < or >"
        )

    def _unary(self, op: Op, value: Node) -> int:
        depth = self._emit(value)
        self._op(op)
        return depth

    def _join(self, op: Op, parts: tuple[Node, ...]) -> int:
        depth = self._emit(parts[0])
        for part in parts[1:]:
            depth = max(depth, self._emit(part) + 1)
            self._op(op)
        return depth


def _has_text(values: tuple[int | float | str | bool, ...]) -> bool:
    return any(isinstance(value, str) for value in values)
