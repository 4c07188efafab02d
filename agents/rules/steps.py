"""Steps, groups and durations: the parts of a rule's pattern (see `agents.rules.model` for the language)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

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

from astrocyte.agents.rules.problems import InvalidRules, problems_of

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it

__all__ = ["Contiguity", "Duration", "Element", "Group", "Model", "Step", "Until", "format_duration", "parse_duration"]

_UNITS: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|m|h|d)\s*")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "is", "None", "True", "False", "if", "else", "for", "lambda"})

Contiguity = Literal["next", "followed_by", "followed_by_any"]


def parse_duration(value: Any) -> int:
    """Microseconds of ``"250ms"``, ``"2s"``, ``"1.5h"`` (us, ms, s, m, h, d) or a timedelta. Raises ValueError."""
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
    else:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if not found:
            hint = f"write {value}s or {value}ms" if isinstance(value, int | float) else "write a number and a unit"
            raise ValueError(f"{value!r} is not a duration; {hint} (units: us, ms, s, m, h, d), such as 2s")
        microseconds = round(float(found[1]) * _UNITS[found[2]])
    if not 0 < microseconds < 2**53:
        raise ValueError(f"{value!r} is not a duration that can be waited for; at least 1us was wanted")
    return microseconds


def format_duration(microseconds: int) -> str:
    """The shortest text that `parse_duration` reads as ``microseconds``."""
    unit = next(unit for unit in reversed(_UNITS) if microseconds % _UNITS[unit] == 0)
    return f"{microseconds // _UNITS[unit]}{unit}"


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
"""Microseconds, written with a unit."""


class _Raising(ModelMetaclass):
    def __call__(self, *args: Any, **data: Any) -> Any:
        try:
            return super().__call__(*args, **data)
        except ValidationError as error:
            fields: dict[str, Any] = vars(self)["__pydantic_fields__"]
            known = {field.serialization_alias or name for name, field in fields.items()}
            rule = data.get("name") if self.__name__ == "Rule" else None
            raise InvalidRules(problems_of(error, rule=rule, known=known)) from None


class Model(BaseModel, metaclass=_Raising):
    """Base of everything a user writes: immutable; what is wrong in a call of the class raises InvalidRules."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


class Until(Model):
    """The condition that ends a loop; ``stream`` defaults to the loop's own streams."""

    where: str
    stream: str | tuple[str, ...] | None = None


def _until(value: Any) -> Any:
    return {"where": value} if isinstance(value, str) else value


class Quantified(Model):
    """How often something occurs, and how it follows what stands before it."""

    contiguity: Contiguity | None = None
    """``next``: the very next event; ``followed_by`` (default): the first that fits; ``followed_by_any``: any."""
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=1)
    times: int | tuple[int, int] | None = None
    optional: bool = False
    greedy: bool = False
    """What follows may not take (or pass over) an event that the loop itself would take."""
    consecutive: bool = False
    """Elements of the loop follow one another with nothing between."""
    combinations: bool = False
    """Elements of the loop are any events that fit, not only the next ones."""
    gap: Duration | None = None
    """Largest time from one element of the loop to the next."""
    until: Annotated[Until | None, BeforeValidator(_until)] = None
    within_prev: Duration | None = None
    """Largest time from the event taken before this to the first event of this."""

    @model_validator(mode="after")
    def _check_quantifier(self) -> Self:
        if self.times is not None and (self.min is not None or self.max is not None):
            raise ValueError("both times and min/max are given; times: 3 means min: 3, max: 3")
        if isinstance(self.times, int) and self.times < 1:
            raise ValueError(f"times is {self.times}; 1 or more was wanted (0 or 1 times is optional: true)")
        if isinstance(self.times, tuple) and not 0 <= self.times[0] <= self.times[1] >= 1:
            raise ValueError(f"times is {list(self.times)}; [least, most] with least <= most was wanted")
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"min is {self.min} and max is {self.max}; min must not exceed max")
        if max(self.at_least, self.at_most or 0) > 1_000:
            raise ValueError("at most 1000 repetitions can be counted; leave max out for a loop without limit")
        if self.consecutive and self.combinations:
            raise ValueError("consecutive and combinations exclude each other: strict or any")
        if self.greedy and self.combinations:
            raise ValueError("greedy and combinations exclude each other: the longest loop or every loop")
        if self.greedy and not self.loops:
            raise ValueError("greedy is for loops; give min, max or times, or leave it out")
        if self.until is not None and self.at_most is not None:
            raise ValueError("until ends a loop without max; give min and no max, or leave until out")
        if self.gap is not None and not self.loops:
            raise ValueError("gap lies between the elements of a loop; give min, max or times, or use within_prev")
        return self

    @property
    def at_least(self) -> int:
        """Fewest occurrences, 1 or more; whether none is allowed too is `may_be_absent`."""
        least = self.times if isinstance(self.times, int) else self.times[0] if self.times else self.min
        return max(1 if least is None else least, 1)

    @property
    def at_most(self) -> int | None:
        """Most occurrences, None without limit."""
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


def _streams(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Step(Quantified):
    """One event (or a loop of events) of one of ``stream`` for which ``where`` holds."""

    name: str | None = Field(default=None, validation_alias=AliasChoices("as", "name"), serialization_alias="as")
    stream: Annotated[tuple[str, ...], BeforeValidator(_streams)] = Field(min_length=1)
    where: str | None = None
    negated: bool = Field(default=False, validation_alias=AliasChoices("not", "negated"), serialization_alias="not")
    """No such event may come (before what follows, or before the window closes)."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap_not(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("not"), dict):
            inside = value["not"]
            if twice := sorted(inside.keys() & (value.keys() - {"not"})):
                raise ValueError(f"{twice[0]} is given both beside and inside not")
            return {**value, **inside, "not": True}
        return value

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.name is not None and (not _IDENTIFIER.fullmatch(self.name) or self.name in _KEYWORDS):
            raise ValueError(f"step name {self.name!r} cannot stand in an expression; use letters, digits and _")
        if self.negated:
            if self.loops or self.may_be_absent or self.times is not None:
                raise ValueError("a negated step says that no such event comes; it takes no min, max, times, optional")
            if self.contiguity == "followed_by_any":
                raise ValueError("a negated step is either next or followed_by")
        elif self.name is None:
            raise ValueError("a step needs a name: as: ...")
        return self


class Group(Quantified):
    """Steps in order (``seq``), in any order (``all``) or one of them (``any``), taken as one."""

    seq: tuple[Element, ...] | None = Field(default=None, min_length=1)
    all: tuple[Element, ...] | None = Field(default=None, min_length=1)
    any: tuple[Element, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if sum(part is not None for part in (self.seq, self.all, self.any)) != 1:
            raise ValueError("a group is exactly one of seq, all and any")
        if self.greedy:
            raise ValueError("greedy is for single steps; a group cannot be greedy")
        check_members(self.kind, self.members)
        return self

    @property
    def kind(self) -> Literal["seq", "all", "any"]:
        """Which of the three it is."""
        return "seq" if self.seq is not None else "all" if self.all is not None else "any"

    @property
    def members(self) -> tuple[Element, ...]:
        """What it holds."""
        return self.seq or self.all or self.any or ()


def _tag(value: Any) -> str:
    if isinstance(value, dict):
        return "group" if value.keys() & {"seq", "all", "any"} else "step"
    return "group" if isinstance(value, Group) else "step"


Element = Annotated[
    Annotated[Step, Tag("step")] | Annotated[Group, Tag("group")],
    Discriminator(_tag),
]


def leaves(elements: tuple[Element, ...]) -> Iterator[Step]:
    """All steps of a pattern in the order in which they are written."""
    for element in elements:
        if isinstance(element, Step):
            yield element
        else:
            yield from leaves(element.members)


def check_members(kind: str, members: tuple[Element, ...]) -> None:
    """Refuse what the operator cannot mean. Raises ValueError."""
    if all(isinstance(member, Step) and member.negated for member in members):
        raise ValueError(f"{kind} holds negated steps only; at least one event must come")
    first = members[0]
    if kind == "seq":
        if isinstance(first, Step) and first.negated:
            raise ValueError("the first step is negated; there is nothing before it from which to count")
        if first.contiguity is not None:
            raise ValueError("the first step has a contiguity, but nothing stands before it; leave it out")
        for before, after in pairwise(members):
            if isinstance(after, Step) and after.negated and before.may_be_absent:
                raise ValueError(
                    f"negated step {after.name or '(unnamed)'!r} follows an optional step; "
                    "write two rules, one with and one without the optional step"
                )
        return
    for member in members:
        if kind == "any" and isinstance(member, Step) and member.negated:
            raise ValueError("any holds a negated step; alternatives are things that come")
        if member.contiguity is not None:
            raise ValueError(f"a step inside {kind} has a contiguity; it belongs to the {kind} as a whole")
        if kind == "all" and (member.loops or member.may_be_absent or not isinstance(member, Step)):
            raise ValueError("all holds single steps: no loops, optional steps or groups")
        if kind == "any" and isinstance(member, Step) and (member.loops or member.may_be_absent):
            raise ValueError("an alternative of any has a quantifier; put it into a seq of its own")
