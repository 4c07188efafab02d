"""What a user writes under ``validators``: checks and changes at a stream's entrance, before its events count.

(``saccules``, after the i-ER saccules that take in what reaches an astrocyte, is the same list by its older name.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from inspect import signature
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer, model_validator

from astrocyte.agents.expressions.nodes import ExpressionError, Node
from astrocyte.agents.expressions.parser import parse
from astrocyte.agents.rules.steps import Model
from astrocyte.agents.rules.validator_functions import VALIDATORS, ValidatorFunction
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import RESERVED

__all__ = ["Validator"]


def _streams(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _name_of(use: Any) -> Any:
    return f"{use.__module__}:{use.__qualname__}" if callable(use) else use


class Validator(Model):
    """Checks and changes of the events of a stream. A refused event becomes a dead letter with the reason.

    The parts work in the order in which they stand here. Several validators of one stream work one after the other.
    """

    stream: Annotated[tuple[str, ...], BeforeValidator(_streams)] = Field(min_length=1)
    non_finite: Literal["reject", "null", "keep"] | None = None
    """NaN and infinite values: the event is refused (what every stream does by default), the value becomes null, or
    it stays. The first validator of a stream that says so decides, before anything else happens."""
    require: tuple[str, ...] = ()
    """Fields that must be there and not null."""
    where: str | None = None
    """Condition that must hold; null counts as false."""
    reason: str | None = None
    """Text of the dead letter where ``where`` does not hold; by default the condition and the values it saw."""
    use: Annotated[str | Callable[..., Any] | None, PlainSerializer(_name_of)] = None
    """A validator in Python: the name it is registered by, or the function itself (of one event)."""
    options: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("with", "options"),
                                    serialization_alias="with")  # fmt: skip
    """Keyword arguments of the function that ``use`` names."""
    set: dict[str, str] = Field(default_factory=dict)
    """Fields to compute, in this order; later ones see the earlier."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Old name: new name."""
    drop: tuple[str, ...] = ()
    """Fields to leave out."""
    sample: float | None = Field(default=None, gt=0, le=1)
    """Share of events that pass, chosen by a hash of their ids; what passes stands for 1/sample events."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
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
        if self.options and self.use is None:
            raise ValueError("with belongs to use, and there is none")
        _ = self.where_node, self.set_nodes, self.function
        return self

    @cached_property
    def function(self) -> ValidatorFunction | None:
        """What ``use`` names."""
        if self.use is None:
            return None
        try:
            found = ValidatorFunction(self.use) if callable(self.use) else VALIDATORS.get(self.use)
        except InvalidSettings as error:
            raise ValueError(f"use: {error}") from error
        try:
            signature(found.definition).bind(None, **self.options)
        except TypeError as error:
            raise ValueError(f"with: {error}; it is called as {signature(found.definition)}") from error
        return found

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
