"""The entries of ``junctions`` in a rule file: matches of rules become events of rules in other domains.

A domain sees the keys of one partition, so that a rule never sees events of two domains. A junction (gap junction)
leads the matches of its rules on as a stream of its own name, partitioned anew by one of their fields. Such an event
has the emitted values of the match, its ``confidence``, ``timed_out``, and::

    timestamp = time of the match + delay
    hops      = 1 + the most hops of the events of the match       (0 for events that came through no junction)
    strength  = damping * confidence * the greatest strength among the events of the match    (1 for the others)
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
from astrocyte.agents.rules.steps import Duration, Model, Whole, field_name
from astrocyte.schemas.catalog import FieldType

__all__ = ["HOPS", "OF_MATCH", "STRENGTH", "Junction"]

HOPS: Final = "hops"
"""Field of an event: the junctions through which it came."""
STRENGTH: Final = "strength"
"""Field of an event: what damping and confidence have left of 1 on its way, 0 to 1."""
OF_MATCH: Final[Mapping[str, FieldType]] = {
    "confidence": "float64", "timed_out": "bool", HOPS: "int64", STRENGTH: "float64",
}  # fmt: skip
"""Types of the fields of every event of a junction, beside those that its rules emit."""


def _sources(value: Any) -> Any:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, list | tuple):
        if not names:
            raise ValueError("names no rule; name one, or a pattern such as wave_*")
        if any(isinstance(name, str) and not name.strip() for name in names):
            raise ValueError("the name of a rule is empty; name one")
    return names


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

    def names(self, rule: str) -> bool:
        """Whether the matches of a rule are led on."""
        return any(fnmatchcase(rule, source) for source in self.sources)
