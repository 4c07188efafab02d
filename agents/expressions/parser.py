"""The expression language of rules and windows: parsing, limits and error positions.

A small subset of Python's expression syntax, parsed once into `agents.expressions.nodes` and never given to ``eval``::

    type == 'A' and value > 2 * last(a.value)      fields of the current event; events matched earlier, by step
    name in ('x', 'y') or 'ab' in name             membership; text in a list, object or text (startswith, ...)
    energy is not None and 0 < energy <= 10        null tests; chained comparisons
    `http-status` == 500 or active == true         any name, in backquotes; constants as in YAML and JSON

``step.field`` is the field of the last event matched to the step, null or not; ``sum mean min max count first last``
aggregate the values that are not null of all of the step's matched events, which never include the current event. A
step's own name denotes the current event outside of these functions. Any syntax that is not listed in this module is
rejected with its position.

Values follow the same rules in every evaluator (columns, single events, kernels): a comparison with null is false,
``!=`` included; NaN is null; a failed computation gives null; whole numbers of 64 bits stay exact; text and numbers are
unequal and have no order. docs/rules.md has a table of all types.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Collection
from typing import Final

from astrocyte.agents.expressions.lexer import end_of_braces, to_python
from astrocyte.agents.expressions.nodes import (
    Aggregate,
    And,
    Arith,
    Call,
    Compare,
    Constant,
    ExpressionError,
    Field,
    IsNull,
    Member,
    Negate,
    Node,
    Not,
    Or,
    Text,
    children,
    is_condition,
    moved,
    walk,
)
from astrocyte.schemas.declarations import member_field
from astrocyte.schemas.values.single import LEAST, MOST

__all__ = [
    "MATCH_AGGREGATES",
    "Aggregate",
    "And",
    "Arith",
    "Call",
    "Compare",
    "Constant",
    "ExpressionError",
    "Field",
    "IsNull",
    "Member",
    "Negate",
    "Node",
    "Not",
    "Or",
    "Text",
    "children",
    "parse",
    "parse_template",
    "walk",
]

MAX_CHARACTERS: Final = 2_000
MAX_NODES: Final = 256
MAX_DEPTH: Final = 32
MATCH_AGGREGATES: Final = frozenset({"sum", "mean", "min", "max", "count", "first", "last"})
"""Functions over the events that a partial match holds for a step."""

_UNFINISHED: Final = re.compile(r"(?:\b(?:and|or|not|in|is)|[-+*/%<>=,.]{1,2})$")
_FUNCTIONS: Final = {"abs": (1, 1), "sqrt": (1, 1), "log": (1, 1), "min": (2, 16), "max": (2, 16)}
_TEXT_TESTS: Final = ("startswith", "endswith", "contains")
_ARITHMETIC: Final = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%"}
_OTHER_OPERATORS: Final = {
    ast.RShift: "'>>'", ast.LShift: "'<<'", ast.BitAnd: "'&'", ast.BitOr: "'|'", ast.BitXor: "'^'", ast.Pow: "'**'",
    ast.FloorDiv: "'//'", ast.MatMult: "'@'", ast.Invert: "'~'",
}  # fmt: skip
_OTHER_FORMS: Final = {
    ast.Lambda: "lambda", ast.IfExp: "'if ... else'", ast.Subscript: "'[...]'", ast.List: "a list", ast.Dict: "'{...}'",
    ast.Set: "'{...}'", ast.Tuple: "a tuple", ast.ListComp: "a comprehension", ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "an f-string", ast.NamedExpr: "':='", ast.Starred: "'*'", ast.Await: "await",
    ast.Call: "a call with named arguments", ast.Attribute: "a field of a field",
}  # fmt: skip
_COMPARISONS: Final = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


def parse(
    text: str,
    *,
    steps: Collection[str] = (),
    own: str | None = None,
    bare_fields: bool = True,
    aggregates: Collection[str] = MATCH_AGGREGATES,
) -> Node:
    """Parse ``text`` into a node. Raises ExpressionError with the position of the error.

    ``steps`` are the names allowed before a dot, ``own`` the step whose current event is tested. With ``bare_fields``
    False (outputs of a match, which have no current event) every field must name its step. ``aggregates`` are the
    functions over several events; without ``steps`` they take expressions over plain fields.
    """
    return _Parser(text, steps, own, bare_fields, aggregates).parse()


def parse_template(
    text: str, *, steps: Collection[str] = (), bare_fields: bool = False, aggregates: Collection[str] = MATCH_AGGREGATES
) -> tuple[tuple[str, Node | None, str], ...]:
    """Parse ``"fell to {now.value:.1f}"`` into (literal text, expression or None, format specification) pieces.

    ``{{`` and ``}}`` are literal braces. Raises ExpressionError for an unclosed brace or a bad expression.
    """
    pieces: list[tuple[str, Node | None, str]] = []
    literal, index = "", 0
    while index < len(text):
        char = text[index]
        if char in "{}" and text[index : index + 2] == char * 2:
            literal, index = literal + char, index + 2
        elif char == "{":
            end = end_of_braces(text, index + 1)
            if end < 0:
                raise ExpressionError("this brace is never closed; write {{ for a literal brace", text, index)
            inside, _, spec = _without_format(text[index + 1 : end])
            try:
                format(1.0, spec)
            except ValueError:
                raise ExpressionError(
                    f"expected a number format such as .1f after the colon, got {spec!r}", text, index
                ) from None
            try:
                node = moved(parse(inside, steps=steps, bare_fields=bare_fields, aggregates=aggregates), index + 1)
            except ExpressionError as error:
                raise ExpressionError(error.reason, text, index + 1 + error.position) from None
            pieces.append((literal, node, spec))
            literal, index = "", end + 1
        elif char == "}":
            raise ExpressionError("this brace was never opened; write }} for a literal brace", text, index)
        else:
            literal, index = literal + char, index + 1
    if literal or not pieces:
        pieces.append((literal, None, ""))
    return tuple(pieces)


def _without_format(text: str) -> tuple[str, str, str]:
    """Expression, colon and number format of a piece in braces; a colon in a string or in backquotes is no format."""
    masked = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", lambda found: " " * len(found[0]), text)
    at = masked.find(":")
    return (text, "", "") if at < 0 else (text[:at], ":", text[at + 1 :])


class _Parser:
    def __init__(
        self,
        text: str,
        steps: Collection[str],
        own: str | None,
        bare_fields: bool,
        aggregates: Collection[str],
    ) -> None:
        self.text = text
        self.steps = frozenset(steps)
        self.own = own
        self.bare_fields = bare_fields
        self.aggregates = aggregates
        self.nodes = 0
        self.shift = 0
        self.in_aggregate = False

    def parse(self) -> Node:
        if len(self.text) > MAX_CHARACTERS:
            raise self.error(f"expected at most {MAX_CHARACTERS} characters, got {len(self.text)}", 0)
        flat, self.names = to_python(self.text)
        stripped = flat.strip()
        self.shift = len(flat) - len(flat.lstrip())
        if not stripped:
            raise self.error("the expression is empty; write a condition such as value > 3", 0)
        self.encoded = stripped.encode("utf-8", "surrogatepass")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(stripped, mode="eval")
        except SyntaxError as error:
            if end := _UNFINISHED.search(stripped):
                raise self.error(
                    f"not an expression: something is missing after {end[0]!r}", self.shift + end.start()
                ) from None
            raise self.error(f"not an expression: {error.msg}", self.shift + max((error.offset or 1) - 1, 0)) from None
        except (ValueError, RecursionError, MemoryError):
            raise self.error("not an expression (too deeply nested, or a null byte)", 0) from None
        return self.convert(tree.body, 0)

    def error(self, reason: str, position: int) -> ExpressionError:
        return ExpressionError(reason, self.text, position)

    def at(self, tree: ast.expr) -> int:
        return self.place(tree.col_offset)

    def place(self, offset: int) -> int:
        return self.shift + len(self.encoded[:offset].decode("utf-8", "surrogatepass"))

    def name(self, tree: ast.Name) -> str:
        """The name as it was written."""
        return self.names[self.at(tree)]

    def attribute(self, tree: ast.Attribute) -> str:
        """The name after the dot as it was written."""
        return self.names[self.attribute_at(tree)]

    def attribute_at(self, tree: ast.Attribute) -> int:
        """Position of the name after the dot."""
        assert tree.end_col_offset is not None
        return self.place(tree.end_col_offset) - len(tree.attr)

    def refuse(self, tree: ast.expr, reason: str) -> ExpressionError:
        return self.error(reason, self.at(tree))

    def convert(self, tree: ast.expr, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self.refuse(tree, f"too large: at most {MAX_NODES} parts and {MAX_DEPTH} levels are allowed")
        at, below = self.at(tree), depth + 1
        match tree:
            case ast.Constant(value):
                return self.constant(tree, value)
            case ast.Name():
                return self.bare(tree, self.name(tree))
            case ast.Attribute(ast.Name() as step):
                return self.dotted(tree, self.name(step), self.attribute(tree))
            case ast.UnaryOp(ast.Not(), operand):
                return Not(self.convert(operand, below), at=at)
            case ast.UnaryOp(ast.USub(), operand):
                inner = self.convert(operand, below)
                value = inner.value if isinstance(inner, Constant) else None
                if isinstance(value, int | float) and not isinstance(value, bool):
                    if isinstance(value, int) and value > -LEAST:
                        raise self.refuse(tree, f"expected an integer of at least {LEAST}, got a smaller one")
                    return Constant(-value, at=at)
                return Negate(self.number(tree, inner), at=at)
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                sides = [self.number(tree, self.convert(side, below)) for side in (left, right)]
                return Arith(_ARITHMETIC[type(op)], sides[0], sides[1], at=at)
            case ast.BoolOp(op, values):
                parts = tuple(self.convert(value, below) for value in values)
                self.check_parts(values, parts, "and" if isinstance(op, ast.And) else "or")
                return And(parts, at=at) if isinstance(op, ast.And) else Or(parts, at=at)
            case ast.Compare(left, ops, comparators):
                pairs = zip([left, *comparators[:-1]], ops, comparators, strict=True)
                tests = tuple(self.comparison(tree, a, op, b, below) for a, op, b in pairs)
                return tests[0] if len(tests) == 1 else And(tests, at=at)
            case ast.Call(func, args, []):
                return self.call(tree, func, args, below)
            case ast.Attribute(ast.Subscript(ast.Name() as step)) if self.name(step) in self.steps:
                field = f"{self.name(step)}.{self.attribute(tree)}"
                raise self.refuse(
                    tree, "'[...]' is not part of the rule language; of several events of a step write "
                    f"first({field}) or last({field})"
                )  # fmt: skip
            case _:
                raise self.refuse(
                    tree, f"{_named(tree)} is not part of the rule language; it has fields, and, or, not, "
                    "comparisons, + - * / %, in, is None and functions"
                )  # fmt: skip

    def check_parts(self, trees: list[ast.expr], parts: tuple[Node, ...], word: str) -> None:
        """Refuse ``room == 'a' or 'b'``, whose second part is always true."""
        for tree, part in zip(trees, parts, strict=True):
            if isinstance(part, Constant) and not isinstance(part.value, bool | None):
                raise self.refuse(
                    tree, f"{part.value!r} alone is not a condition; write a whole comparison on both sides of "
                    f"{word}, or field in ('a', 'b')"
                )  # fmt: skip

    def constant(self, tree: ast.Constant, value: object) -> Constant:
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refuse(tree, "expected a finite number, got an infinite one")
        if isinstance(value, int) and value > MOST:
            raise self.refuse(tree, f"expected an integer of 64 bits, up to {MOST}, got a larger one")
        if value is None or isinstance(value, bool | int | float | str):
            return Constant(value, at=self.at(tree))
        kind = type(value).__name__
        raise self.refuse(tree, f"expected a number, text, True, False or None, got a constant of type {kind}")

    def number(self, tree: ast.expr, node: Node) -> Node:
        if isinstance(node, Constant) and (node.value is None or isinstance(node.value, str)):
            raise self.refuse(tree, f"arithmetic: expected a number, got {node.value!r}")
        if is_condition(node):
            raise self.refuse(tree, "arithmetic: expected a number, got a condition; true and false are no numbers")
        return node

    def bare(self, tree: ast.Name, name: str) -> Node:
        if not self.bare_fields:
            if name in self.steps:
                raise self.refuse(tree, f"{name!r} is a step; name one of its fields ({name}.value) or count({name})")
            known = ", ".join(sorted(self.steps)) or "none"
            raise self.refuse(tree, f"field {name!r} does not name its step; write step.{name} (steps: {known})")
        return Field(None, name, at=self.at(tree))

    def dotted(self, tree: ast.Attribute, step: str, name: str) -> Node:
        if step not in self.steps:
            known, path = ", ".join(sorted(self.steps)) or "none", f"{step}.{name}"
            raise self.refuse(
                tree, f"unknown step {step!r} (steps here: {known}); a member of an object is a field if declared "
                f"under streams:, such as 'fields: {{{member_field(path)}: {{path: {path}}}}}'; a field with a dot in "
                f"its name is written in backquotes: `{path}`"
            )  # fmt: skip
        if step == self.own and not self.in_aggregate:
            return Field(None, name, at=self.attribute_at(tree))
        return Field(step, name, at=self.attribute_at(tree))

    def comparison(self, tree: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Node:
        at = self.at(left)
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self.refuse(tree, "'is' tests for None only; use == to compare")
            test = IsNull(self.convert(left, depth), at=at)
            return test if isinstance(op, ast.Is) else Not(test, at=at)
        if isinstance(op, ast.In | ast.NotIn):
            inside = self.membership(left, right, depth)
            return inside if isinstance(op, ast.In) else Not(inside, at=at)
        sides = self.convert(left, depth), self.convert(right, depth)
        nulls = [isinstance(side, Constant) and side.value is None for side in sides]
        if any(nulls):
            if all(nulls) or not isinstance(op, ast.Eq | ast.NotEq):
                raise self.refuse(tree, "a comparison with null is never true; write 'is None' or 'is not None'")
            # `note != null` has one meaning; as a comparison of values it would never be true.
            test = IsNull(sides[nulls.index(False)], at=at)
            return test if isinstance(op, ast.Eq) else Not(test, at=at)
        return Compare(_COMPARISONS[type(op)], sides[0], sides[1], at=at)

    def membership(self, left: ast.expr, right: ast.expr, depth: int) -> Node:
        at = self.at(left)
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            values = []
            for element in right.elts:
                node = self.convert(element, depth)
                if not isinstance(node, Constant) or node.value is None:
                    raise self.refuse(element, "the list after 'in' may hold constants only, and not None")
                values.append(node.value)
            return Member(self.convert(left, depth), tuple(values), at=at)
        part = self.convert(left, depth)
        if not (isinstance(part, Constant) and isinstance(part.value, str)):
            raise self.refuse(left, "'in' takes a text constant on the left or a list of constants on the right")
        return Text("in", self.convert(right, depth), part.value, at=at)

    def call(self, tree: ast.Call, func: ast.expr, args: list[ast.expr], depth: int) -> Node:
        at = self.at(tree)
        if isinstance(func, ast.Attribute) and self.attribute(func) in _TEXT_TESTS:
            return self.text_test(tree, self.attribute(func), [func.value, *args], depth)
        if not isinstance(func, ast.Name):
            raise self.refuse(tree, "only named functions can be called")
        name = self.name(func)
        if name in _TEXT_TESTS:
            return self.text_test(tree, name, args, depth)
        if name in self.aggregates and not (name in _FUNCTIONS and len(args) > 1):
            return self.aggregate(tree, name, args, depth)
        if name not in _FUNCTIONS:
            known = ", ".join(sorted({*_FUNCTIONS, *_TEXT_TESTS, *self.aggregates}))
            raise self.refuse(tree, f"unknown function {name!r} (known: {known})")
        least, most = _FUNCTIONS[name]
        if not least <= len(args) <= most:
            expected = "one argument" if most == 1 else f"{least} to {most} arguments"
            raise self.refuse(tree, f"{name}: expected {expected}, got {len(args)}")
        return Call(name, tuple(self.number(tree, self.convert(arg, depth)) for arg in args), at=at)

    def text_test(self, tree: ast.Call, name: str, args: list[ast.expr], depth: int) -> Node:
        nodes = [self.convert(arg, depth) for arg in args]
        if len(nodes) != 2 or not (isinstance(nodes[1], Constant) and isinstance(nodes[1].value, str)):
            raise self.refuse(tree, f"{name} takes a field and a text constant: {name}(field, 'text')")
        return Text(name, nodes[0], nodes[1].value, at=self.at(tree))

    def aggregate(self, tree: ast.Call, name: str, args: list[ast.expr], depth: int) -> Node:
        at = self.at(tree)
        if self.in_aggregate:
            raise self.refuse(tree, f"{name} cannot be nested in another aggregate function")
        if self.bare_fields and not self.steps:
            self.in_aggregate = True
            nodes = tuple(self.convert(arg, depth) for arg in args)
            self.in_aggregate = False
            return Aggregate(name, None, nodes, at=at)
        if len(args) != 1:
            raise self.refuse(tree, f"{name} takes one field of a step: {name}(step.field)")
        if name == "count" and isinstance(args[0], ast.Name) and self.name(args[0]) in self.steps:
            return Aggregate(name, self.name(args[0]), (), at=at)
        self.in_aggregate = True
        node = self.convert(args[0], depth)
        self.in_aggregate = False
        if not (isinstance(node, Field) and node.step is not None):
            raise self.refuse(tree, f"{name} aggregates the events of a step: write {name}(step.field)")
        return Aggregate(name, node.step, (node,), at=at)


def _named(tree: ast.expr) -> str:
    """What a part of an expression is, as its author wrote it."""
    if isinstance(tree, ast.BinOp | ast.UnaryOp):
        return _OTHER_OPERATORS.get(type(tree.op), type(tree.op).__name__)
    return _OTHER_FORMS.get(type(tree), type(tree).__name__)
