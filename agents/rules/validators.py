"""The entries of ``validators`` in a rule file: checks and changes of a stream's events before rules see them.

The key ``saccules`` is the older name of the same list and is still accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from inspect import signature
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, model_validator

from astrocyte.agents.expressions.nodes import Node
from astrocyte.agents.rules.conditions import parsed, parsed_where, refuse_never
from astrocyte.agents.rules.problems import OfField, in_expression
from astrocyte.agents.rules.steps import Model, stream_names
from astrocyte.agents.rules.validator_functions import VALIDATORS, ValidatorFunction, function_of
from astrocyte.schemas.arrow.columns import RESERVED
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["Validator"]


def _name_of(use: Any) -> Any:
    return f"{use.__module__}:{use.__qualname__}" if callable(use) else use


class Validator(Model):
    """Checks and changes of the events of a stream. A refused event becomes a dead letter with the reason.

    The parts are applied in the order of the attributes here, several validators of a stream in the order of the file.
    """

    stream: Annotated[tuple[str, ...], BeforeValidator(stream_names)] = Field(min_length=1)
    non_finite: Literal["reject", "null", "keep"] | None = None
    """NaN and infinite values: the event is refused (the default), the value becomes null, or it is kept. The first
    validator of a stream that sets this decides, before any other part is applied."""
    require: tuple[str, ...] = ()
    """Fields that must be present and not null."""
    where: str | None = None
    """Condition that must hold; null counts as false."""
    reason: str | None = None
    """Reason in the dead letter if ``where`` does not hold; by default the condition and the values that it read."""
    use: Annotated[str | Callable[..., Any] | None, PlainSerializer(_name_of)] = None
    """A validator in Python: its registered name, or the function itself (of one event, unless it was registered for
    frames)."""
    options: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("with", "options"),
                                    serialization_alias="with")  # fmt: skip
    """Keyword arguments of the function that ``use`` names."""
    set: dict[str, str] = Field(default_factory=dict)
    """Fields to compute, in this order; later expressions see the results of earlier ones."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Old name: new name."""
    drop: tuple[str, ...] = ()
    """Fields to remove."""
    sample: float | None = Field(default=None, gt=0, le=1)
    """Share of events that pass, chosen by a hash of their ids; each event that passes represents 1/sample events."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        for part, names in (("set", self.set), ("drop", self.drop), ("rename", (*self.rename, *self.rename.values()))):
            for name in names:
                if name in RESERVED:
                    raise ValueError(f"{part} names {name!r}, which validators cannot change; name another field")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two fields the same name; choose different names")
        if self.reason is not None and self.where is None:
            raise ValueError("reason applies to where, which is missing; add where or leave reason out")
        if self.sample is not None and self.sample < 1:
            for stream in self.stream:
                event_type = CATALOG.find(stream)
                if event_type is not None and event_type.priority == "critical":
                    raise ValueError(
                        f"stream {stream!r} cannot be sampled, since its events are critical; "
                        "leave sample out, or use where to refuse some of them"
                    )
        if self.options and self.use is None:
            raise ValueError("with applies to use, which is missing; add use or leave with out")
        _ = self.set_nodes, self.function
        with in_expression("where"):
            refuse_never("where", self.where_node, "every event would be refused")
        return self

    @cached_property
    def function(self) -> ValidatorFunction | None:
        """The function that ``use`` names."""
        if self.use is None:
            return None
        try:
            found = function_of(self.use) if callable(self.use) else VALIDATORS.get(self.use)
        except InvalidSettings as error:
            raise OfField("use", str(error)) from error
        try:
            signature(found.definition).bind(None, **self.options)
        except TypeError as error:
            raise OfField("with", f"{error}; the function's signature is {signature(found.definition)}") from error
        return found

    @cached_property
    def where_node(self) -> Node | None:
        """Parsed ``where``."""
        return parsed_where(self.where)

    @cached_property
    def set_nodes(self) -> dict[str, Node]:
        """Parsed ``set``."""
        nodes = {}
        for name, text in self.set.items():
            with in_expression("set", name):
                nodes[name] = parsed(f"set.{name}", text, aggregates=())
        return nodes
