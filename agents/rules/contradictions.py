"""Conditions that can never be true: comparisons of one value with constants that exclude each other.

The analysis is sound but not complete: it reports only what no event can fulfil, and says nothing about the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Final

from astrocyte.agents.expressions.kinds import kind_of_constant
from astrocyte.agents.expressions.nodes import (
    MIRRORED,
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
    children,
)
from astrocyte.agents.expressions.unparse import to_text

__all__ = ["contradiction", "implies", "never_holds", "reads_step"]

_NEGATED: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_ORDERS: Final = {
    "<": frozenset({-1}), "<=": frozenset({-1, 0}), ">": frozenset({1}), ">=": frozenset({0, 1}),
    "==": frozenset({0}), "!=": frozenset({-1, 1}),
}  # fmt: skip
"""Outcomes of a comparison of two values for which each operator holds."""

_Scalar = int | float | str | bool
_Test = tuple[str, tuple[_Scalar, ...]]
"""Operator (a comparison, or ``in``) and its constants."""


def contradiction(node: Node | None) -> str | None:
    """Why the condition is never true; None if it may be true, as far as this module can tell."""
    if node is None:
        return None
    parts = _parts(node)
    for part in parts:
        if _never(part):
            sides = (part.left, part.right) if isinstance(part, Compare) else ()
            quoted = sides and all(isinstance(side, Constant) and isinstance(side.value, str) for side in sides)
            hint = " (a field's name is written without quotation marks)" if quoted else ""
            return f"{to_text(part)} is never true{hint}"
    for one, two in combinations(parts, 2):
        if _exclude([one, two]):
            return f"{to_text(one)} and {to_text(two)} exclude each other"
    return f"{to_text(node)} is never true" if len(parts) > 2 and _exclude(parts) else None


def never_holds(node: Node | None, effect: str) -> str | None:
    """Why the condition is never true, what comes of it, and what to do; None if it may be true."""
    reason = contradiction(node)
    if node is None or reason is None:
        return None
    advice = "change one of them, or write or" if isinstance(node, And) else "change it, or leave it out"
    return f"{reason}, so that {effect}; {advice}"


def implies(first: Node | None, second: Node | None) -> bool:
    """Whether every event for which ``first`` is true fulfils ``second``, as far as this module can tell."""
    if second is None:
        return True
    known = [] if first is None else _parts(first)
    return all(part in known or _follows(known, part) for part in _parts(second))


def _parts(node: Node) -> list[Node]:
    """Conditions that must all be true for ``node`` to be true."""
    return [each for part in node.parts for each in _parts(part)] if isinstance(node, And) else [node]


def _never(node: Node) -> bool:
    match node:
        case Constant(value):
            return not value
        case Member(_, ()):
            return True
        case Compare(_, left, right) if _undefined(left) or _undefined(right):
            return True
        case Member(value) | Text(_, value) if _undefined(value):
            return True
        case Compare(op, Constant(left), Constant(right)):
            order = _compare(left, right)
            if order is None:
                return op != "!=" or left is None or right is None
            return order not in _ORDERS[op]
        case Compare(op, left, right):
            return left == right and 0 not in _ORDERS[op]
        case Or(parts):
            return all(contradiction(part) is not None for part in parts)
        case Not(IsNull(Constant(None))):
            return True
        case _:
            return False


def _undefined(node: Node) -> bool:
    """Whether the value is null for every event, as that of a division by zero is."""
    match node:
        case Arith("/" | "%", _, Constant(0 | 0.0)):
            return True
        case Arith() | Negate() | Call():
            return any(map(_undefined, children(node)))
        case _:
            return False


def _test(node: Node) -> tuple[Node, _Test] | None:
    """The value that a part tests, and how; None for other parts."""
    match node:
        case Compare(_, Constant(), Constant()):
            return None
        case Compare(op, value, Constant(constant)) if constant is not None:
            return value, (op, (constant,))
        case Compare(op, Constant(constant), value) if constant is not None:
            return value, (MIRRORED[op], (constant,))
        case Member(value, values):
            return value, ("in", values)
        case _:
            return None


def _exclude(parts: list[Node]) -> bool:
    tests: dict[Node, list[_Test]] = {}
    orders: dict[tuple[Node, Node], frozenset[int]] = {}
    nulls, strings = set(), set()
    if any(isinstance(part, Not) and part.value in parts for part in parts):
        return True
    for part in parts:
        found = _test(part)
        if found is not None:
            tests.setdefault(found[0], []).append(found[1])
        elif isinstance(part, Compare) and not isinstance(part.left, Constant):
            pair: tuple[Node, Node] = (part.left, part.right)
            op = part.op
            if (part.right, part.left) in orders:
                pair, op = (part.right, part.left), MIRRORED[op]
            orders[pair] = orders.get(pair, frozenset({-1, 0, 1})) & _ORDERS[op]
        elif isinstance(part, IsNull):
            nulls.add(part.value)
        elif isinstance(part, Text):
            strings.add(part.value)
    if any(not left for left in orders.values()):
        return True
    compared = {side for pair in orders for side in pair}
    if nulls & (tests.keys() | compared | strings):
        return True
    return any(_empty(each, value in strings) for value, each in tests.items())


def _empty(tests: list[_Test], is_text: bool) -> bool:
    """Whether no value fulfils all tests."""
    needed = {kind_of_constant(constant) for op, constants in tests if op != "!=" for constant in constants}
    needed |= {"text"} if is_text else set()
    lists = [constants for op, constants in tests if op in ("in", "==")]
    if lists:
        return not any(_holds(each, tests) and (not is_text or isinstance(each, str)) for each in lists[0])
    if len(needed) > 1:
        return True
    lows = [(constants[0], op == ">") for op, constants in tests if op in (">", ">=")]
    highs = [(constants[0], op == "<") for op, constants in tests if op in ("<", "<=")]
    for low, above in lows:
        for high, below in highs:
            order = _compare(low, high)
            if order == 1 or (order == 0 and (above or below or ("!=", (low,)) in tests)):
                return True
    return False


def _holds(value: _Scalar, tests: list[_Test]) -> bool:
    for op, constants in tests:
        orders = [_compare(value, constant) for constant in constants]
        if op == "in":
            if 0 not in orders:
                return False
        elif orders[0] is None:
            if op != "!=":
                return False
        elif orders[0] not in _ORDERS[op]:
            return False
    return True


def _compare(left: object, right: object) -> int | None:
    """-1, 0 or 1; None for values without an order (other kinds, null)."""
    if left is None or right is None or kind_of_constant(left) != kind_of_constant(right):
        return None
    return (left > right) - (left < right)  # type: ignore[operator,no-any-return]


def _follows(known: list[Node], part: Node) -> bool:
    found = _test(part)
    if found is None:
        return False
    value, (op, constants) = found
    same = [test for each in known if (test := _test(each)) is not None and test[0] == value and test[1][0] != "!="]
    kinds = {kind_of_constant(constant) for _, (_, all_of) in same for constant in all_of}
    if not constants or kinds != {kind_of_constant(constants[0])}:
        return False
    if op == "in":
        opposite: list[Node] = [Compare("!=", value, Constant(constant)) for constant in constants]
    else:
        opposite = [Compare(_NEGATED[op], value, Constant(constants[0]))]
    return _exclude([*known, *opposite])


def reads_step(node: Node | None, steps: Collection[str]) -> str | None:
    """A ``step.field`` of one of ``steps`` that must not be null for the condition to be true; None without one."""
    for part in _parts(node) if node is not None else ():
        if isinstance(part, Compare):
            for each in (*_operands(part.left), *_operands(part.right)):
                if each.step in steps:
                    return to_text(each)
    return None


def _operands(node: Node) -> Iterator[Field]:
    """Fields without which the value of ``node`` is null."""
    if isinstance(node, Field):
        yield node
    elif isinstance(node, Arith | Negate | Call):
        for part in children(node):
            yield from _operands(part)
