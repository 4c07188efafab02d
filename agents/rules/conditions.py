"""The expressions of entries of rule files, parsed, and the refusal of conditions that are never true."""

from __future__ import annotations

from typing import Any

from astrocyte.agents.expressions.nodes import ExpressionError, Node
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.rules.contradictions import never_holds
from astrocyte.agents.rules.problems import OfField, in_expression

__all__ = ["parsed", "parsed_where", "refuse_never"]


def parsed(field: str, text: str, **options: Any) -> Node:
    """The expression of a field, with the options of `parse`. Raises OfField."""
    try:
        return parse(text, **options)
    except ExpressionError as error:
        raise OfField(field, str(error)) from error


def parsed_where(text: str | None) -> Node | None:
    """The ``where`` of an entry that reads one event at a time. Raises OfField, which says where in it."""
    with in_expression("where"):
        return None if text is None else parsed("where", text, aggregates=())


def refuse_never(field: str, node: Node | None, effect: str) -> None:
    """Raises OfField for a condition that is never true, whose ``effect`` is named; None is always true."""
    reason = never_holds(node, effect)
    if reason is not None:
        raise OfField(field, reason)
