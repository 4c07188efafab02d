"""Expressions back to text, for explanations and diagrams."""

from __future__ import annotations

from astrocyte.agents.expressions.lexer import is_name
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
    children,
)

__all__ = ["to_text"]

_ATOMIC = (Constant, Field, Aggregate, Call, Text)


def to_text(node: Node) -> str:
    """The expression in the rule language; `agents.expressions.parser.parse` reads it as an equal node."""
    match node:
        case Constant(value):
            return repr(value)
        case Field(step, name):
            written = name if is_name(name) else f"`{name}`"
            return written if step is None else f"{step}.{written}"
        case Aggregate(func, step, ()) if step is not None:
            return f"{func}({step})"
        case Aggregate(func, _, args) | Call(func, args):
            return f"{func}({', '.join(to_text(arg) for arg in args)})"
        case Arith(op, left, right) | Compare(op, left, right):
            return f"{_inside(left)} {op} {_inside(right)}"
        case And(parts):
            return " and ".join(_inside(part) for part in parts)
        case Or(parts):
            return " or ".join(_inside(part) for part in parts)
        case Not(IsNull(value)):
            return f"{_inside(value)} is not None"
        case Not(value):
            return f"not {_inside(value)}"
        case Negate(value):
            return f"-{_inside(value)}"
        case IsNull(value):
            return f"{_inside(value)} is None"
        case Member(value, values):
            return f"{_inside(value)} in ({', '.join(repr(each) for each in values)}{',' if len(values) == 1 else ''})"
        case Text("in", value, part):
            return f"{part!r} in {_inside(value)}"
        case Text(func, value, part):
            return f"{func}({to_text(value)}, {part!r})"
    raise TypeError(f"expected a node of an expression, got {type(node).__name__}")


def _inside(node: Node) -> str:
    text = to_text(node)
    atomic = isinstance(node, _ATOMIC) and not (isinstance(node, Text) and node.func == "in")
    return text if atomic or not children(node) else f"({text})"
