"""Where the parts of an entry are written: paths of the model as paths of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from astrocyte.agents.rules.problems import Location

__all__ = ["named_path", "value_path", "written_path"]

_OPERATORS: Final = ("seq", "all", "any")


class _Part(NamedTuple):
    item: Mapping[str, Any]
    path: Location
    name: str | None
    """That of a step, as `Rule.steps` has it; None for a group."""


def written_path(item: Mapping[str, Any], path: Location) -> Location:
    """Path inside an entry of the file.

    ``("steps", 2, "where")`` is of the third of `Rule.steps`, ``("groups", 0, "until")`` of the first of `Rule.groups`;
    others are written as the model has them.
    """
    if len(path) < 3 or path[0] not in ("steps", "groups"):
        return path
    parts = [part for part in _parts(item) if (part.name is None) == (path[0] == "groups")]
    index = path[1]
    return _in_part(parts[index], path[2:]) if isinstance(index, int) and index < len(parts) else ()


def named_path(item: Mapping[str, Any], field: str) -> Location:
    """Path of a field that is named by its step, such as ``heat.where``; of any other one that name itself."""
    step, _, attribute = field.rpartition(".")
    if attribute in ("where", "until", "stream"):
        for part in _parts(item):
            if part.name == step:
                return _in_part(part, (attribute,))
    return tuple(field.split("."))


def value_path(item: Any, value: str) -> Location | None:
    """Path of the first place where an entry has a value, as itself or as a key; None where it has not."""
    if item == value:
        return ()
    entries: Any = item.items() if isinstance(item, Mapping) else enumerate(item) if isinstance(item, list) else ()
    for key, each in entries:
        inner = () if key == value else value_path(each, value)
        if inner is not None:
            return (key, *inner)
    return None


def _in_part(part: _Part, rest: Location) -> Location:
    value = part.item.get(str(rest[0]))
    inside = part.item.get("not")
    if value is None and isinstance(inside, Mapping) and rest[0] in inside:
        return (*part.path, "not", *rest)
    if rest == ("until",) and isinstance(value, Mapping):
        return (*part.path, "until", "where")
    return (*part.path, *rest)


def _parts(item: Mapping[str, Any], path: Location = (), prefix: str = "not") -> Iterator[_Part]:
    """Steps and groups, each group before its members; a negated step without a name is called as the model does."""
    operator = next((each for each in _OPERATORS if isinstance(item.get(each), list)), "")
    for index, member in enumerate(item.get(operator, ())):
        if not isinstance(member, Mapping):
            continue
        place: Location = (*path, operator, index)
        if any(each in member for each in _OPERATORS):
            yield _Part(member, place, None)
            yield from _parts(member, place, f"{prefix}_{index}")
            continue
        inside = member.get("not")
        given = {**member, **inside} if isinstance(inside, Mapping) else member
        yield _Part(member, place, str(given.get("as") or given.get("name") or f"{prefix}_{index}"))
