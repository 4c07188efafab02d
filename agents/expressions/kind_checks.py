"""Expressions that take one kind of value for another, or can never be true, by the types of the streams' fields.

A part that compares or computes with values of two kinds is a confusion wherever it stands, and the message says what
that part gives. A comparison of the right kind that no value of the type fulfils is reported only where the whole
condition needs it: as one alternative of several, or under ``not``, it does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from astrocyte.agents.expressions.kinds import Kind, Misread, misreads
from astrocyte.agents.expressions.nodes import (
    MIRRORED,
    Aggregate,
    And,
    Arith,
    Call,
    Compare,
    Constant,
    Field,
    Member,
    Negate,
    Node,
    Or,
    Text,
    children,
)
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.schemas.catalog import CATALOG, NUMBERS, FieldType
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.times import time_us

__all__ = ["KindProblem", "kind_problems", "types_of"]

_ALWAYS: Final[Mapping[str, Kind]] = {"key": "text", "type": "text", "timestamp": "number"}
"""Kinds of fields of every event, whatever their values were in the message."""
_KINDS: Final[Mapping[str, Kind]] = {
    "string": "text", "json": "text", "list<float32>": "text", "bool": "bool", **dict.fromkeys(NUMBERS, "number")
}  # fmt: skip
_NESTED: Final = frozenset({"json", "list<float32>"})
_NAMES: Final[Mapping[Kind, str]] = {"number": "a number", "text": "text", "bool": "a truth value"}
_RANGES: Final = {"int64": (-(2**63), 2**63 - 1), "int32": (-(2**31), 2**31 - 1)}

Types = Mapping[str, Mapping[str, FieldType]]
"""Types of the declared fields, by stream and name."""


def types_of(stream: str, types: Types) -> Mapping[str, FieldType]:
    """Known types of the fields of a stream: those of its declaration, else of the catalog."""
    if stream in types:
        return types[stream]
    event_type = CATALOG.find(stream)
    return event_type.fields if event_type is not None else {}


class KindProblem(NamedTuple):
    """What is wrong, with what to do, and the position of the field (or of the expression) in the text."""

    message: str
    at: int


def kind_problems(
    node: Node | None, streams_of: Callable[[str | None], Collection[str]], types: Types
) -> Iterator[KindProblem]:
    """What is wrong with an expression: parts that take one kind of value for another, and what its type excludes.

    ``streams_of`` gives the streams of a step, and for None those of the event itself. What one stream of several may
    fulfil is not reported.
    """
    if node is None:
        return

    def declared(step: str | None, name: str) -> set[FieldType | None]:
        return {types_of(stream, types).get(name) for stream in streams_of(step)}

    def kind_of(step: str | None, name: str) -> Kind | None:
        if name in _ALWAYS:
            return _ALWAYS[name]
        kinds = {None if each is None else _KINDS.get(each) for each in declared(step, name)}
        return kinds.pop() if len(kinds) == 1 else None

    def named(field: Field | None) -> str:
        return "/".join(streams_of(None if field is None else field.step))

    for found in misreads(node, kind_of):
        kinds = set() if found.field is None else declared(found.field.step, found.field.name)
        nested = sorted(map(str, kinds)) if kinds and kinds <= _NESTED else []
        yield KindProblem(_message(found, named(found.field), nested), (found.field or found.part).at)

    def excluded(part: Node) -> KindProblem | None:
        for field, op, constant in _tests(part):
            kinds = declared(field.step, field.name) if field.name not in _ALWAYS else {None}
            if None not in kinds and all(_never(op, constant, str(kind)) for kind in kinds):
                message = _never_message(part, field, named(field), constant, sorted(map(str, kinds)))
                return KindProblem(message, field.at)
        return None

    yield from _needed(node, excluded)


def _needed(node: Node, excluded: Callable[[Node], KindProblem | None]) -> Iterator[KindProblem]:
    """Problems of the parts without which a condition does not hold, or of the conditions inside a computed value."""
    match node:
        case And(parts):
            for part in parts:
                yield from _needed(part, excluded)
        case Or(parts):
            found = [list(_needed(part, excluded)) for part in parts]
            if all(found):
                yield from (problem for each in found for problem in each)
        case Aggregate() | Call() | Arith() | Negate():
            for part in children(node):
                yield from _needed(part, excluded)
        case _:
            problem = excluded(node)
            if problem is not None:
                yield problem


# -- one kind for another --------------------------------------------------------------------------------------------


def _message(found: Misread, streams: str, nested: Sequence[str]) -> str:
    """``nested``: the declared types of the field, where its values are lists or objects."""
    part, kind, wants = found.part, found.kind, _NAMES[found.wants]
    example = _example(part)
    if isinstance(part, Member):
        effect = "the two are never equal, so that it is never true"
    elif isinstance(part, Compare) and part.op == "!=":
        effect = "the two are never equal, so that it is true wherever both have a value"
    elif isinstance(part, Compare):
        effect = "the two are never equal and have no order, so that it is never true"
    elif isinstance(part, Text):
        effect = "the test is always false"
    elif isinstance(part, Aggregate):
        effect = "text takes no part in it" if kind == "text" else "truth values take no part in it"
    else:
        effect = "the result is always null"
    if found.field is None:
        return f"{to_text(part)} takes {_NAMES[kind]} for {wants}: {effect}"
    name = found.field.name
    if name in _ALWAYS and kind == "text":
        advice = f"; compare it with text, such as {str(example)!r}" if example is not None else ""
        return f"{to_text(part)} takes {name!r}, which is always text, for {wants}: {effect}{advice}"
    if name in _ALWAYS:
        return (
            f"{to_text(part)} compares {name!r}, which is a number of microseconds since 1970 (UTC), with {wants}: "
            f"{effect}; write the time as such a number{_as_time(example)}"
        )
    compared = isinstance(part, Compare | Member | Text)
    if nested:
        declared = " or ".join(nested)
        return (
            f"{to_text(part)} takes the field {name!r} of {streams}, which is declared as {declared} and in "
            f"expressions the JSON text of its values, for {wants}: {effect}; declare the type that its values have, "
            f"or a member as a field of its own, such as '{name}_size: {{path: {name}.size, type: float64}}'"
        )
    if kind == "text" and found.wants == "number":
        other = ", or compare it with text" if compared else ""
        return (
            f"{to_text(part)} takes the field {name!r} of {streams}, which is declared as text, for a number: "
            f"{effect}; if its text writes numbers declare '{name}: {{type: float64, text: true}}'{other}"
        )
    of = {"number": "a number", "text": "declared as text", "bool": "declared as bool"}[kind]
    if not compared:
        advice = "count the events for which it is true, with count_if" if isinstance(part, Aggregate) else ""
        advice = advice or "a truth value is a condition of its own"
        return f"{to_text(part)} computes with the field {name!r} of {streams}, which is {of}: {effect}; {advice}"
    return (
        f"{to_text(part)} compares the field {name!r} of {streams}, which is {of}, with {wants}: {effect}; "
        f"{_advice(found, name)}"
    )


def _advice(found: Misread, name: str) -> str:
    """What to compare a field with, according to its kind."""
    part, example = found.part, _example(found.part)
    if found.kind == "bool":
        if example is None or (isinstance(part, Compare) and part.op != "=="):
            return "compare it with true or false"
        return f"write {name} == {'false' if example in (0, '0', 'false', 'False') else 'true'}"
    if isinstance(part, Text):
        return "only text can be tested so"
    if found.kind == "number":
        return "write the number without quotation marks" if found.wants == "text" else "compare it with a number"
    return "compare it with text" + ("" if example is None else f", such as {str(example).lower()!r}")


def _example(part: Node) -> int | float | str | bool | None:
    """The first constant with which a part compares."""
    if isinstance(part, Compare):
        sides = [side.value for side in (part.left, part.right) if isinstance(side, Constant)]
        return sides[0] if sides else None
    return part.values[0] if isinstance(part, Member) else None


def _as_time(given: object) -> str:
    try:
        return f", such as {time_us(given)}" if isinstance(given, str) else ""
    except InvalidEvent:
        return ""


# -- values that a declared type does not have -----------------------------------------------------------------------


def _tests(part: Node) -> Iterator[tuple[Field, str, int | float | bool | tuple[Any, ...]]]:
    """A field of a comparison with a constant, the operator (also ``in``), and the constant or those of the list."""
    match part:
        case Compare(op, Field() as field, Constant(int() | float() as value)):
            yield field, op, value
        case Compare(op, Constant(int() | float() as value), Field() as field):
            yield field, MIRRORED[op], value
        case Member(Field() as field, values) if values:
            yield field, "in", values


def _never(op: str, constant: Any, kind: str) -> bool:
    """Whether no value of a declared type fulfils a comparison with a constant of its own kind."""
    if op == "in":
        numbers = [value for value in constant if isinstance(value, int | float) and not isinstance(value, bool)]
        return bool(numbers) and len(numbers) == len(constant) and all(_never("==", each, kind) for each in numbers)
    if isinstance(constant, bool):
        return kind == "bool" and (op, constant) in ((">", True), ("<", False))
    if op == "==" and kind in ("float32", "float64"):
        return bool(_nearest(constant, kind) != constant)
    if kind not in _RANGES:
        return False
    least, most = _RANGES[kind]
    if op == "==":
        return bool(constant != int(constant)) or not least <= constant <= most
    beyond = {"<": constant <= least, "<=": constant < least, ">": constant >= most, ">=": constant > most}
    return bool(beyond.get(op, False))


def _nearest(number: float, kind: str) -> float:
    """The nearest number of a floating-point type, infinite beyond its range."""
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(number)) if kind == "float32" else float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def _tolerance(number: float, nearest: float, kind: str) -> str:
    """A power of ten that is small beside a number, and more than what its type rounds away of it."""
    digits = 6 if kind == "float32" else 12
    small = math.floor(math.log10(abs(number))) - digits
    rounded = abs(nearest - number)
    least = math.floor(math.log10(rounded)) + 1 if rounded else small
    return f"{10.0 ** max(small, least):g}"


def _never_message(part: Node, field: Field, streams: str, constant: Any, kinds: list[str]) -> str:
    kind, name = " or ".join(kinds), field.name
    first = constant[0] if isinstance(constant, tuple) else constant
    if isinstance(first, bool):
        why, advice = "false comes before true, and there is nothing beyond", f"write {name} or not {name}"
    elif kinds[0].startswith("int") and first == int(first):
        why = "its numbers are " + " and ".join(f"from {_RANGES[each][0]} to {_RANGES[each][1]}" for each in kinds)
        advice = "compare it with one of these, or declare a larger type"
    elif kinds[0].startswith("int"):
        why, advice = "its numbers are whole", "compare it with a whole number, or declare float64"
    else:
        nearest = _nearest(first, kinds[0])
        wider = ", or declare float64" if kinds[0] == "float32" and _nearest(first, "float64") == first else ""
        if math.isinf(nearest):
            most = float(np.finfo(kinds[0]).max)
            why, advice = f"its numbers are from {-most!r} to {most!r}", f"compare it with one of these{wider}"
        else:
            why = f"the nearest number of that type is {nearest!r}"
            advice = f"write a range, such as abs({name} - {first}) < {_tolerance(first, nearest, kinds[0])}{wider}"
    return (
        f"{to_text(part)} is never true, since the field {name!r} of {streams} is declared as {kind}: {why}; {advice}"
    )
