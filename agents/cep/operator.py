"""What the matcher asks of an operator: the automaton (`automaton.py`) and the conjunction (`conjunction.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import Outputs, Rows
from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.model import Rule

__all__ = ["COUNTERS", "Atom", "Operator", "RuleProgram", "Task"]

COUNTERS = ("events", "partials", "matches", "timeouts", "cut", "work")
"""Columns of `Operator.counters`: rows looked at, partial matches begun, outputs, cut ones, steps of work done."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A test of one event alone: it is of one of ``streams`` and ``condition`` (None: nothing more) holds."""

    streams: tuple[str, ...]
    condition: Node | None


class RuleProgram(Protocol):
    """A compiled rule. Immutable."""

    @property
    def rule(self) -> Rule:
        """What it was compiled from."""

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """Tests whose results are the bits of the rule's word, lowest first; at most 64."""

    @property
    def captures(self) -> tuple[str, ...]:
        """Fields whose values the rule needs beyond its atoms."""


@dataclass(frozen=True, slots=True)
class Task:
    """Work for one rule: its word of entry i is ``(rows.mask[i] >> shift) & (2**len(atoms) - 1)``; skip where 0."""

    slot: int
    shift: int
    rows: Rows


class Operator(Protocol):
    """All rules of one kind with their state (arrays only). Rules are known by their slot, a small number."""

    def add(self, slot: int, program: Any, columns: Sequence[int]) -> None:
        """Begin a rule with fresh state; ``columns[j]`` is the row of ``Rows.columns`` for ``program.captures[j]``."""

    def add_all(self, rules: Sequence[tuple[int, Any, Sequence[int]]]) -> None:
        """Begin several rules at once."""

    def remove(self, slot: int) -> None:
        """Drop a rule and its state."""

    def process(self, tasks: Sequence[Task]) -> list[tuple[int, Outputs]]:
        """Feed the rows of each task; gives (slot, outputs) for rules that put something out."""

    def advance(self, now_us: int) -> list[tuple[int, Outputs]]:
        """Time reaches ``now_us`` for every key: expire, decide absences, put out timeouts."""

    def finish(self) -> list[tuple[int, Outputs]]:
        """After the last advance: drop what no time ends, so that the state is empty."""

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to; None where there is none."""

    def live_refs(self) -> NDArray[np.int64]:
        """Refs of the events that the state refers to, sorted, without repetition."""

    def mark_keys(self, slot: int, live: NDArray[np.bool_]) -> None:
        """Set ``live[key]`` for every key number that the rule's state holds."""

    def size(self) -> dict[str, int]:
        """What the state holds, by kind, and its ``bytes``."""

    def counters(self, slot: int) -> NDArray[np.int64]:
        """Totals of the rule, in the order of `COUNTERS`."""

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of the state as arrays."""

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Take over a snapshot made with the same rules in the same slots."""
