"""Compilation of an ``all`` rule: tests of single events, conditions over several as postfix code.

Each part of a step's ``where`` that looks at the step's own event alone becomes a test (a bit of the event's word);
the others become conditions, evaluated as soon as the events that they read are chosen. A negated step without such
conditions forbids by its bit alone; one with conditions keeps its events, to be tested against each candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from astrocyte.agents.cep.conjunction import waiting_lists as layout
from astrocyte.agents.cep.operator import Atom
from astrocyte.agents.expressions.nodes import (
    Aggregate,
    And,
    Arith,
    Call,
    Compare,
    Constant,
    ExpressionError,
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
from astrocyte.schemas.errors import InvalidRule

__all__ = ["Condition", "ConjunctionProgram", "compile_conjunction"]

Code = tuple[int, int, int]
MAX_ATOMS: Final = 62
_OPERATORS: Final = {
    "+": layout.ADD, "-": layout.SUB, "*": layout.MUL, "/": layout.DIV, "%": layout.MOD, "<": layout.LT,
    "<=": layout.LE, ">": layout.GT, ">=": layout.GE, "==": layout.EQ, "!=": layout.NE, "abs": layout.ABS,
    "sqrt": layout.SQRT, "log": layout.LOG, "min": layout.MIN, "max": layout.MAX,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of step ``owner``, evaluated once slot ``level`` is filled; ``slots`` is the set that it reads."""

    owner: int
    level: int
    slots: int
    code: tuple[Code, ...]


@dataclass(frozen=True, slots=True)
class ConjunctionProgram:
    """A compiled ``all`` rule. Immutable.

    Slots 0 to ``positive`` - 1 are the steps of a match; up to ``slots`` follow negated steps with conditions over
    others. Bit j of a row's word says that it fits slot j, a bit of ``kill`` that it is forbidden outright.
    """

    rule: Rule
    atoms: tuple[Atom, ...]
    captures: tuple[str, ...]
    positive: int
    slots: int
    kill: int
    conditions: tuple[Condition, ...]
    constants: tuple[tuple[float, float], ...]
    asks_words: bool

    @property
    def tests(self) -> int:
        """The bits of a row's word that this rule uses."""
        return (1 << len(self.atoms)) - 1


def compile_conjunction(rule: Rule) -> ConjunctionProgram:
    """Compile a rule whose operator is ``all``. Raises InvalidRule where a condition cannot be compiled."""
    return _Compiler(rule).compile()


@dataclass(slots=True)
class _Compiler:
    rule: Rule
    slot_of: dict[str, int] = field(default_factory=dict)
    streams_of: dict[int, tuple[str, ...]] = field(default_factory=dict)
    captures: list[str] = field(default_factory=list)
    constants: list[tuple[float, float]] = field(default_factory=list)
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
        for slot, step in enumerate([*positive, *watched]):
            for part in self.parts(step)[1]:
                read = {self.slot_of[name] for name in _steps_of(part)} | {slot}
                level = max(read) if slot < len(positive) else -1
                code = tuple(self.code(part, slot))
                if _depth(code) > layout.STACK:
                    raise self.refuse(step, "a condition that is too deeply nested; split it with 'and'")
                conditions.append(Condition(slot, level, sum(1 << each for each in read), code))
        atoms += self.extra
        if len(atoms) > MAX_ATOMS:
            raise InvalidRule(f"rule {self.rule.name!r} takes {len(atoms)} tests of single events; at most {MAX_ATOMS}")
        slots = len(positive) + len(watched)
        return ConjunctionProgram(
            rule=self.rule,
            atoms=tuple(atoms),
            captures=tuple(self.captures),
            positive=len(positive),
            slots=slots,
            kill=sum(1 << bit for bit in range(slots, slots + len(outright))),
            conditions=tuple(conditions),
            constants=tuple(self.constants),
            asks_words=bool(self.extra),
        )

    def parts(self, step: Step) -> tuple[list[Node], list[Node]]:
        """What the step's ``where`` asks of its own event alone, and of others too."""
        node = self.rule.condition(step)
        if node is None:
            return [], []
        parts = list(_conjuncts(node))
        alone = [part for part in parts if not _steps_of(part)]
        return alone, [part for part in parts if _steps_of(part)]

    def code(self, node: Node, own: int) -> Iterator[Code]:
        if _is_test(node) and _has_text(node):
            slots = {self.slot_of[name] for name in _steps_of(node)}
            if any(isinstance(each, Field) and each.step is None for each in walk(node)):
                slots.add(own)
            if len(slots) == 1:
                yield layout.BIT, (slot := slots.pop()), self.bit(node, slot)
                return
        match node:
            case Constant(bool() | int() | float() as value):
                yield layout.CONST, self.constant(value), 0
            case Constant(None):
                yield layout.CONST, self.constant(float("nan")), 0
            case Field(step, name):
                yield layout.COLUMN, own if step is None else self.slot_of[step], self.column(name)
            case Aggregate("count", str(), ()):
                yield layout.CONST, self.constant(1), 0
            case Aggregate("count", str(), (value,)):
                yield from self.code(value, own)
                yield from ((layout.ISNULL, 0, 0), (layout.NOT, 0, 0))
            case Aggregate("sum", str(), (value,)):
                yield from self.code(value, own)
                yield layout.OR_ZERO, 0, 0
            case Aggregate(_, str(), (value,)):
                yield from self.code(value, own)  # one event a step: its mean, first, ... are its value
            case Arith(op, left, right) | Compare(op, left, right):
                yield from self.code(left, own)
                yield from self.code(right, own)
                yield _OPERATORS[op], 0, 0
            case Negate(value):
                yield from self.code(value, own)
                yield layout.NEG, 0, 0
            case Not(value):
                yield from self.code(value, own)
                yield layout.NOT, 0, 0
            case IsNull(value):
                yield from self.code(value, own)
                yield layout.ISNULL, 0, 0
            case And(parts) | Or(parts):
                yield from self.chain(parts, own, layout.AND if isinstance(node, And) else layout.OR)
            case Call(("min" | "max") as name, args):
                yield from self.chain(args, own, _OPERATORS[name])
            case Call(name, (value,)):
                yield from self.code(value, own)
                yield _OPERATORS[name], 0, 0
            case Member(value, values) if not _has_text(node):
                tests = tuple(Compare("==", value, Constant(each)) for each in values)
                yield from self.chain(tests, own, layout.OR)
            case _:
                raise ExpressionError(
                    "a test of text takes one event's fields; compare the texts of two events with == or !=",
                    self.rule.name,
                    node.at,
                )

    def chain(self, nodes: tuple[Node, ...], own: int, op: int) -> Iterator[Code]:
        yield from self.code(nodes[0], own)
        for node in nodes[1:]:
            yield from self.code(node, own)
            yield op, 0, 0

    def constant(self, value: float) -> int:
        high = float(value)
        low = float(value - int(high)) if isinstance(value, int) else 0.0
        self.constants.append((high, low))
        return len(self.constants) - 1

    def column(self, name: str) -> int:
        if name not in self.captures:
            self.captures.append(name)
        return self.captures.index(name)

    def bit(self, node: Node, slot: int) -> int:
        atom = Atom(tuple(sorted(self.streams_of[slot])), _localised(node))
        if atom not in self.extra:
            self.extra.append(atom)
        return self.first_extra + self.extra.index(atom)

    def refuse(self, step: Step, reason: str) -> InvalidRule:
        return InvalidRule(f"rule {self.rule.name!r}: step {step.name!r}: {reason}")


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


def _localised(node: Node) -> Node:
    """The test as its event alone sees it: fields without the name of their step."""
    match node:
        case Field(str(), name):
            return Field(None, name)
        case Aggregate("count", _, ()):
            return Constant(1)
        case Aggregate("count", _, (value,)):
            return Not(IsNull(_localised(value)))
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


def _depth(code: tuple[Code, ...]) -> int:
    depth = deepest = 0
    for op, _, _ in code:
        depth += 1 if op <= layout.BIT else -1 if op >= layout.ADD else 0
        deepest = max(deepest, depth)
    return deepest
