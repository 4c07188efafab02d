"""What a user writes under ``saccules``: checks and changes at a stream's entrance, before its events count."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from astrocyte.agents.expressions.nodes import ExpressionError, Node
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.rules.steps import Model
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.frames import RESERVED

__all__ = ["SacculeSpec"]


def _streams(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class SacculeSpec(Model):
    """One saccule. An event that fails a check becomes a dead letter with the reason; nothing is lost.

    The parts work in the order in which they stand here. Several saccules of one stream work one after the other.
    """

    stream: Annotated[tuple[str, ...], BeforeValidator(_streams)] = Field(min_length=1)
    non_finite: Literal["reject", "null", "keep"] | None = None
    """NaN and infinite values: the event is refused (what every stream does by default), the value becomes null, or
    it stays. The first saccule of a stream that says so decides, before anything else happens."""
    require: tuple[str, ...] = ()
    """Fields that must be there and not null."""
    where: str | None = None
    """Condition that must hold; null counts as false."""
    reason: str | None = None
    """Text of the dead letter where ``where`` does not hold; by default the condition and the values it saw."""
    set: dict[str, str] = Field(default_factory=dict)
    """Fields to compute, in this order; later ones see the earlier."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Old name: new name."""
    drop: tuple[str, ...] = ()
    """Fields to leave out."""
    sample: float | None = Field(default=None, gt=0, le=1)
    """Share of events that pass, chosen by a hash of their ids; what passes stands for 1/sample events."""

    @model_validator(mode="after")
    def _check_saccule(self) -> Self:
        for part, names in (("set", self.set), ("drop", self.drop), ("rename", (*self.rename, *self.rename.values()))):
            for name in names:
                if name in RESERVED:
                    raise ValueError(f"{part} names {name!r}, which every event keeps as it is; name another field")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two fields one name")
        if self.reason is not None and self.where is None:
            raise ValueError("reason belongs to where, and there is none")
        if self.sample is not None and self.sample < 1:
            for stream in self.stream:
                event_type = CATALOG.find(stream)
                if event_type is not None and event_type.priority == "critical":
                    raise ValueError(
                        f"sample of stream {stream!r}, whose events are critical and never sampled; "
                        "leave sample out, or use where to refuse some of them"
                    )
        _ = self.where_node, self.set_nodes
        return self

    @cached_property
    def where_node(self) -> Node | None:
        """Parsed ``where``."""
        return None if self.where is None else _parse("where", self.where)

    @cached_property
    def set_nodes(self) -> dict[str, Node]:
        """Parsed ``set``."""
        return {name: _parse(f"set.{name}", text) for name, text in self.set.items()}


def _parse(where: str, text: str) -> Node:
    try:
        return parse(text, aggregates=())
    except ExpressionError as error:
        raise ValueError(f"{where}: {error}") from error
