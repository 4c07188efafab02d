"""Problems in rules, as values: place (file, line, column, rule, field) and message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from astrocyte.schemas.errors import InvalidRule

__all__ = ["InvalidRules", "Location", "RuleProblem", "closest", "problems_of", "unknown"]

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """One problem; line and column count from 1, ``path`` leads to the value inside its rule."""

    message: str
    rule: str | None = None
    field: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: Location = ()

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        named = f"rule {self.rule!r}" if self.rule else ""
        return ": ".join(part for part in (place, named, self.field, self.message) if part)


class InvalidRules(InvalidRule):
    """One or more problems in rules; ``problems`` holds them as values."""

    def __init__(self, problems: list[RuleProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def problems_of(error: ValidationError, *, rule: str | None = None, known: Collection[str] = ()) -> list[RuleProblem]:
    """Problems of a validation error; ``known`` are the field names to suggest for a misspelled one."""
    problems = []
    for detail in error.errors():
        if detail["type"] == "too_short" and detail["input"]:
            continue  # repeats a problem of an element of the list
        path = tuple(part for part in detail["loc"] if part not in ("step", "group"))
        field = ".".join(str(part) for part in path)
        problems.append(RuleProblem(_message(detail, path, known), rule=rule, field=field, path=path))
    return problems


def _message(detail: Mapping[str, Any], path: Location, known: Collection[str]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return unknown(str(path[-1]), known)
        case "missing":
            return "is missing"
        case "value_error":
            return str(detail["ctx"]["error"])
        case _:
            return f"{detail['msg']} (got {detail['input']!r})"


def unknown(name: str, known: Collection[str]) -> str:
    """Message about an unknown field, with a suggestion."""
    return f"unknown field {name!r}{closest(name, known)}"


def closest(name: str, known: Collection[Any]) -> str:
    """A suggestion of the known name most similar to ``name``; empty if none is similar."""
    found = difflib.get_close_matches(name, [str(each) for each in known], n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
