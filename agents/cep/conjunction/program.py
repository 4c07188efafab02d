"""Compilation of an ``all`` rule: tests of single events as bits, conditions over several events as code.

Each part of a step's ``where`` that reads the step's own event alone becomes a test (a bit of the event's word); the
others become conditions, evaluated as soon as the events that they read are chosen. A negated step without such
conditions forbids by its bit alone; one with conditions keeps its events and tests them against each candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from astrocyte.agents.cep.operator import Atom, OperatorName
from astrocyte.agents.expressions.bytecode import NUMBER, NUMBER_OR_ZERO, PRESENT, Code, Operand
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
    Text,
    walk,
)
from astrocyte.agents.rules.model import Rule, Step
from astrocyte.agents.rules.problems import about
from astrocyte.schemas.errors import InvalidRule

__all__ = ["Condition", "ConjunctionProgram", "compile_conjunction"]

MAX_ATOMS: Final = 62


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of step ``owner``, evaluated once slot ``level`` is filled; ``slots``: the slots that it reads."""

    owner: int
    level: int
    slots: int


@dataclass(frozen=True, slots=True)
class ConjunctionProgram:
    """A compiled ``all`` rule. Immutable.

    Slots 0 to ``positive`` - 1 are the steps of a match; the slots up to ``slots`` are negated steps with conditions
    over others. Bit j of a row's word means that it fits slot j, a bit of ``kill`` that it is forbidden
    unconditionally. An operand in ``code`` is a slot and a number: field j of ``captures`` of the event chosen for the
    slot, or, as -1 - j, bit j of its word.
    """

    operator: ClassVar[OperatorName] = "conjunction"
    rule: Rule
    atoms: tuple[Atom, ...]
    captures: tuple[str, ...]
    positive: int
    slots: int
    kill: int
    conditions: tuple[Condition, ...]
    code: Code
    """Code of the conditions, in the same order."""
    asks_words: bool

    @property
    def tests(self) -> int:
        """Mask of the bits of a row's word that this rule uses."""
        return (1 << len(self.atoms)) - 1


def compile_conjunction(rule: Rule) -> ConjunctionProgram:
    """Compile a rule whose operator is ``all``. Raises InvalidRule if a condition cannot be compiled."""
    return _Compiler(rule).compile()


@dataclass(slots=True)
class _Compiler:
    rule: Rule
    slot_of: dict[str, int] = field(default_factory=dict)
    streams_of: dict[int, tuple[str, ...]] = field(default_factory=dict)
    captures: list[str] = field(default_factory=list)
    own: int = 0
    extra: list[Atom] = field(default_factory=list)
    first_extra: int = 0

    def compile(self) -> ConjunctionProgram:
        positive = [step for step in self.rule.steps if not step.negated]
        negated = [step for step in self.rule.steps if step.negated]
        watched = [step for step in negated if self.parts(step)[1]]
        outright = [step for step in negated if not self.parts(step)[1]]
        ordered = [*positive, *watched, *outright]
        for slot, step in enumerate(ordered):
            self.slot_of[str(step.name)] = slot
            self.streams_of[slot] = step.stream
        atoms = [Atom(tuple(sorted(step.stream)), _together(self.parts(step)[0])) for step in ordered]
        self.first_extra = len(atoms)
        conditions = []
        code = Code(self.read)
        for slot, step in enumerate([*positive, *watched]):
            for part in self.parts(step)[1]:
                read = {self.slot_of[name] for name in _steps_of(part)} | {slot}
                level = max(read) if slot < len(positive) else -1
                self.own = slot
                with about(field=f"{step.name}.where"):
                    code.add(part)
                conditions.append(Condition(slot, level, sum(1 << each for each in read)))
        atoms += self.extra
        if len(atoms) > MAX_ATOMS:
            raise InvalidRule(f"the rule has {len(atoms)} tests of single events; the limit is {MAX_ATOMS}, split it")
        slots = len(positive) + len(watched)
        return ConjunctionProgram(
            rule=self.rule,
            atoms=tuple(atoms),
            captures=tuple(self.captures),
            positive=len(positive),
            slots=slots,
            kill=sum(1 << bit for bit in range(slots, slots + len(outright))),
            conditions=tuple(conditions),
            code=code,
            asks_words=bool(self.extra),
        )

    def parts(self, step: Step) -> tuple[list[Node], list[Node]]:
        """The parts of the step's ``where`` that read its own event alone, and those that read others too."""
        node = self.rule.condition(step)
        if node is None:
            return [], []
        parts = list(_conjuncts(node))
        alone = [part for part in parts if not _steps_of(part)]
        return alone, [part for part in parts if _steps_of(part)]

    def read(self, node: Node) -> Operand | Node | None:
        """Operands of a condition of slot ``own``; a step has one event, so its sum, mean and so on are that value.

        A text test that reads one event only is evaluated when that event arrives, and is a bit of its word.
        """
        if _is_test(node) and _has_text(node) and not _has_number(node):
            slots = {self.slot_of[name] for name in _steps_of(node)}
            if any(isinstance(each, Field) and each.step is None for each in walk(node)):
                slots.add(self.own)
            if len(slots) == 1:
                slot = slots.pop()
                return slot, -1 - self.bit(node, slot)
        match node:
            case Field(step, name):
                return self.own if step is None else self.slot_of[step], self.column(name)
            case Aggregate("count", str(), ()):
                return Constant(1)
            case Aggregate("count", str(), (value,)):
                return Call(PRESENT, (value,))
            case Aggregate("sum", str(), (value,)):
                return Call(NUMBER_OR_ZERO, (value,))
            case Aggregate("mean", str(), (value,)):
                return Arith("/", value, Constant(1))
            case Aggregate("min" | "max", str(), (value,)):
                return Call(NUMBER, (value,))
            case Aggregate(_, str(), (value,)):
                return value
        return None

    def column(self, name: str) -> int:
        if name not in self.captures:
            self.captures.append(name)
        return self.captures.index(name)

    def bit(self, node: Node, slot: int) -> int:
        atom = Atom(tuple(sorted(self.streams_of[slot])), _localised(node))
        if atom not in self.extra:
            self.extra.append(atom)
        return self.first_extra + self.extra.index(atom)


def _conjuncts(node: Node) -> Iterator[Node]:
    if isinstance(node, And):
        for part in node.parts:
            yield from _conjuncts(part)
    else:
        yield node


def _together(parts: list[Node]) -> Node | None:
    return None if not parts else parts[0] if len(parts) == 1 else And(tuple(parts))


def _steps_of(node: Node) -> set[str]:
    return {each.step for each in walk(node) if isinstance(each, Field | Aggregate) and each.step is not None}


def _is_test(node: Node) -> bool:
    return isinstance(node, Compare | And | Or | Not | Member | Text | IsNull)


def _has_text(node: Node) -> bool:
    return any(
        isinstance(each, Text)
        or (isinstance(each, Constant) and isinstance(each.value, str))
        or (isinstance(each, Member) and any(isinstance(value, str) for value in each.values))
        for each in walk(node)
    )


def _has_number(node: Node) -> bool:
    """Whether it has an aggregate of numbers only, which differs from its field where that holds text."""
    return any(isinstance(each, Aggregate) and each.func in ("sum", "mean", "min", "max") for each in walk(node))


def _localised(node: Node) -> Node:
    """The test for its event alone: fields without the name of their step."""
    match node:
        case Field(str(), name):
            return Field(None, name)
        case Aggregate("count", _, ()):
            return Constant(1)
        case Aggregate("count", _, (value,)):
            return Call(PRESENT, (_localised(value),))
        case Aggregate(_, _, (value,)):
            return _localised(value)
        case Call(_, args):
            return replace(node, args=tuple(_localised(arg) for arg in args))
        case Arith(_, left, right) | Compare(_, left, right):
            return replace(node, left=_localised(left), right=_localised(right))
        case And(parts) | Or(parts):
            return replace(node, parts=tuple(_localised(part) for part in parts))
        case Negate(value) | Not(value) | Member(value) | Text(_, value) | IsNull(value):
            return replace(node, value=_localised(value))
        case _:
            return node
