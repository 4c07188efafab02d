"""Expressions that can never be true, or have a value, by the types of the streams' fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from astrocyte.agents.expressions.kinds import Kind, Misread, misreads
from astrocyte.agents.expressions.nodes import MIRRORED, Aggregate, Compare, Constant, Field, Member, Node, Text, walk
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
    """What is wrong with an expression: each part that takes one kind of value for another, or a type's for others.

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
    for part in walk(node):
        for field, op, constant in _tests(part):
            kinds = declared(field.step, field.name) if field.name not in _ALWAYS else {None}
            if None not in kinds and all(_never(op, constant, str(kind)) for kind in kinds):
                yield KindProblem(
                    _never_message(part, field, named(field), constant, sorted(map(str, kinds))), field.at
                )


# -- one kind for another --------------------------------------------------------------------------------------------


def _message(found: Misread, streams: str, nested: Sequence[str]) -> str:
    """``nested``: the declared types of the field, where its values are lists or objects."""
    part, kind, wants = found.part, found.kind, _NAMES[found.wants]
    example = _example(part)
    if isinstance(part, Compare | Member):
        effect = "the two are never equal and have no order"
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
    if op == "==" and kind == "float32":
        with np.errstate(over="ignore"):
            return bool(float(np.float32(constant)) != constant)
    if op == "==" and kind == "float64":
        return bool(float(constant) != constant)
    if kind not in _RANGES:
        return False
    least, most = _RANGES[kind]
    if op == "==":
        return bool(constant != int(constant)) or not least <= constant <= most
    beyond = {"<": constant <= least, "<=": constant < least, ">": constant >= most, ">=": constant > most}
    return bool(beyond.get(op, False))


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
        nearest = float(np.float32(first)) if kinds[0] == "float32" else float(first)
        why = f"the nearest number of that type is {nearest!r}"
        advice = f"write a range, such as abs({name} - {first}) < 0.001" + (
            ", or declare float64" if kinds[0] == "float32" and float(first) == first else ""
        )
    return (
        f"{to_text(part)} is never true, since the field {name!r} of {streams} is declared as {kind}: {why}; {advice}"
    )
