"""Conditions as formulas over atoms, and their disjunctive normal form.

A static atom tests one event alone and is a bit of the event's word. A dynamic atom reads events matched earlier; the
kernel evaluates it only if the static part of a term holds. A `Term` is a conjunction: bits in ``care`` must be as in
``want``; static atoms are bits 0 to 63, dynamic ones from `DYNAMIC` on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from astrocyte.agents.cep.operator import Atom
from astrocyte.agents.expressions.nodes import (
    Aggregate,
    And,
    Compare,
    Constant,
    Field,
    IsNull,
    Member,
    Node,
    Not,
    Or,
    Text,
    walk,
)
from astrocyte.schemas.errors import InvalidRule

__all__ = ["DYNAMIC", "FALSE", "TRUE", "Atoms", "Formula", "Term", "both", "dnf", "either", "negation",
           "reads_one_event"]  # fmt: skip

DYNAMIC: Final = 64
MAX_ATOMS: Final = 64
MAX_TERMS: Final = 512
Term = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Formula:
    """``op`` is true, atom, not, and, or; ``atom`` is the bit of an atom."""

    op: str
    atom: int = -1
    left: Formula | None = None
    right: Formula | None = None


TRUE: Final = Formula("true")
FALSE: Final = Formula("not", left=TRUE)


def both(a: Formula, b: Formula) -> Formula:
    """Conjunction."""
    if a in (TRUE, b):
        return b
    return a if b == TRUE else Formula("and", left=a, right=b)


def either(a: Formula, b: Formula) -> Formula:
    """Disjunction."""
    if TRUE in (a, b):
        return TRUE
    if a in (FALSE, b):
        return b
    return a if b == FALSE else Formula("or", left=a, right=b)


def negation(a: Formula) -> Formula:
    """Negation."""
    return a.left if a.op == "not" and a.left is not None else Formula("not", left=a)


def dnf(formula: Formula, negated: bool = False) -> tuple[Term, ...]:
    """Terms of which one must hold; no term: never, (0, 0): always. Raises InvalidRule if there are too many."""
    left, right = formula.left, formula.right
    if formula.op == "true":
        return () if negated else ((0, 0),)
    if formula.op == "atom":
        bit = 1 << formula.atom
        return ((bit, 0 if negated else bit),)
    assert left is not None
    if formula.op == "not":
        return dnf(left, not negated)
    assert right is not None
    a, b = dnf(left, negated), dnf(right, negated)
    if (formula.op == "and") == negated:
        terms = {*a, *b}
    else:
        terms = {(c | d, v | w) for c, v in a for d, w in b if not (v ^ w) & c & d}
    kept: list[Term] = []
    for care, want in sorted(terms, key=lambda term: (term[0].bit_count(), term)):
        if not any(c & care == c and want & c == w for c, w in kept):
            kept.append((care, want))
    if len(kept) > MAX_TERMS:
        raise InvalidRule(f"a condition expands to more than {MAX_TERMS} cases; simplify its and/or/not")
    return tuple(kept)


@dataclass(slots=True)
class Atoms:
    """Collects the atoms of one rule while its conditions become formulas."""

    static: list[Atom] = field(default_factory=list)
    dynamic: list[Node] = field(default_factory=list)

    def formula(self, node: Node | None, streams: tuple[str, ...]) -> Formula:
        """Formula of "the event is of ``streams`` and ``node`` holds"."""
        if node is None:
            return self.static_atom(None, streams)
        body = self.convert(node, streams)
        guarded = reads_one_event(node) or (isinstance(node, And) and any(reads_one_event(part) for part in node.parts))
        return body if guarded else both(self.static_atom(None, streams), body)

    def static_atom(self, node: Node | None, streams: tuple[str, ...]) -> Formula:
        """Atom of a test of the current event alone."""
        if isinstance(node, Constant) and node.value:
            node = None
        atom = Atom(tuple(sorted(streams)), node)
        if atom not in self.static:
            self.static.append(atom)
            if len(self.static) > MAX_ATOMS:
                raise InvalidRule(f"the rule has more than {MAX_ATOMS} different conditions; split it")
        return Formula("atom", self.static.index(atom))

    def dynamic_atom(self, node: Node) -> Formula:
        """Atom of a test that reads events matched earlier."""
        if node not in self.dynamic:
            self.dynamic.append(node)
            if len(self.dynamic) > MAX_ATOMS:
                raise InvalidRule(f"the rule has more than {MAX_ATOMS} conditions over earlier events; split it")
        return Formula("atom", DYNAMIC + self.dynamic.index(node))

    def convert(self, node: Node, streams: tuple[str, ...]) -> Formula:
        """Formula of the node; its largest parts that read the current event alone become one atom each."""
        if reads_one_event(node):
            return self.static_atom(node, streams)
        match node:
            case And(parts) | Or(parts):
                static = tuple(part for part in parts if reads_one_event(part))
                formulas = [self.convert(part, streams) for part in parts if not reads_one_event(part)]
                if static:
                    whole = static[0] if len(static) == 1 else type(node)(static)
                    formulas.insert(0, self.static_atom(whole, streams))
                join = both if isinstance(node, And) else either
                result = formulas[0]
                for formula in formulas[1:]:
                    result = join(result, formula)
                return result
            case Not(value):
                return negation(self.convert(value, streams))
            case Member(value, values):
                result = FALSE
                for each in values:
                    result = either(result, self.dynamic_atom(Compare("==", value, Constant(each))))
                return result
            case Text():
                raise InvalidRule(
                    "contains, startswith, endswith and 'x' in cannot test an event matched earlier; put the test into "
                    "that step's where"
                )
            case Compare() | IsNull() | Field() | Aggregate():
                return self.dynamic_atom(node)
            case _:
                return self.dynamic_atom(Compare("!=", node, Constant(0)))


def reads_one_event(node: Node) -> bool:
    """Whether the truth of a condition depends on the current event alone."""
    return not any(isinstance(part, Aggregate) or (isinstance(part, Field) and part.step) for part in walk(node))
