"""Allocation of predicate bits: groups of rules with the same streams and key share a word of 64 bits per event.

A rule keeps its place (group and first bit) as long as it is unchanged, and bits are never reused for another rule:
rows that were prepared before a change of rules stay valid, and rules added later ignore them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from astrocyte.agents.cep.operator import OperatorName, RuleProgram
from astrocyte.agents.cep.predicates import StreamPlan

__all__ = ["PredicateGroup", "PredicateGroups", "RuleBits"]

WORD: Final = 64


@dataclass(frozen=True, slots=True)
class RuleBits:
    """Place of a rule's bits, and its program."""

    group: int
    shift: int
    program: RuleProgram

    @property
    def where(self) -> tuple[int, int]:
        """Number of the group and first bit."""
        return self.group, self.shift


@dataclass(slots=True)
class PredicateGroup:
    """Rules of the same operator, streams and correlation field; the first ``used`` bits are allocated permanently."""

    number: int
    operator: OperatorName
    by: str | None
    streams: tuple[str, ...]
    used: int = 0
    slots: list[int] = field(default_factory=list)


class PredicateGroups:
    """All groups of a matcher, and the predicate plan of each stream."""

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self.all: list[PredicateGroup] = []
        self.places: dict[int, RuleBits] = {}
        self.columns: dict[str, int] = {name: column for column, name in enumerate(fields)}
        """Row of ``Prepared.columns`` for every captured field; rows never change."""
        self._open: dict[tuple[OperatorName, str | None, tuple[str, ...]], PredicateGroup] = {}

    def add(self, slot: int, program: RuleProgram, *, where: tuple[int, int] | None = None) -> tuple[int, ...]:
        """Allocate a rule's place and return its columns; ``where`` is its place in a snapshot that is restored.

        When restoring, rules must be added in the order of their places.
        """
        rule, need = program.rule, max(len(program.atoms), 1)
        signature = (program.operator, rule.by, rule.streams)
        if where is not None:
            while len(self.all) <= where[0]:
                self.all.append(PredicateGroup(len(self.all), *signature))
            group = self._open[signature] = self.all[where[0]]
            group.operator, group.by, group.streams = signature
            group.used = where[1]
        else:
            found = self._open.get(signature)
            if found is None or found.used + need > WORD:
                found = self._open[signature] = PredicateGroup(len(self.all), *signature)
                self.all.append(found)
            group = found
        self.places[slot] = RuleBits(group.number, group.used, program)
        group.used += need
        group.slots.append(slot)
        return tuple(self.columns.setdefault(name, len(self.columns)) for name in program.captures)

    def remove(self, slot: int) -> None:
        """Remove a rule; its bits are not reused."""
        self.all[self.places.pop(slot).group].slots.remove(slot)

    def plans(self) -> Mapping[str, StreamPlan]:
        """Plan of every stream that is read by a rule."""
        members: dict[str, list[int]] = {}
        for group in self.all:
            for stream in group.streams if group.slots else ():
                members.setdefault(stream, []).append(group.number)
        return {stream: self._plan(stream, numbers) for stream, numbers in members.items()}

    def _plan(self, stream: str, numbers: Sequence[int]) -> StreamPlan:
        slots = [slot for number in numbers for slot in self.all[number].slots]
        captures = sorted({self.columns[name] for slot in slots for name in self.places[slot].program.captures})
        plan = StreamPlan(numbers, captures)
        for local, number in enumerate(numbers):
            for slot in self.all[number].slots:
                place = self.places[slot]
                for bit, atom in enumerate(place.program.atoms):
                    if stream in atom.streams:
                        plan.add(local, place.shift + bit, atom)
        return plan
