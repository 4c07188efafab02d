"""Expressions over single events: closures built once, called with plain mappings.

Used where events are evaluated one by one (`eventual` matching of one event, emitted values, alert messages, why-not).
Values follow the rules of `agents.expressions.parser`.
"""
# ruff: noqa: ARG005  every closure has the signature (event, prior), even if it reads only one of them

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

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
)
from astrocyte.agents.expressions.numbers import EXACT, arithmetic, clean, total

__all__ = ["Evaluate", "Event", "Prior", "compile_scalar", "render"]

Event = Mapping[str, Any]
Prior = Mapping[str, Sequence[Event]]
"""Events matched so far, by step, oldest first."""
Evaluate = Callable[[Event, Prior], Any]

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": lambda x: arithmetic("-", 0, x) if x < 0 else x,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else None,
    "log": lambda x: math.log(x) if x > 0 else None,
    "min": min,
    "max": max,
}


def compile_scalar(node: Node) -> Evaluate:
    """Closure ``(event, prior) -> value`` of the expression; None for a missing field, NaN or a failed computation."""
    match node:
        case Constant(value):
            return lambda event, prior: value
        case Field(None, name):
            return lambda event, prior: clean(event.get(name))
        case Field(str() as step, name):
            return lambda event, prior: _last(prior.get(step, ()), name)
        case Aggregate(func, str() as step, args):
            return _aggregate(func, step, args)
        case And(parts):
            tests = [compile_scalar(part) for part in parts]
            return lambda event, prior: all(test(event, prior) for test in tests)
        case Or(parts):
            tests = [compile_scalar(part) for part in parts]
            return lambda event, prior: any(test(event, prior) for test in tests)
        case Not(value):
            inner = compile_scalar(value)
            return lambda event, prior: not inner(event, prior)
        case IsNull(value):
            inner = compile_scalar(value)
            return lambda event, prior: inner(event, prior) is None
        case Compare(op, left, right):
            return _comparison(op, left, right)
        case Member(value, values):
            inner = compile_scalar(value)
            strings = frozenset(each for each in values if isinstance(each, str))
            numbers = frozenset(each for each in values if not isinstance(each, str))
            return lambda event, prior: _member(inner(event, prior), strings, numbers)
        case Text(func, value, part):
            return _text(func, compile_scalar(value), part)
        case Arith(op, left, right):
            a, b = compile_scalar(left), compile_scalar(right)
            return lambda event, prior: arithmetic(op, a(event, prior), b(event, prior))
        case Negate(value):
            inner = compile_scalar(value)
            return lambda event, prior: arithmetic("-", 0, inner(event, prior))
        case Call(func, args):
            return _call(func, [compile_scalar(arg) for arg in args])
    raise TypeError(f"{type(node).__name__} cannot be evaluated over single events")


def render(pieces: tuple[tuple[str, Node | None, str], ...], prior: Prior) -> str:
    """Text of a template (`agents.expressions.parser.parse_template`) for one match; null renders as ``null``."""
    strings = []
    for literal, node, spec in pieces:
        strings.append(literal)
        if node is not None:
            value = compile_scalar(node)({}, prior)
            plain = value is None or isinstance(value, bool | str)
            strings.append(("null" if value is None else str(value)) if plain else format(value, spec))
    return "".join(strings)


def _last(events: Sequence[Event], name: str) -> Any:
    return clean(events[-1].get(name)) if events else None


def _comparison(op: str, left: Node, right: Node) -> Evaluate:
    compare = _COMPARE[op]
    a, b = compile_scalar(left), compile_scalar(right)

    def general(event: Event, prior: Prior) -> bool:
        x, y = a(event, prior), b(event, prior)
        if x is None or y is None:
            return False
        if isinstance(x, str) is not isinstance(y, str):
            return op == "!="
        return compare(x, y)

    if isinstance(left, Field) and left.step is None and isinstance(right, Constant) and _is_ordinary(right.value):
        # The most frequent condition, field against constant, without nested calls.
        name, constant = left.name, right.value
        kind, other = (str, (int, float)) if isinstance(constant, str) else ((int, float), str)
        unequal = op == "!="

        def test(event: Event, prior: Prior) -> bool:
            value = event.get(name)
            if isinstance(value, kind):
                return value == value and compare(value, constant)  # noqa: PLR0124  NaN is unequal to itself
            if value is None:
                return False
            if isinstance(value, other):
                return unequal and value == value  # noqa: PLR0124
            return general(event, prior)

        return test

    return general


def _is_ordinary(constant: object) -> bool:
    """Whether integers beyond 64 bits compare with the constant as the nearest floats do."""
    return not isinstance(constant, float) or abs(constant) < EXACT


def _member(value: Any, strings: frozenset[str], numbers: frozenset[Any]) -> bool:
    if isinstance(value, str):
        return value in strings
    return isinstance(value, int | float) and value in numbers


def _text(func: str, value: Evaluate, part: str) -> Evaluate:
    tests: dict[str, Callable[[str, str], bool]] = {
        "contains": operator.contains,
        "startswith": str.startswith,
        "endswith": str.endswith,
    }
    test = tests[func]

    def evaluate(event: Event, prior: Prior) -> bool:
        found = value(event, prior)
        return isinstance(found, str) and test(found, part)

    return evaluate


def _call(func: str, args: list[Evaluate]) -> Evaluate:
    compute = _FUNCTIONS[func]

    def evaluate(event: Event, prior: Prior) -> Any:
        values = [arg(event, prior) for arg in args]
        if any(value is None or isinstance(value, str) for value in values):
            return None
        return compute(*(int(value) if isinstance(value, bool) else value for value in values))

    return evaluate


def _aggregate(func: str, step: str, args: tuple[Node, ...]) -> Evaluate:
    if not args:
        return lambda event, prior: len(prior.get(step, ()))
    (argument,) = args
    assert isinstance(argument, Field)
    name = argument.name

    def values(prior: Prior) -> list[Any]:
        found = [clean(event.get(name)) for event in prior.get(step, ())]
        return [value for value in found if value is not None]

    def numbers(prior: Prior) -> list[Any]:
        return [value for value in values(prior) if not isinstance(value, str)]

    match func:
        case "count":
            return lambda event, prior: len(values(prior))
        case "first":
            return lambda event, prior: clean(prior[step][0].get(name)) if prior.get(step) else None
        case "last":
            return lambda event, prior: _last(prior.get(step, ()), name)
        case "sum":
            return lambda event, prior: total(numbers(prior))
        case "mean":
            return lambda event, prior: _mean(numbers(prior))
        case "min" | "max":
            pick = min if func == "min" else max
            return lambda event, prior: pick(numbers(prior), default=None)
    raise ValueError(f"{func} is not an aggregate over the events of a match")


def _mean(values: list[Any]) -> Any:
    return arithmetic("/", total(values), len(values)) if values else None
