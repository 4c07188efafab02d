"""Declarations of streams in rule files, and what of a stream may be left out while its reader is behind: ``overload``.

::

    streams:
      - {name: readings, overload: {policy: sample, share: 0.1, above: 20000, below: 2000}}

It begins where the lag of a partition exceeds ``above`` and ends where it has fallen to ``below``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from astrocyte.agents.rules.steps import Model, parse_duration
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.declarations import StreamDeclaration

__all__ = ["Overload", "OverloadPolicy", "Stream", "is_critical", "overload_of"]

OverloadPolicy = Literal["block", "sample", "latest", "drop_oldest"]
"""``block``: nothing is left out. ``sample``: a share of the events is kept, chosen by their ids. ``latest``: of each
key the newest event of what was read at once. ``drop_oldest``: nothing is kept until the lag has fallen."""

_ABOVE: Final = 10_000
"""Records, where nothing is said."""


def overload_of(value: Any) -> Any:
    """The members of a policy that is written as a name, or as JSON in a setting."""
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("{"):
            return {"policy": text}
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            example = '{"policy": "sample", "share": 0.1}'
            raise ValueError(f"expected a policy, or JSON such as {example}: {error}") from None
    return value


def _threshold(value: Any) -> Any:
    if isinstance(value, str):
        parse_duration(value)
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number of records such as 10000, or a duration such as 30s, got {value!r}")
    return value


_Threshold = Annotated[int | str, BeforeValidator(_threshold)]
"""Lag in records, or the age of what is read next, written as a duration."""


class Overload(Model):
    """Policy of a stream whose reader is behind, and the lag at which it begins and ends."""

    policy: OverloadPolicy = "block"
    share: float | None = Field(default=None, gt=0, lt=1)
    """Of ``sample``: the part of the events that is kept; each of them stands for 1/share."""
    above: _Threshold = _ABOVE
    below: _Threshold | None = None
    """Default: half of ``above``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.policy == "sample" and self.share is None:
            raise ValueError("policy sample needs the part of the events that is kept; add share, such as 0.1")
        if self.policy != "sample" and self.share is not None:
            raise ValueError(f"share is of policy sample, and this is {self.policy}; leave it out")
        if isinstance(self.below, str) != isinstance(self.above, str) and self.below is not None:
            raise ValueError(
                f"above {self.above!r} and below {self.below!r} differ in kind; write both as records or as durations"
            )
        if self.begins_above < 1 or self.ends_below >= self.begins_above:
            raise ValueError(f"below has to be less than above, got below {self.below!r} and above {self.above!r}")
        return self

    @property
    def by_age(self) -> bool:
        """Whether the thresholds are ages in microseconds; else they are records."""
        return isinstance(self.above, str)

    @property
    def begins_above(self) -> int:
        """Lag above which the policy begins, in records or microseconds."""
        return parse_duration(self.above) if isinstance(self.above, str) else self.above

    @property
    def ends_below(self) -> int:
        """Lag at which it ends, in records or microseconds."""
        if self.below is None:
            return self.begins_above // 2
        return parse_duration(self.below) if isinstance(self.below, str) else self.below

    @property
    def leaves_out(self) -> bool:
        """Whether it ever leaves anything out."""
        return self.policy != "block"


def is_critical(stream: str) -> bool:
    """Whether the catalog says that no event of a stream may be left out."""
    event_type = CATALOG.find(stream)
    return event_type is not None and event_type.priority == "critical"


def _allowed(stream: str | None, overload: Overload | None) -> Overload | None:
    """The policy that is declared of a stream. Raises ValueError if it leaves out events of a critical one."""
    if stream is not None and overload is not None and overload.leaves_out and is_critical(stream):
        raise ValueError(
            f"policy {overload.policy} leaves events of stream {stream!r} out, which are critical; write block, or "
            "leave overload out"
        )
    return overload


class Stream(Model, StreamDeclaration):
    """Declaration of a stream: topic and decoder, key, time and id, fields and their types, and its overload."""

    overload: Annotated[Overload | None, BeforeValidator(overload_of)] = None
    """What may be left out while the reader is behind; None: as the settings say."""

    @field_validator("overload")
    @classmethod
    def _check_overload(cls, value: Overload | None, info: ValidationInfo) -> Overload | None:
        return _allowed(info.data.get("name"), value)
