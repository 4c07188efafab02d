"""Operands of a sequence's conditions: fields of the current event, its time, and running values of earlier events.

A `Slot` is a value that every partial match updates as it takes events (such as the sum of a field over the events of
a step), so that a condition costs the same after ten events and after ten thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from astrocyte.agents.expressions.bytecode import Operand
from astrocyte.agents.expressions.nodes import Aggregate, Arith, Field, Node

__all__ = ["FROM_COLUMN", "FROM_SLOT", "FROM_TIME", "Reader", "Running", "Slot"]

# Where an operand of a condition comes from.
FROM_COLUMN, FROM_SLOT, FROM_TIME = range(3)


class Running(IntEnum):
    """Running value of a slot over the events of its step."""

    COUNT = 0
    VALUES = 1
    """Number of events whose field is not null."""
    NUMBERS = 2
    """Number of events whose field is a number."""
    SUM = 3
    MIN = 4
    MAX = 5
    FIRST = 6
    """First value that is not null."""
    LAST = 7
    """Last value that is not null."""
    NEWEST = 8
    """Value of the last event, which may be null."""


_RUNNING: Final = {"sum": Running.SUM, "min": Running.MIN, "max": Running.MAX, "first": Running.FIRST,
                   "last": Running.LAST, "count": Running.VALUES, "numbers": Running.NUMBERS}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """``running`` of field number ``capture`` over the events of step number ``step``."""

    running: Running
    step: int
    capture: int


@dataclass(slots=True)
class Reader:
    """Turns fields and aggregates into operands (`agents.expressions.bytecode.Read`); collects captures and slots."""

    steps: dict[str, int]
    captures: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def read(self, node: Node) -> Operand | Node | None:
        """Operand of a field or an aggregate; a mean is the sum divided by the count of numbers."""
        match node:
            case Field(None, "timestamp"):
                return FROM_TIME, 0
            case Field(None, name):
                return FROM_COLUMN, self._capture(name)
            case Field(str() as step, name):
                return self._slot(Running.NEWEST, step, name)
            case Aggregate(_, str() as step, ()):
                return self._slot(Running.COUNT, step, None)
            case Aggregate("mean", str() as step, args):
                return Arith("/", Aggregate("sum", step, args), Aggregate("numbers", step, args))
            case Aggregate(func, str() as step, (Field(_, name),)):
                return self._slot(_RUNNING[func], step, name)
        return None

    def _capture(self, name: str) -> int:
        if name not in self.captures:
            self.captures.append(name)
        return self.captures.index(name)

    def _slot(self, running: Running, step: str, name: str | None) -> Operand:
        slot = Slot(running, self.steps[step], -1 if name is None else self._capture(name))
        if slot not in self.slots:
            self.slots.append(slot)
        return FROM_SLOT, self.slots.index(slot)
