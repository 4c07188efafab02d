"""Problems in rules, as values: place (file, line, column, rule, field) and message."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, get_args, get_origin

from pydantic import AliasChoices, BaseModel, Tag, ValidationError

from astrocyte.agents.expressions.nodes import ExpressionError
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.registry import did_you_mean

__all__ = [
    "InvalidRules",
    "Location",
    "OfField",
    "RuleProblem",
    "about",
    "in_expression",
    "problems_of",
    "shown",
    "unknown",
]

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


class OfField(ValueError):
    """What is wrong with a field of an entry; its text begins with the field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class _InExpression(OfField):
    """What is wrong with an expression of an entry, for pydantic to hand on."""

    def __init__(self, field: str, message: str, path: Location, position: int | None) -> None:
        super().__init__(field, message)
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
        named = error if isinstance(error, OfField) else OfField(".".join(map(str, path)), str(error))
        raise _InExpression(named.field, named.message, path, position) from error


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
    error: ValidationError, of: type[BaseModel], *, rule: str | None = None, kind: str = "rule"
) -> list[RuleProblem]:
    """Problems of a validation error of ``of``. What a misspelt field may mean is one that its place allows."""
    problems = []
    for detail in error.errors():
        if detail["type"] == "too_short" and detail["input"]:
            continue  # repeats a problem of an element of the list
        path, models = _followed(of, detail["loc"])
        message = _message(detail, path, models)
        if path[-1:] == ("[key]",):
            path, message = path[:-2], f"the name of an entry: {message}"
        field = ".".join(str(part) for part in path)
        error_of = detail.get("ctx", {}).get("error")
        position = None
        if isinstance(error_of, OfField):
            field = f"{field}.{error_of.field}" if field else error_of.field
        if isinstance(error_of, _InExpression):
            path, position = (*path, *error_of.path), error_of.position
        problems.append(RuleProblem(message, rule=rule, kind=kind, field=field, path=path, position=position))
    return problems


class _Choice(NamedTuple):
    model: type[BaseModel]
    tags: frozenset[str]
    """By which pydantic's paths name it among others."""


def _followed(of: type[BaseModel], location: Location) -> tuple[Location, list[type[BaseModel]]]:
    """Path in the file for one of pydantic, without the tags of unions; and the models that may stand above its end."""
    path: Location = ()
    choices, above = [_Choice(of, frozenset())], [of]
    of_user = False
    for part in location:
        if of_user:  # a key of a mapping, which may be called as a field
            path, of_user = (*path, part), False
            continue
        tagged = [_Choice(each.model, frozenset()) for each in choices if part in each.tags]
        if tagged:
            choices = tagged
            continue
        above = [each.model for each in choices]
        path = (*path, part)
        fields = [
            info
            for model in above
            for name, info in model.model_fields.items()
            if part == name
            or (isinstance(info.validation_alias, AliasChoices) and part in info.validation_alias.choices)
        ]
        if fields:  # else it is an index
            choices = [choice for info in fields for choice in _choices(info.annotation)]
            of_user = any(get_origin(info.annotation) is dict for info in fields)
    return path, above


def _choices(annotation: Any, tags: frozenset[str] = frozenset()) -> Iterator[_Choice]:
    """The models that the type of a field is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield _Choice(annotation, tags)
        return
    parts = get_args(annotation)
    tags = tags.union(part.tag for part in parts if isinstance(part, Tag))
    for part in parts:
        yield from _choices(part, tags)


def _allowed(models: Collection[type[BaseModel]]) -> list[str]:
    """Fields that an entry of one of the models may have, as rule files write them."""
    names = [
        name
        for model in models
        for name in (
            *(info.serialization_alias or name for name, info in model.model_fields.items()),
            *getattr(model, "shorthands", ()),
        )
    ]
    return list(dict.fromkeys(names))


def _message(detail: Mapping[str, Any], path: Location, models: Collection[type[BaseModel]]) -> str:
    kind, value, limits = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return unknown(str(path[-1]), _allowed(models))
        case "missing":
            return "is missing"
        case "value_error":
            error = limits["error"]
            return error.message if isinstance(error, OfField) else str(error)
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


def unknown(name: str, allowed: Collection[str]) -> str:
    """Message about an unknown field, with the most similar one that its place allows, or all of them."""
    return f"unknown field {name!r}{did_you_mean(name, allowed) or '; allowed here: ' + ', '.join(allowed)}"
