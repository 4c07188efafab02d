"""Interface of the operators that the matcher runs.

The sequence operator runs an automaton for each `seq` and `any` rule, the combinations operator those `seq` rules of
which it needs no partial matches, and the conjunction operator `all` rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from astrocyte.agents.cep.rows import Outputs, Rows
from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.model import Rule

__all__ = ["COUNTERS", "Atom", "Operator", "OperatorName", "RuleProgram", "Task", "tasks_of_rows"]

OperatorName = Literal["automaton", "combinations", "conjunction"]
"""Name of an operator."""
COUNTERS = ("events", "partials", "matches", "timeouts", "cut", "work")
"""Columns of `Operator.counters`: rows examined, partial matches started, matches, timeouts, what was cut, and work.

Cut are partial matches that ``max_partials`` dropped, and events whose matches ``max_matches`` bounded. The matcher
divides processing time among rules by units of work.
"""


@dataclass(frozen=True, slots=True)
class Atom:
    """A test of one event alone: its stream is one of ``streams`` and ``condition`` (None: always true) holds."""

    streams: tuple[str, ...]
    condition: Node | None


class RuleProgram(Protocol):
    """A compiled rule. Immutable."""

    @property
    def operator(self) -> OperatorName:
        """The operator that runs it."""

    @property
    def rule(self) -> Rule:
        """The rule that was compiled."""

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """Tests whose results are the bits of the rule's word, lowest first; at most 64."""

    @property
    def captures(self) -> tuple[str, ...]:
        """Fields whose values the rule needs beyond its atoms."""


@dataclass(frozen=True, slots=True)
class Task:
    """Work for one rule: its word for entry i is ``(rows.mask[i] >> shift) & (2**len(atoms) - 1)``; 0 is skipped."""

    slot: int
    shift: int
    rows: Rows


def tasks_of_rows(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks that follow one another and have the same rows, which one call of a kernel processes."""
    for _, group in groupby(tasks, key=lambda task: id(task.rows)):
        yield list(group)


class Operator(Protocol):
    """All rules of one kind with their state (arrays only). A rule is identified by its slot, a small number."""

    def add(self, slot: int, program: Any, columns: Sequence[int]) -> None:
        """Add a rule with empty state; ``columns[j]`` is the row of ``Rows.columns`` for ``program.captures[j]``."""

    def add_all(self, rules: Sequence[tuple[int, Any, Sequence[int]]]) -> None:
        """Add several rules at once."""

    def remove(self, slot: int) -> None:
        """Drop a rule and its state."""

    def process(self, tasks: Sequence[Task]) -> list[tuple[int, Outputs]]:
        """Process the rows of each task; returns (slot, outputs) of the rules with outputs."""

    def advance(self, now_us: int) -> list[tuple[int, Outputs]]:
        """Advance time to ``now_us`` for every key: expire partial matches, decide absences, emit timeouts."""

    def finish(self) -> list[tuple[int, Outputs]]:
        """After the last advance: drop partial matches without a time limit, so that the state is empty."""

    def low_water_us(self) -> int | None:
        """Oldest time of an event that the state refers to; None where there is none."""

    def live_refs(self) -> NDArray[np.int64]:
        """Handles of the events that the state refers to, sorted, without duplicates."""

    def mark_keys(self, slot: int, live: NDArray[np.bool_]) -> None:
        """Set ``live[key]`` for every key number that the rule's state holds."""

    def mark_strings(self, live: NDArray[np.bool_]) -> None:
        """Set ``live[number]`` for every string that the state or a constant of a rule holds."""

    def size(self) -> dict[str, int]:
        """Number of items in the state, by kind, and its size in ``bytes``."""

    def counters(self, slot: int) -> NDArray[np.int64]:
        """Totals of the rule, in the order of `COUNTERS`."""

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copy of the state as arrays."""

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Restore a snapshot made with the same rules in the same slots."""
