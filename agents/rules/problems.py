"""Problems in rules, as values: place (file, line, column, rule, field) and message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from astrocyte.agents.expressions.nodes import ExpressionError
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.registry import did_you_mean

__all__ = [
    "InvalidRules",
    "Location",
    "RuleProblem",
    "about",
    "combined",
    "in_expression",
    "problems_of",
    "shown",
    "unknown",
]

T = TypeVar("T")
Location = tuple[str | int, ...]
_SAID: Final = 50
_LONGEST: Final = 2000
"""Problems that the text of an error names, and characters of each."""


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """One problem; line and column count from 1, ``path`` leads to the value inside its rule.

    ``rule`` is the name of the rule, or of the entry of another list; ``kind`` says which it is (window, validator).
    """

    message: str
    rule: str | None = None
    field: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: Location = ()
    kind: str = "rule"
    position: int | None = None
    """Where the path leads to an expression: the index of the character that is meant."""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        named = f"{self.kind} {self.rule!r}" if self.rule else ""
        return ": ".join(part for part in (place, named, self.field, self.message) if part)


class InvalidRules(InvalidRule):
    """One or more problems in rules; ``problems`` holds them as values."""

    def __init__(self, problems: list[RuleProblem]) -> None:
        lines = [
            line if len(line := str(problem)) <= _LONGEST else f"{line[:_LONGEST]}..." for problem in problems[:_SAID]
        ]
        if len(problems) > _SAID:
            lines.append(f"and {len(problems) - _SAID:,} more problems")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


class _InExpression(ValueError):
    """What is wrong with an expression of an entry, for pydantic to hand on."""

    def __init__(self, message: str, path: Location, position: int | None) -> None:
        super().__init__(message)
        self.path = path
        self.position = position


@contextmanager
def in_expression(*path: str | int) -> Iterator[None]:
    """A ValueError of the block concerns the expression at this path of the entry; its cause may say where in it."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, _InExpression):
            raise
        position = error.__cause__.position if isinstance(error.__cause__, ExpressionError) else None
        raise _InExpression(str(error), path, position) from error


@contextmanager
def about(*, rule: str | None = None, field: str = "") -> Iterator[None]:
    """Errors of the block concern this rule and field, unless they name another field."""
    try:
        yield
    except InvalidRule as error:
        found = error.problems if isinstance(error, InvalidRules) else (RuleProblem(str(error)),)
        raise InvalidRules(
            [replace(each, rule=each.rule or rule, field=each.field or field) for each in found]
        ) from None


def problems_of(
    error: ValidationError, *, rule: str | None = None, kind: str = "rule", known: Collection[str] = ()
) -> list[RuleProblem]:
    """Problems of a validation error; ``known`` are the field names to suggest for a misspelled one."""
    problems = []
    for detail in error.errors():
        if detail["type"] == "too_short" and detail["input"]:
            continue  # repeats a problem of an element of the list
        path = tuple(part for part in detail["loc"] if part not in ("step", "group"))
        message = _message(detail, path, known)
        if path[-1:] == ("[key]",):
            path, message = path[:-2], f"the name of an entry: {message}"
        field = ".".join(str(part) for part in path)
        error_of = detail.get("ctx", {}).get("error")
        position = None
        if isinstance(error_of, _InExpression):
            path, position = (*path, *error_of.path), error_of.position
        problems.append(RuleProblem(message, rule=rule, kind=kind, field=field, path=path, position=position))
    return problems


def combined(sets: Callable[[], T]) -> T:
    """What ``sets`` makes of the parts of several rule sets. Raises InvalidRules in the words of `problems_of`."""
    try:
        return sets()
    except ValidationError as error:
        raise InvalidRules(problems_of(error)) from None


def _message(detail: Mapping[str, Any], path: Location, known: Collection[str]) -> str:
    kind, value, limits = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return unknown(str(path[-1]), known)
        case "missing":
            return "is missing"
        case "value_error":
            return str(limits["error"])
        case "literal_error":
            return f"expected {limits['expected']}, got {shown(value)}"
        case "string_pattern_mismatch":
            return f"expected a name of letters, digits, _, . and - that begins with a letter or _, got {shown(value)}"
        case "string_too_short":
            return "is empty; write a name"
        case "too_short":
            return "is empty; give at least one entry"
        case "int_parsing" | "int_from_float" | "int_type":
            return f"expected a whole number, got {shown(value)}"
        case _ if kind in _EXPECTED:
            hint = ""
            if kind in ("string_type", "tuple_type") and isinstance(value, bool):
                hint = "; YAML reads yes, no, on, off, true and false as booleans: put the word in quotation marks"
            elif kind == "string_type" and value is not None and not isinstance(value, dict | list | tuple):
                hint = "; put it in quotation marks"
            return f"expected {_EXPECTED[kind]}, got {shown(value)}{hint}"
        case _:
            # pydantic's words: "Input should be less than or equal to 1"
            return f"{str(detail['msg']).replace('Input should be', 'expected a value')}, got {shown(value)}"


_EXPECTED: Final = {
    "string_type": "text", "bool_type": "true or false", "bool_parsing": "true or false", "dict_type": "a mapping",
    "mapping_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping", "list_type": "a list",
    "tuple_type": "a name or a list", "float_type": "a number", "float_parsing": "a number",
}  # fmt: skip


def shown(value: object) -> str:
    """A value as YAML writes it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def unknown(name: str, known: Collection[str]) -> str:
    """Message about an unknown field, with a suggestion: another name, where the field is known elsewhere only."""
    return f"unknown field {name!r}{did_you_mean(name, [str(each) for each in known if each != name])}"
