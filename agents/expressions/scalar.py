"""Expressions over single events: closures built once, called with plain mappings.

Used where an event comes alone (`eventual` matching of one event, emit values, alert texts, why-not). Values follow
the rules of `agents.expressions.parser`; text and numbers never compare.
"""
# ruff: noqa: ARG001, ARG005  every closure has the one signature (event, prior), whichever it reads

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
_ARITH: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def compile_scalar(node: Node) -> Evaluate:
    """Closure ``(event, prior) -> value`` of the expression; a missing field, NaN or a failed computation is None."""
    match node:
        case Constant(value):
            return lambda event, prior: value
        case Field(None, name):
            return lambda event, prior: _clean(event.get(name))
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
            texts = frozenset(each for each in values if isinstance(each, str))
            numbers = frozenset(each for each in values if not isinstance(each, str))
            return lambda event, prior: _member(inner(event, prior), texts, numbers)
        case Text(func, value, part):
            return _text(func, compile_scalar(value), part)
        case Arith(op, left, right):
            a, b, compute = compile_scalar(left), compile_scalar(right), _ARITH[op]
            return lambda event, prior: _compute(compute, a(event, prior), b(event, prior))
        case Negate(value):
            inner = compile_scalar(value)
            return lambda event, prior: _compute(lambda x: -x, inner(event, prior))
        case Call(func, args):
            return _call(func, [compile_scalar(arg) for arg in args])
    raise TypeError(f"{type(node).__name__} cannot be evaluated over single events")


def render(pieces: tuple[tuple[str, Node | None, str], ...], prior: Prior) -> str:
    """Text of a template (`agents.expressions.parser.parse_template`) for one match; null renders as ``null``."""
    texts = []
    for literal, node, spec in pieces:
        texts.append(literal)
        if node is not None:
            value = compile_scalar(node)({}, prior)
            plain = value is None or isinstance(value, bool | str)
            texts.append(("null" if value is None else str(value)) if plain else format(value, spec))
    return "".join(texts)


def _clean(value: Any) -> Any:
    return None if value is None or value != value else value  # noqa: PLR0124  NaN is the only value unequal to itself


def _last(events: Sequence[Event], name: str) -> Any:
    return _clean(events[-1].get(name)) if events else None


def _compute(function: Callable[..., Any], *values: Any) -> Any:
    for value in values:
        if value is None or isinstance(value, str):
            return None
    try:
        return _clean(function(*values))
    except (ArithmeticError, ValueError, TypeError):
        return None


def _comparison(op: str, left: Node, right: Node) -> Evaluate:
    compare = _COMPARE[op]
    a, b = compile_scalar(left), compile_scalar(right)
    if isinstance(left, Field) and left.step is None and isinstance(right, Constant):
        # The commonest condition, without a second call: field against a constant.
        name, constant = left.name, right.value
        kind = str if isinstance(constant, str) else (int, float)

        def test(event: Event, prior: Prior) -> bool:
            value = event.get(name)
            return isinstance(value, kind) and value == value and compare(value, constant)  # noqa: PLR0124

        return test

    def general(event: Event, prior: Prior) -> bool:
        x, y = a(event, prior), b(event, prior)
        if x is None or y is None or isinstance(x, str) is not isinstance(y, str):
            return False
        try:
            return bool(compare(x, y))
        except TypeError:
            return False

    return general


def _member(value: Any, texts: frozenset[str], numbers: frozenset[Any]) -> bool:
    if isinstance(value, str):
        return value in texts
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
    functions: dict[str, Callable[..., Any]] = {"abs": abs, "sqrt": math.sqrt, "log": math.log, "min": min, "max": max}
    compute = functions[func]
    return lambda event, prior: _compute(compute, *(arg(event, prior) for arg in args))


def _aggregate(func: str, step: str, args: tuple[Node, ...]) -> Evaluate:
    if not args:
        return lambda event, prior: len(prior.get(step, ()))
    (argument,) = args
    assert isinstance(argument, Field)
    name = argument.name

    def values(prior: Prior) -> list[Any]:
        found = [_clean(event.get(name)) for event in prior.get(step, ())]
        return [value for value in found if value is not None]

    def numbers(prior: Prior) -> list[Any]:
        return [value for value in values(prior) if not isinstance(value, str)]

    match func:
        case "count":
            return lambda event, prior: len(values(prior))
        case "first":
            return lambda event, prior: _clean(prior[step][0].get(name)) if prior.get(step) else None
        case "last":
            return lambda event, prior: _last(prior.get(step, ()), name)
        case "sum":
            return lambda event, prior: sum(numbers(prior))
        case "mean":
            return lambda event, prior: _mean(numbers(prior))
        case "min" | "max":
            pick = min if func == "min" else max
            return lambda event, prior: pick(numbers(prior), default=None)
    raise ValueError(f"{func} does not go over the events of a match")


def _mean(values: list[Any]) -> Any:
    return sum(values) / len(values) if values else None
