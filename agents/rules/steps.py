"""Steps, groups and durations: the parts of a rule's pattern (see `agents.rules.model` for the language)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    model_validator,
)

from astrocyte.agents.expressions.lexer import is_name
from astrocyte.agents.rules.problems import InvalidRules, problems_of

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it

__all__ = [
    "Contiguity",
    "Duration",
    "Element",
    "Group",
    "Model",
    "Step",
    "Until",
    "Whole",
    "check_members",
    "format_duration",
    "last_steps",
    "leaves",
    "named_parts",
    "parse_duration",
    "walk_parts",
]

_UNITS: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|m|h|d)\s*")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Contiguity = Literal["next", "followed_by", "followed_by_any"]


def parse_duration(value: Any) -> int:
    """Microseconds of ``"250ms"``, ``"2s"``, ``"1.5h"`` (us, ms, s, m, h, d) or a timedelta. Raises ValueError."""
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
    else:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if not found:
            hint = f"write {value}s or {value}ms" if isinstance(value, int | float) else "write a number and a unit"
            raise ValueError(f"expected a duration such as 2s, got {value!r}; {hint} (units: us, ms, s, m, h, d)")
        microseconds = round(float(found[1]) * _UNITS[found[2]])
    if not 0 < microseconds < 2**53:
        raise ValueError(f"expected a duration of at least 1us and less than 2**53 us, got {value!r}")
    return microseconds


def format_duration(microseconds: int) -> str:
    """The shortest string that `parse_duration` reads as ``microseconds``."""
    unit = next(unit for unit in reversed(_UNITS) if microseconds % _UNITS[unit] == 0)
    return f"{microseconds // _UNITS[unit]}{unit}"


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
"""Microseconds, written with a unit."""


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {'true' if value else 'false'}")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
"""A whole number; YAML's true is none, though Python would read it as 1."""


def field_name(value: Any) -> Any:
    """A field by which events are grouped. Raises ValueError for an empty name."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty; name a field, or leave by out to use the key")
    return value


def stream_names(value: Any) -> Any:
    """One stream or several as a tuple. Raises ValueError for an empty name."""
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, list | tuple) and any(isinstance(name, str) and not name.strip() for name in names):
        raise ValueError("the name of a stream is empty; name one")
    return names


class _Raising(ModelMetaclass):
    def __call__(self, *args: Any, **data: Any) -> Any:
        try:
            return super().__call__(*args, **data)
        except ValidationError as error:
            labelled = self.__name__ in ("Rule", "Window", "Junction")
            rule = data.get("name") if labelled else None
            kind = self.__name__.lower() if labelled else "rule"
            of: Any = self
            raise InvalidRules(problems_of(error, of, rule=rule, kind=kind)) from None


class Model(BaseModel, metaclass=_Raising):
    """Base of all parts of rule files: immutable; invalid arguments of the class raise InvalidRules."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)
    shorthands: ClassVar[tuple[str, ...]] = ()
    """What may be written in place of fields."""


class Until(Model):
    """The condition that ends a loop; ``stream`` defaults to the loop's own streams."""

    where: str
    stream: str | tuple[str, ...] | None = None


def _until(value: Any) -> Any:
    return {"where": value} if isinstance(value, str) else value


class Quantified(Model):
    """Quantifier of a step or group, and its relation to the events before it."""

    contiguity: Contiguity | None = None
    """``next``: the very next event; ``followed_by`` (default): the first that fits; ``followed_by_any``: any."""
    min: Whole | None = Field(default=None, ge=0)
    max: Whole | None = Field(default=None, ge=1)
    times: Annotated[int | tuple[Whole, Whole] | None, BeforeValidator(_no_truth)] = None
    optional: bool = False
    greedy: bool = False
    """The loop takes every event that it can: what follows may not take (or ignore) such an event."""
    consecutive: bool = False
    """Elements of the loop follow each other with no event in between."""
    combinations: bool = False
    """Elements of the loop are any events that fit, not only the next that fits."""
    gap: Duration | None = None
    """Maximum time from one element of the loop to the next."""
    until: Annotated[Until | None, BeforeValidator(_until)] = None
    within_prev: Duration | None = None
    """Maximum time from the previously taken event to the first event of this part."""

    @model_validator(mode="after")
    def _check_quantifier(self) -> Self:
        if self.times is not None and (self.min is not None or self.max is not None):
            raise ValueError("times cannot be combined with min or max; times: 3 means min: 3, max: 3")
        if isinstance(self.times, int) and self.times < 1:
            raise ValueError(f"times: expected 1 or more, got {self.times} (for 0 or 1 times use optional: true)")
        if isinstance(self.times, tuple) and not 0 <= self.times[0] <= self.times[1] >= 1:
            raise ValueError(f"times: expected [least, most] with least <= most and most >= 1, got {list(self.times)}")
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"min must not exceed max, got min {self.min} and max {self.max}")
        if max(self.at_least, self.at_most or 0) > 1_000:
            raise ValueError("min, max and times are limited to 1000; leave max out for a loop without limit")
        if self.consecutive and self.combinations:
            raise ValueError("consecutive and combinations cannot be combined; choose one")
        if self.greedy and self.combinations:
            raise ValueError("greedy (the longest loop) and combinations (every loop) cannot be combined; choose one")
        if self.greedy and not self.loops:
            raise ValueError("greedy applies to loops only; give min, max or times, or leave greedy out")
        if self.until is not None and self.at_most is not None:
            raise ValueError("until applies to loops without max only; give min and no max, or leave until out")
        if self.gap is not None and not self.loops:
            raise ValueError("gap applies to loops only; give min, max or times, or use within_prev")
        return self

    @property
    def at_least(self) -> int:
        """Minimum number of occurrences if it occurs, 1 or more; `may_be_absent` says whether it may not occur."""
        least = self.times if isinstance(self.times, int) else self.times[0] if self.times else self.min
        return max(1 if least is None else least, 1)

    @property
    def at_most(self) -> int | None:
        """Maximum number of occurrences, None without limit."""
        if self.times is not None:
            return self.times if isinstance(self.times, int) else self.times[1]
        return self.max if self.max is not None or self.min is not None else 1

    @property
    def may_be_absent(self) -> bool:
        """Whether the pattern also holds without it."""
        return self.optional or self.min == 0 or (isinstance(self.times, tuple) and self.times[0] == 0)

    @property
    def loops(self) -> bool:
        """Whether it can occur more than once."""
        return self.at_most != 1


class Step(Quantified):
    """One event (or a loop of events) of one of ``stream`` for which ``where`` holds."""

    name: str | None = Field(default=None, validation_alias=AliasChoices("as", "name"), serialization_alias="as")
    stream: Annotated[tuple[str, ...], BeforeValidator(stream_names)] = Field(min_length=1)
    where: str | None = None
    negated: bool = Field(default=False, validation_alias=AliasChoices("not", "negated"), serialization_alias="not")
    """No such event may occur (before what follows, or before the window closes)."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap_not(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("not"), dict):
            inside = value["not"]
            if twice := sorted(inside.keys() & (value.keys() - {"not"})):
                raise ValueError(f"{twice[0]} is given both beside and inside not; keep one of them")
            return {**value, **inside, "not": True}
        return value

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.name is not None and (not _IDENTIFIER.fullmatch(self.name) or not is_name(self.name)):
            raise ValueError(f"step name {self.name!r} cannot be used in expressions; use letters, digits and _")
        if self.negated:
            if self.loops or self.may_be_absent or self.times is not None:
                raise ValueError("a negated step has no quantifier; leave out min, max, times and optional")
            if self.contiguity == "followed_by_any":
                raise ValueError("the contiguity of a negated step is next or followed_by, got followed_by_any")
        elif self.name is None:
            raise ValueError("a step needs a name; add as: NAME")
        return self


class Group(Quantified):
    """Steps in order (``seq``), in any order (``all``) or one of them (``any``), as one part of a pattern."""

    seq: tuple[Element, ...] | None = Field(default=None, min_length=1)
    all: tuple[Element, ...] | None = Field(default=None, min_length=1)
    any: tuple[Element, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if sum(part is not None for part in (self.seq, self.all, self.any)) != 1:
            raise ValueError("a group needs exactly one of seq, all and any")
        if self.greedy:
            raise ValueError("greedy applies to single steps only, not to groups; leave it out")
        check_members(self.kind, self.members)
        return self

    @property
    def kind(self) -> Literal["seq", "all", "any"]:
        """The group's operator."""
        return "seq" if self.seq is not None else "all" if self.all is not None else "any"

    @property
    def members(self) -> tuple[Element, ...]:
        """Steps and groups in this group."""
        return self.seq or self.all or self.any or ()


def _tag(value: Any) -> str:
    if isinstance(value, dict):
        return "group" if value.keys() & {"seq", "all", "any"} else "step"
    return "group" if isinstance(value, Group) else "step"


Element = Annotated[
    Annotated[Step, Tag("step")] | Annotated[Group, Tag("group")],
    Discriminator(_tag),
]
Group.model_rebuild()  # its members may be groups


def leaves(elements: tuple[Element, ...]) -> Iterator[Step]:
    """All steps of a pattern, in the order of the pattern."""
    for element in elements:
        if isinstance(element, Step):
            yield element
        else:
            yield from leaves(element.members)


def walk_parts(elements: tuple[Element, ...]) -> Iterator[Step | Group]:
    """All steps and groups of a pattern, each group before its members."""
    for element in elements:
        yield element
        if isinstance(element, Group):
            yield from walk_parts(element.members)


def last_steps(elements: tuple[Element, ...]) -> Iterator[Step]:
    """Steps with which a sequence of these elements may end."""
    for element in reversed(elements):
        if isinstance(element, Step):
            yield element
        else:
            for end in [element.members] if element.any is None else [(member,) for member in element.members]:
                yield from last_steps(end)
        if not element.may_be_absent:
            return


def named_parts(elements: tuple[Element, ...], prefix: str = "not") -> tuple[Element, ...]:
    """The elements, with a name for every negated step that has none."""
    named: list[Element] = []
    for index, element in enumerate(elements):
        if isinstance(element, Group):
            members = named_parts(element.members, f"{prefix}_{index}")
            named.append(element.model_copy(update={element.kind: members}))
        elif element.name is None:
            named.append(element.model_copy(update={"name": f"{prefix}_{index}"}))
        else:
            named.append(element)
    return tuple(named)


def check_members(kind: str, members: tuple[Element, ...]) -> None:
    """Check that the operator allows these members. Raises ValueError."""
    if all(isinstance(member, Step) and member.negated for member in members):
        raise ValueError(f"{kind} has negated steps only; add a step that is not negated")
    first = members[0]
    if kind == "seq":
        if isinstance(first, Step) and first.negated:
            raise ValueError("the first step is negated; an absence needs an event before it, so add a step before it")
        if first.contiguity is not None:
            raise ValueError("the first step has a contiguity, but no step precedes it; leave it out")
        for before, after in pairwise(members):
            if isinstance(after, Step) and after.negated and before.may_be_absent:
                raise ValueError(
                    f"negated step {after.name or '(unnamed)'!r} follows an optional step; "
                    "write two rules, one with and one without the optional step"
                )
        return
    for member in members:
        if kind == "any" and isinstance(member, Step) and member.negated:
            raise ValueError("an alternative of any cannot be negated; write the absence as a step of a seq")
        if member.contiguity is not None:
            raise ValueError(f"a step inside {kind} cannot have a contiguity; give it to the {kind} as a whole")
        if kind == "all" and (member.loops or member.may_be_absent or not isinstance(member, Step)):
            raise ValueError("all takes single steps only; use no loops, optional steps or groups in it")
        if kind == "any" and isinstance(member, Step) and (member.loops or member.may_be_absent):
            raise ValueError("an alternative of any cannot have a quantifier; put it into a seq of its own")
