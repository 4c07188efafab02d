"""Nodes of the expression language: what `agents.expressions.parser.parse` returns and every evaluator walks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from astrocyte.schemas.errors import InvalidRule

__all__ = [
    "MIRRORED",
    "Aggregate",
    "And",
    "Arith",
    "Call",
    "Compare",
    "Constant",
    "ExpressionError",
    "Field",
    "IsNull",
    "Member",
    "Negate",
    "Node",
    "Not",
    "Or",
    "Text",
    "children",
    "is_condition",
    "moved",
    "walk",
]


MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""By comparison: the one that holds if the sides are exchanged."""


class ExpressionError(InvalidRule):
    """An invalid expression; ``position`` is the index of the offending character in ``text``."""

    def __init__(self, reason: str, text: str, position: int) -> None:
        super().__init__(f"{reason} (at character {position + 1} of {text!r})")
        self.reason = reason
        self.text = text
        self.position = position


def _typed(value: object) -> tuple[type, object]:
    return type(value), value


@dataclass(frozen=True, slots=True)
class _Located:
    at: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class Constant(_Located):
    """A number, text, boolean or None. Constants of different types differ, unlike Python's True and 1."""

    value: int | float | str | bool | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and _typed(self.value) == _typed(other.value)

    def __hash__(self) -> int:
        return hash(_typed(self.value))


@dataclass(frozen=True, slots=True)
class Field(_Located):
    """A field of the current event (``step`` None) or of the last event matched to ``step``; ``at``: of its name."""

    step: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Aggregate(_Located):
    """``func`` over the events of ``step`` (or of the window, ``step`` None); ``args`` are its arguments."""

    func: str
    step: str | None
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Call(_Located):
    """A function of numbers: abs, sqrt, log, or min and max of several values."""

    func: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Arith(_Located):
    """``left op right`` with one of + - * / %."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Negate(_Located):
    """Unary minus."""

    value: Node


@dataclass(frozen=True, slots=True)
class Compare(_Located):
    """``left op right`` with one of < <= > >= == !=; false if a side is null."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class And(_Located):
    """All parts are true; evaluated from the left up to the first that is not."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(_Located):
    """One part is true; evaluated from the left up to the first that is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(_Located):
    """True if ``value`` is false, null, zero or empty text."""

    value: Node


@dataclass(frozen=True, slots=True, eq=False)
class Member(_Located):
    """``value`` is one of ``values`` (constants, null excluded)."""

    value: Node
    values: tuple[int | float | str | bool, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple[object, ...]:
        return self.value, *map(_typed, self.values)


@dataclass(frozen=True, slots=True)
class Text(_Located):
    """Text test: ``func`` is in, contains, startswith or endswith; false if ``value`` is not text.

    ``in`` looks into lists and objects (`agents.expressions.inside`); to the others these are their JSON text.
    """

    func: str
    value: Node
    part: str


@dataclass(frozen=True, slots=True)
class IsNull(_Located):
    """``value is None``; NaN and missing fields are null."""

    value: Node


Node = Constant | Field | Aggregate | Call | Arith | Negate | Compare | And | Or | Not | Member | Text | IsNull


def children(node: Node) -> tuple[Node, ...]:
    """Direct parts of a node."""
    match node:
        case Aggregate(_, _, args) | Call(_, args):
            return args
        case Arith(_, left, right) | Compare(_, left, right):
            return (left, right)
        case And(parts) | Or(parts):
            return parts
        case Negate(value) | Not(value) | Member(value) | Text(_, value) | IsNull(value):
            return (value,)
        case _:
            return ()


def is_condition(node: Node) -> bool:
    """Whether the node's value is true or false, whatever the event."""
    tests = And | Or | Not | Compare | Member | Text | IsNull
    return isinstance(node, tests) or (isinstance(node, Constant) and isinstance(node.value, bool))


def walk(node: Node) -> Iterator[Node]:
    """The node and all its descendants."""
    yield node
    for part in children(node):
        yield from walk(part)


def moved(node: Node, by: int) -> Node:
    """The node with its position, and those of its parts, that many characters further on."""
    changed: dict[str, Any] = {"at": node.at + by}
    for attribute in fields(node):
        part = getattr(node, attribute.name)
        if isinstance(part, Node):
            changed[attribute.name] = moved(part, by)
        elif isinstance(part, tuple) and part and isinstance(part[0], Node):
            changed[attribute.name] = tuple(moved(each, by) for each in part)
    return replace(node, **changed)
