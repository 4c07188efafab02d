"""Kinds of values in expressions: which have to be numbers, and which two can never be equal.

Text is no number, whatever it writes, and a truth value is neither: values of two kinds are unequal and have no order,
and arithmetic and sums of text and of truth values are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from astrocyte.agents.expressions.nodes import (
    Aggregate,
    Arith,
    Call,
    Compare,
    Constant,
    Field,
    Member,
    Negate,
    Node,
    Text,
    children,
)

__all__ = ["OF_ANYTHING", "Kind", "Misread", "kind_of_constant", "misreads", "number_reads"]

Kind = Literal["number", "text", "bool"]
KindOf = Callable[[str | None, str], Kind | None]
"""Kind of a field's values, by step (None: of the current event) and name; None where it is not known."""

OF_ANYTHING: Final = ("count", "count_if", "count_distinct", "first", "last", "entropy")
"""Aggregates of values that need not be numbers."""
_OF_VALUES: Final = ("first", "last")


_BLAMED: Final[tuple[Kind, ...]] = ("bool", "text", "number")
"""Of two compared values that are no constants, the one of the first kind is named."""


class Misread(NamedTuple):
    """A part of an expression that takes values of one kind for those of another."""

    part: Node
    field: Field | None
    """The field whose kind is another than the part needs; None for an expression."""
    kind: Kind
    """Kind of the field or the expression."""
    wants: Kind


def misreads(node: Node, kind_of: KindOf) -> Iterator[Misread]:
    """The parts that compute with text or truth values, or compare two kinds: none is ever true, or has a value."""
    for operand in _computed(node):
        kind = _kind(operand, kind_of)
        if kind in ("text", "bool"):
            yield Misread(node, _as_field(operand), kind, "number")
    if isinstance(node, Compare):
        sides = [(kind, side) for side in (node.left, node.right) if (kind := _kind(side, kind_of)) is not None]
        if len({kind for kind, _ in sides}) == 2:
            order = sorted(sides, key=lambda each: (isinstance(each[1], Constant), _BLAMED.index(each[0])))
            (kind, blamed), (wants, _) = order
            yield Misread(node, _as_field(blamed), kind, wants)
    if isinstance(node, Member):
        kind = _kind(node.value, kind_of)
        others = [kind_of_constant(value) for value in node.values]
        if kind is not None and others and kind not in others and others[0] is not None:
            yield Misread(node, _as_field(node.value), kind, others[0])
    if isinstance(node, Text) and isinstance(node.value, Field):
        kind = _kind(node.value, kind_of)
        if kind in ("number", "bool"):
            yield Misread(node, _as_field(node.value), kind, "text")
    for part in children(node):
        yield from misreads(part, kind_of)


def number_reads(node: Node) -> Iterator[Field]:
    """Fields of which the expression needs numbers: text in one makes it null, or equal to nothing.

    A field that the expression also compares with text, or tests as text, may have several kinds: it is given only
    where it is computed with.
    """
    as_text = set(_read_as_text(node))
    for field, computed in _reads(node):
        if computed or field not in as_text:
            yield field


def _reads(node: Node) -> Iterator[tuple[Field, bool]]:
    """Each field that has to be a number, and whether it is computed with."""
    for operand in _computed(node):
        if (field := _as_field(operand)) is not None:
            yield field, True
    if isinstance(node, Compare):
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if (field := _as_field(side)) is not None and _is_number(other):
                yield field, False
    of_numbers = isinstance(node, Member) and {kind_of_constant(value) for value in node.values} == {"number"}
    if isinstance(node, Member) and of_numbers and (field := _as_field(node.value)) is not None:
        yield field, False
    for part in children(node):
        yield from _reads(part)


def _read_as_text(node: Node) -> Iterator[Field]:
    match node:
        case Compare(_, Field() as field, Constant(str())) | Compare(_, Constant(str()), Field() as field):
            yield field
        case Text(_, Field() as field):
            yield field
        case Member(Field() as field, values) if any(isinstance(value, str) for value in values):
            yield field
    for part in children(node):
        yield from _read_as_text(part)


def _computed(node: Node) -> tuple[Node, ...]:
    """Direct parts that have to be numbers."""
    match node:
        case Arith() | Negate():
            return children(node)
        case Call(func, args):
            return () if func == "present" else args
        case Aggregate(func, _, args):
            return () if func in OF_ANYTHING else args[:1]
        case _:
            return ()


def _kind(node: Node, kind_of: KindOf) -> Kind | None:
    match node:
        case Constant(value):
            return kind_of_constant(value)
        case Field(step, name):
            return kind_of(step, name)
        case Aggregate(func, _, (argument, *_)) if func in _OF_VALUES:
            return _kind(argument, kind_of)
        case _:
            return "number" if _is_number(node) else None


def _is_number(node: Node) -> bool:
    if isinstance(node, Constant):
        return kind_of_constant(node.value) == "number"
    return isinstance(node, Arith | Negate | Call) or (isinstance(node, Aggregate) and node.func not in _OF_VALUES)


def kind_of_constant(value: object) -> Kind | None:
    """Kind of a constant; None for null."""
    if isinstance(value, bool | str):
        return "bool" if isinstance(value, bool) else "text"
    return "number" if isinstance(value, int | float) else None


def _as_field(node: Node) -> Field | None:
    """The field whose value a node is; also that of the first or last event of a step."""
    if isinstance(node, Aggregate) and node.func in _OF_VALUES and node.args:
        return _as_field(node.args[0])
    return node if isinstance(node, Field) else None
