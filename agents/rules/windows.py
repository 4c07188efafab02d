"""The entries of ``windows`` in a rule file: aggregates of one stream over time, whose results are a stream again."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.conditions import parsed_where, refuse_never
from astrocyte.agents.rules.problems import in_expression
from astrocyte.agents.rules.select import Select, parse_select
from astrocyte.agents.rules.steps import Duration, Model, field_name, format_duration

__all__ = ["MOST_OVERLAPS", "Window"]

MOST_OVERLAPS: Final = 10_000
"""Windows of one definition that an event may be in: it causes a result of each."""


def _by(value: Any) -> Any:
    if value is None:
        raise ValueError(
            "a window needs a field to group by, got null (by: null is for rules only); leave by out to group by the "
            "key, or set a constant field in a validator and group by that"
        )
    return field_name(value)


class Window(Model):
    """One keyed window over the stream (or rule, or window) ``source``.

    ``every`` alone is tumbling, ``size`` and ``every`` are hopping, ``sliding`` covers that time before each event,
    ``session`` ends after that time without events. Windows are half-open and aligned to 1970 plus ``offset``.
    """

    name: str = Field(pattern=r"^[A-Za-z_][\w.-]*$")
    source: str = Field(min_length=1, validation_alias=AliasChoices("from", "source"), serialization_alias="from")
    by: Annotated[str, BeforeValidator(_by)] = "key"
    every: Duration | None = None
    size: Duration | None = None
    sliding: Duration | None = None
    session: Duration | None = None
    offset: Duration | None = None
    where: str | None = None
    select: dict[str, str] = Field(min_length=1)
    """Fields of the result and their aggregate expressions, such as ``mean(energy)``."""
    emit: Literal["close", "update"] = "close"
    """``update`` also emits a preliminary result whenever a batch of events changes it."""
    late: Literal["drop", "revise"] = "drop"
    """``revise``: an event that arrives up to ``keep`` after the window's close causes a corrected result."""
    keep: Duration | None = None

    @property
    def streams(self) -> tuple[str]:
        """What it reads, as rules and statistics name it."""
        return (self.source,)

    @property
    def kind(self) -> Literal["tumbling", "hopping", "sliding", "session"]:
        """The type of the window."""
        if self.sliding is not None:
            return "sliding"
        if self.session is not None:
            return "session"
        return "hopping" if self.size is not None and self.every not in (None, self.size) else "tumbling"

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        given = [name for name in ("sliding", "session") if getattr(self, name) is not None]
        if self.every is not None or self.size is not None:
            given.append("every/size")
        if len(given) != 1:
            raise ValueError(
                "a window needs exactly one of every (tumbling), size and every (hopping), sliding, session; "
                f"got {' and '.join(given) or 'none of them'}"
            )
        if self.size is not None and self.every is not None and self.every > self.size:
            raise ValueError("every is longer than size, so that events between windows would be lost; increase size")
        if self.size_us > MOST_OVERLAPS * self.step_us:
            raise ValueError(
                f"size {format_duration(self.size_us)} with every {format_duration(self.step_us)}: each event would be "
                f"in {-(-self.size_us // self.step_us):,} windows, and make as many results; the limit is "
                f"{MOST_OVERLAPS:,}. Use a longer every, a shorter size, or sliding: "
                f"{format_duration(self.size_us)}, which has one result for each event"
            )
        if self.late == "revise" and self.kind in ("sliding", "session"):
            raise ValueError(
                f"late: revise applies to tumbling and hopping windows only, got a {self.kind} window; "
                "use late: drop (late events go to the topic late)"
            )
        if self.late == "revise" and self.keep is None:
            raise ValueError("late: revise needs keep, the time for which a closed window can be corrected; add keep")
        return self

    @model_validator(mode="after")
    def _check_expressions(self) -> Self:
        _ = self.parsed
        with in_expression("where"):
            refuse_never("where", self.where_node, "the window has no events")
        return self

    @cached_property
    def parsed(self) -> Select:
        """Parsed ``select``."""
        return parse_select(self.select, self.by)

    @cached_property
    def where_node(self) -> Node | None:
        """Parsed ``where``."""
        return parsed_where(self.where)

    @property
    def size_us(self) -> int:
        """Length of a tumbling, hopping or sliding window; the gap of a session."""
        size = self.size or self.every or self.sliding or self.session
        assert size is not None
        return size

    @property
    def step_us(self) -> int:
        """Time from one window's start to the next."""
        return self.every or self.size_us
