"""A second, simple implementation of the expression language: exact arithmetic with fractions, one value at a time.

What the evaluators of `agents` do is compared with this. A value is None, a bool, an int, a float or a str.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from operator import eq, ge, gt, le, lt, ne
from typing import Any

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

Event = Mapping[str, Any]


def truth(node: Node, event: Event, prior: Mapping[str, Sequence[Event]] = {}) -> bool:
    """Whether a condition holds: its value is true, a number other than 0, or a string that is not empty."""
    return bool(value(node, event, prior))


def value(node: Node, event: Event, prior: Mapping[str, Sequence[Event]] = {}) -> Any:
    """Value of an expression for the current event and those matched earlier, by step."""

    def of(part: Node) -> Any:
        return value(part, event, prior)

    match node:
        case Constant(constant):
            return known(constant)
        case Field(None, name):
            return known(event.get(name))
        case Field(str() as step, name):
            return known(prior[step][-1].get(name)) if prior.get(step) else None
        case Aggregate(func, str() as step, args):
            return aggregate(func, prior.get(step, ()), [part.name for part in args if isinstance(part, Field)])
        case And(parts):
            return all(of(part) for part in parts)
        case Or(parts):
            return any(of(part) for part in parts)
        case Not(part):
            return not of(part)
        case IsNull(part):
            return of(part) is None
        case Compare(op, left, right):
            return compare(op, of(left), of(right))
        case Member(part, values):
            return any(compare("==", of(part), each) for each in values)
        case Text(func, part, text):
            found = of(part)
            tests: dict[str, Any] = {
                "in": lambda: text in looked_into(found),
                "contains": lambda: text in found,
                "startswith": lambda: found.startswith(text),
                "endswith": lambda: found.endswith(text),
            }
            return isinstance(found, str) and bool(tests[func]())
        case Arith(op, left, right):
            return arith(op, of(left), of(right))
        case Negate(part):
            return arith("-", 0, of(part))
        case Call(func, args):
            return call(func, [of(arg) for arg in args])
    raise TypeError(node)


def known(found: Any) -> Any:
    """A field's value: NaN is null, an integer beyond 64 bits is a float."""
    if isinstance(found, float) and math.isnan(found):
        return None
    if isinstance(found, int) and not -(2**63) <= found < 2**64:
        return float(found)
    return found


def kind(found: Any) -> str:
    """Kind of a value that is not null."""
    return "boolean" if isinstance(found, bool) else "text" if isinstance(found, str) else "number"


def compare(op: str, a: Any, b: Any) -> bool:
    """Comparison with null is false; different kinds are unequal and have no order; otherwise as in mathematics."""
    if a is None or b is None:
        return False
    if kind(a) != kind(b):
        return op == "!="
    test: dict[str, Any] = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}
    return bool(test[op](a, b))


def is_whole(number: float) -> bool:
    """A whole number of 64 bits."""
    return math.isfinite(number) and Fraction(number).denominator == 1 and -(2**63) <= number < 2**64


def arith(op: str, a: Any, b: Any) -> Any:
    """Exact for whole numbers of 64 bits as long as the result is one; otherwise in float64."""
    if a is None or b is None or {kind(a), kind(b)} != {"number"} or (op in "/%" and b == 0):
        return None
    operations = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "/": lambda x, y: x / y,
                  "%": lambda x, y: x % y}  # fmt: skip
    if op != "/" and is_whole(a) and is_whole(b):
        exact = operations[op](Fraction(a), Fraction(b))
        if is_whole(exact):
            return int(exact)
    found = operations[op](float(a), float(b))
    return None if math.isnan(found) else found


def call(func: str, args: list[Any]) -> Any:
    """Functions of numbers; null where an argument is none."""
    if any(each is None or kind(each) != "number" for each in args):
        return None
    first = args[0]
    match func:
        case "abs":
            return arith("-", 0, first) if first < 0 else first
        case "sqrt":
            return math.sqrt(float(first)) if first >= 0 else None
        case "log":
            return math.log(float(first)) if first > 0 else None
    return min(args) if func == "min" else max(args)


def aggregate(func: str, events: Sequence[Event], names: list[str]) -> Any:
    """Over the events of a step; nulls are skipped, and so is what is no number where numbers are expected."""
    if not names:
        return len(events)
    found = [known(event.get(names[0])) for event in events]
    there = [each for each in found if each is not None]
    if func in ("first", "last"):
        return None if not there else there[0 if func == "first" else -1]
    if func == "count":
        return len(there)
    numbers = [each for each in there if kind(each) == "number"]
    match func:
        case "sum":
            return total(numbers)
        case "mean":
            return arith("/", total(numbers), len(numbers))
    return None if not numbers else min(numbers) if func == "min" else max(numbers)


def total(numbers: list[Any]) -> Any:
    """The exact sum, if all are whole and it is too; otherwise a float64, after each step exact to 106 bits."""
    if all(is_whole(each) for each in numbers):
        exact = sum(int(each) for each in numbers)
        if is_whole(exact):
            return exact
    if not all(math.isfinite(each) for each in numbers):
        return known(sum(float(each) for each in numbers))
    high = low = 0.0
    for each in numbers:
        rest = Fraction(each) - Fraction(float(each))
        if not math.isfinite(high + float(each)):
            return high + float(each) if math.isfinite(high) else high
        lost = Fraction(high) + Fraction(float(each)) - Fraction(high + float(each))
        low += float(rest) + float(lost)
        high, low = two_sum(high + float(each), low)
    both = Fraction(high) + Fraction(low)
    return int(both) if low and float(low).is_integer() and high.is_integer() and is_whole(both) else high


def two_sum(high: float, low: float) -> tuple[float, float]:
    """The nearest float64 of ``high + low``, and what it loses."""
    found = high + low
    return found, float(Fraction(high) + Fraction(low) - Fraction(found))


def looked_into(text: str) -> Any:
    """The list or object whose JSON text it is, else the text."""
    try:
        found = json.loads(text, parse_constant=_refused)
    except ValueError:
        return text
    return found if isinstance(found, list | dict) else text


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
