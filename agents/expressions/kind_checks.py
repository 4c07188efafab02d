"""Expressions that take text for a number, or a number for text, found by the types of the streams' fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple

from astrocyte.agents.expressions.kinds import Kind, Misread, misreads
from astrocyte.agents.expressions.nodes import Aggregate, Compare, Constant, Member, Node
from astrocyte.agents.expressions.unparse import to_text
from astrocyte.schemas.catalog import CATALOG, NUMBERS, FieldType

__all__ = ["KindProblem", "kind_problems", "types_of"]

_ALWAYS_TEXT: Final = ("key", "type")
"""Fields of every event that are text, whatever their values were in the message."""
_KINDS: Final[Mapping[str, Kind]] = {"string": "text", "json": "text", **dict.fromkeys(NUMBERS, "number")}

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
    """What is wrong with an expression: each part that takes one kind of value for the other.

    ``streams_of`` gives the streams of a step, and for None those of the event itself. What one stream of several may
    fulfil is not reported.
    """

    def kind_of(step: str | None, name: str) -> Kind | None:
        if name in _ALWAYS_TEXT:
            return "text"
        kinds = {_KINDS.get(types_of(stream, types).get(name, "bool")) for stream in streams_of(step)}
        return kinds.pop() if len(kinds) == 1 else None

    for found in misreads(node, kind_of) if node is not None else ():
        message = _message(found, "/".join(streams_of(None if found.field is None else found.field.step)))
        yield KindProblem(message, (found.field or found.part).at)


def _message(found: Misread, streams: str) -> str:
    part = found.part
    compared = isinstance(part, Compare | Member)
    effect = "the two are never equal and have no order" if compared else "the result is always null"
    effect = "text takes no part in it" if isinstance(part, Aggregate) else effect
    if found.field is None:
        return f"{to_text(part)} takes text for a number: {effect}"
    name = found.field.name
    if found.wants == "text":
        return (
            f"{to_text(part)} compares the field {name!r} of {streams}, which is a number, with text: {effect}; "
            "write the number without quotation marks"
        )
    if name in _ALWAYS_TEXT:
        example = _text_of(part)
        advice = f"; compare it with text, such as {example!r}" if example is not None else ""
        return f"{to_text(part)} takes {name!r}, which is always text, for a number: {effect}{advice}"
    other = ", or compare it with text" if compared else ""
    return (
        f"{to_text(part)} takes the field {name!r} of {streams}, which is declared as text, for a number: {effect}; "
        f"if its text writes numbers declare '{name}: {{type: float64, text: true}}'{other}"
    )


def _text_of(part: Node) -> str | None:
    """The number that a part compares with, as text."""
    if isinstance(part, Compare):
        sides = [side.value for side in (part.left, part.right) if isinstance(side, Constant)]
        return str(sides[0]) if sides else None
    return str(part.values[0]) if isinstance(part, Member) else None
