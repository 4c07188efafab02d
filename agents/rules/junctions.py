"""The entries of ``junctions`` in a rule file: matches of rules become events of rules in other domains.

A domain sees the keys of one partition, so that a rule never sees events of two domains. A junction (gap junction)
leads the matches of its rules on as a stream of its own name, partitioned anew by one of their fields. Such an event
has the emitted values of the match, its ``confidence``, ``timed_out``, and::

    timestamp = time of the match + delay
    hops      = 1 + the most hops of the events of the match       (0 for events that came through no junction)
    strength  = damping * confidence * the greatest strength among the events of the match    (1 for the others)

A junction with ``forms`` is not always there. Its events have the key of the match as well, as ``led_from``; it joins
pairs of domains: that of this key and that of the key of the event. Event time is divided into buckets of ``every``,
counted from 1970. At the boundary ``k``, which is at ``k * every``, and with ``n = over / every``::

    a(b) = 1 if the junction brought an event of the sending domain in bucket b, else 0
    r(b) = 1 if the receiving domain had an event of ``with`` in bucket b, else 0
    co-activity(k) = a(k-n) r(k-n) + ... + a(k-1) r(k-1)

the number of coincidences of two binned spike trains (Gerstein and Perkel 1969; Gruen, Diesmann and Aertsen 2002). The
junction joins the pair from the first boundary with a co-activity above ``above`` on, until the next one with a
co-activity below ``below`` (hysteresis, as of a Schmitt trigger). An event that comes over it is judged by the state at
the start of its bucket.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.conditions import parsed_where, refuse_never
from astrocyte.agents.rules.problems import in_expression
from astrocyte.agents.rules.steps import Duration, Model, Whole, field_name, format_duration
from astrocyte.schemas.catalog import FieldType

__all__ = ["HOPS", "LED_FROM", "MOST_BUCKETS", "OF_MATCH", "STRENGTH", "Forms", "Junction"]

HOPS: Final = "hops"
"""Field of an event: the junctions through which it came."""
STRENGTH: Final = "strength"
"""Field of an event: what damping and confidence have left of 1 on its way, 0 to 1."""
LED_FROM: Final = "led_from"
"""Field of an event of a junction that forms: the key of the match."""
OF_MATCH: Final[Mapping[str, FieldType]] = {
    "confidence": "float64", "timed_out": "bool", HOPS: "int64", STRENGTH: "float64",
}  # fmt: skip
"""Types of the fields of every event of a junction, beside those that its rules emit."""

MOST_BUCKETS: Final = 1_000
"""Buckets of a window: each that counts is kept for every pair of domains."""
_USUAL_BUCKETS: Final = 10


def _sources(value: Any) -> Any:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, list | tuple):
        if not names:
            raise ValueError("names no rule; name one, or a pattern such as wave_*")
        if any(isinstance(name, str) and not name.strip() for name in names):
            raise ValueError("the name of a rule is empty; name one")
    return names


def _streams(value: Any) -> Any:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, list | tuple) and (not names or any(isinstance(each, str) and not each for each in names)):
        raise ValueError("names no stream; name one of which an event shows that the receiving domain is active")
    return names


class Forms(Model):
    """The co-activity of two domains at which a junction between them forms, and that at which it dissolves."""

    streams: Annotated[tuple[str, ...], BeforeValidator(_streams)] = Field(
        validation_alias=AliasChoices("with", "streams"), serialization_alias="with"
    )
    """Streams whose events show that the receiving domain is active."""
    over: Duration
    """Length of the window."""
    every: Duration | None = None
    """Length of a bucket; None: a tenth of ``over``."""
    above: Whole = Field(ge=0)
    """Co-activity above which it forms, in buckets."""
    below: Whole = Field(ge=1)
    """Co-activity below which it dissolves."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every is not None and self.over % self.every:
            raise ValueError(
                f"over {format_duration(self.over)} is no multiple of every {format_duration(self.every)}, the length "
                "of its buckets; change one of them"
            )
        if self.every is None and self.over % _USUAL_BUCKETS:
            raise ValueError(
                f"over {format_duration(self.over)} cannot be divided by {_USUAL_BUCKETS}; give the length of its "
                "buckets as every"
            )
        if self.buckets > MOST_BUCKETS:
            raise ValueError(
                f"over {format_duration(self.over)} has {self.buckets:,} buckets of {format_duration(self.every_us)}; "
                f"the limit is {MOST_BUCKETS:,}: use a longer every"
            )
        if self.above >= self.buckets:
            raise ValueError(
                f"above {self.above} is never exceeded: the window has {self.buckets} buckets; use a smaller above, or "
                "a longer over"
            )
        if self.below > self.above + 1:
            raise ValueError(
                f"below {self.below} with above {self.above}: a co-activity of {self.above + 1} would form the "
                f"junction and dissolve it; use a below of at most {self.above + 1}"
            )
        return self

    @property
    def every_us(self) -> int:
        """Length of a bucket in microseconds."""
        return self.every if self.every is not None else self.over // _USUAL_BUCKETS

    @property
    def buckets(self) -> int:
        """Number of buckets of the window."""
        return self.over // self.every_us


class Junction(Model):
    """One junction: the matches of ``sources`` as events of the stream ``name``, partitioned by ``key``."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.-]*$", max_length=120)
    description: str = ""
    sources: Annotated[tuple[str, ...], BeforeValidator(_sources)] = Field(
        validation_alias=AliasChoices("from", "sources"), serialization_alias="from"
    )
    """Names of rules, or patterns with ``*`` and ``?``."""
    key: Annotated[str, BeforeValidator(field_name)] = "key"
    """Field of the match, an emitted value or ``key``, whose value is the key of the event."""
    where: str | None = None
    """Condition over the fields of the event; a match for which it does not hold is not led on."""
    delay: Duration | None = None
    """Event time from the match to its event elsewhere."""
    damping: float = Field(default=1.0, gt=0.0, le=1.0)
    min_strength: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weaker events are dropped, and counted."""
    max_hops: Whole | None = Field(default=None, ge=1, le=1000)
    """Events that came through more junctions are dropped, and counted."""
    forms: Forms | None = None
    """When it is there between two domains; None: always."""

    @model_validator(mode="after")
    def _check_where(self) -> Self:
        with in_expression("where"):
            refuse_never("where", self.where_node, "nothing is led on")
        return self

    @cached_property
    def where_node(self) -> Node | None:
        """Parsed ``where``."""
        return parsed_where(self.where)

    @property
    def delay_us(self) -> int:
        """``delay`` in microseconds."""
        return self.delay or 0

    @property
    def is_bounded(self) -> bool:
        """Whether it may lead back to the rules from which it comes."""
        return self.max_hops is not None and self.damping < 1.0

    @property
    def sets(self) -> frozenset[str]:
        """Fields of its events that no rule may emit."""
        return frozenset({HOPS, STRENGTH} if self.forms is None else {HOPS, STRENGTH, LED_FROM})

    def names(self, rule: str) -> bool:
        """Whether the matches of a rule are led on."""
        return any(fnmatchcase(rule, source) for source in self.sources)
