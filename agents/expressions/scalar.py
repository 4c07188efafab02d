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

from astrocyte.agents.expressions.inside import holds
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
            constant = clean(value)
            return lambda event, prior: constant
        case Field(None, name):
            return lambda event, prior: clean(event.get(name))
        case Field(str() as step, name):
            return lambda event, prior: _newest(prior.get(step, ()), name)
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
            kinds = {kind: frozenset(each for each in values if _kind(each) is kind) for kind in (str, bool, float)}
            return lambda event, prior: (found := inner(event, prior)) is not None and found in kinds[_kind(found)]
        case Text(func, value, part):
            return _text(func, compile_scalar(value), part)
        case Arith(op, left, right):
            a, b = compile_scalar(left), compile_scalar(right)
            return lambda event, prior: arithmetic(op, a(event, prior), b(event, prior))
        case Negate(value):
            inner = compile_scalar(value)
            return lambda event, prior: arithmetic("-", 0, inner(event, prior))
        case Call("present", (value,)):
            inner = compile_scalar(value)
            return lambda event, prior: int(inner(event, prior) is not None)
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


def _newest(events: Sequence[Event], name: str) -> Any:
    return clean(events[-1].get(name)) if events else None


def _kind(value: Any) -> type[str | bool | float]:
    """Kind of a value that is not null: str, bool or float (any number)."""
    kind = type(value)
    return str if kind is str else bool if kind is bool else float


def _comparison(op: str, left: Node, right: Node) -> Evaluate:
    compare = _COMPARE[op]
    a, b = compile_scalar(left), compile_scalar(right)
    unequal = op == "!="

    def general(event: Event, prior: Prior) -> bool:
        x, y = a(event, prior), b(event, prior)
        if x is None or y is None:
            return False
        return compare(x, y) if _kind(x) is _kind(y) else unequal

    if isinstance(left, Field) and left.step is None and isinstance(right, Constant) and _is_ordinary(right.value):
        # The most frequent condition, field against constant, without nested calls.
        name, constant = left.name, right.value
        kinds: tuple[type, ...] = (int, float) if _kind(constant) is float else (_kind(constant),)

        def test(event: Event, prior: Prior) -> bool:
            value = event.get(name)
            if type(value) in kinds:
                return value == value and compare(value, constant)  # noqa: PLR0124  NaN is unequal to itself
            return value is not None and general(event, prior)

        return test

    return general


def _is_ordinary(constant: object) -> bool:
    """Whether integers beyond 64 bits compare with the constant as the nearest floats do."""
    return constant is not None and (isinstance(constant, str) or abs(constant) < EXACT)  # type: ignore[arg-type]


def _text(func: str, value: Evaluate, part: str) -> Evaluate:
    tests: dict[str, Callable[[str, str], bool]] = {
        "in": holds,
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
        return compute(*values) if all(value is not None and _kind(value) is float for value in values) else None

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
        return [value for value in values(prior) if _kind(value) is float]

    match func:
        case "count":
            return lambda event, prior: len(values(prior))
        case "first":
            return lambda event, prior: next(iter(values(prior)), None)
        case "last":
            return lambda event, prior: next(reversed(values(prior)), None)
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
