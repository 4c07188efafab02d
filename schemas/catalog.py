"""The catalog: every event type, with its stream, key, fields, priority and schema version.

A stream that is not listed is still processed: its fields keep the types of the incoming values. Listing it adds type
checks, schema evolution, the partition key (which decides whether a rule needs an internal topic) and a delivery class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Literal, get_args

import pyarrow as pa

from astrocyte.schemas.arrow.columns import HIDDEN
from astrocyte.schemas.arrow.known import KnownSchemas
from astrocyte.schemas.errors import InvalidSettings, UnknownEventType
from astrocyte.schemas.registry import Registry, described

__all__ = [
    "CATALOG", "INSTANTS", "NUMBERS", "STREAMS", "WHOLE", "Catalog", "EventType", "Field", "FieldType", "arrow_type",
]  # fmt: skip

FieldType = Literal["int64", "int32", "float64", "float32", "bool", "string", "json", "list<float32>"]

WHOLE: Final = ("int64", "int32")
NUMBERS: Final = (*WHOLE, "float64", "float32")
"""Types of numbers."""
INSTANTS: Final = ("us since 1970", "s since 1970")
"""Units of points in time."""

_ARROW: Mapping[str, pa.DataType] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "string": pa.dictionary(pa.int32(), pa.utf8()),
    "json": pa.utf8(),
    "list<float32>": pa.list_(pa.float32()),
}
assert set(_ARROW) == set(get_args(FieldType))


def arrow_type(field_type: FieldType) -> pa.DataType:
    """Arrow type in which a field of ``field_type`` is carried."""
    return _ARROW[field_type]


@dataclass(frozen=True, slots=True)
class Field:
    """Definition of one field: type, meaning, unit and range. docs/fields.md is generated from these.

    ``low`` and ``high`` bound numbers (each number of a list), both included. ``values`` are all values of a text.
    ``null`` says when there is no value; without it there always is one. ``constant`` says why the field may have one
    value in a whole run; without it the values differ.
    """

    type: FieldType
    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    null: str = ""
    constant: str = ""

    @property
    def is_quantity(self) -> bool:
        """Whether a mean of values says something: a number with a unit, no id or code, and no instant."""
        return self.type in NUMBERS and self.unit != "" and self.unit not in INSTANTS


@dataclass(frozen=True, slots=True)
class EventType:
    """What one stream carries. Fields are given by type in ``fields``, or with their definitions in ``about``.

    ``key`` names what the stream's Kafka keys identify, by which it is partitioned. ``priority``
    "critical" is never sampled and is flushed to stores at once; "routine" may be sampled or batched.
    ``envelope`` selects the JSON shape: ``mono`` (the mono event) or ``dna`` (dna envelope); see docs/events.md.
    """

    stream: str
    key: str
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    types: tuple[str, ...] = ()
    priority: Literal["critical", "routine"] = "routine"
    lossless: bool = True
    version: int = 1
    envelope: Literal["mono", "dna"] = "mono"
    doc: str = ""
    about: Mapping[str, Field] = field(default_factory=dict)
    _schema: pa.Schema | None = field(default=None, init=False, repr=False, compare=False)
    _known: KnownSchemas | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fields that are defined in ``about`` need not be repeated."""
        if self.about:
            object.__setattr__(self, "fields", {name: each.type for name, each in self.about.items()} | {**self.fields})

    def arrow_schema(self) -> pa.Schema:
        """Columns of a frame of this type, in the order in which they are written."""
        if self._schema is None:  # made at the first use: a wrong type of a field is said by `Catalog.register`
            text = arrow_type("string")
            columns = [("timestamp", pa.int64()), ("key", text), ("type", text)]
            columns += [(name, arrow_type(kind)) for name, kind in self.fields.items()]
            object.__setattr__(self, "_schema", pa.schema(columns))
        return self._schema

    def has_columns(self, schema: pa.Schema, *, in_run: bool) -> bool:
        """Whether the columns are those of this type in order, then those that are no part of an event.

        Outside of a run the rows may name their own. `schemas.frames.conform` has nothing to do for such a frame.
        """
        if self._known is None:
            object.__setattr__(self, "_known", KnownSchemas(self._has_columns))
        assert self._known is not None
        return self._known.holds(schema, in_run)

    def _has_columns(self, schema: pa.Schema, in_run: bool) -> bool:
        wanted = self.arrow_schema()
        names, types = schema.names, schema.types
        if names == wanted.names:
            return bool(types == wanted.types)
        hidden = HIDDEN if in_run else (*HIDDEN, "simulation_id")
        ordered = [*wanted.names, *(name for name in hidden if name in names and name not in wanted.names)]
        return names == ordered and types[: len(wanted)] == wanted.types and all(field.nullable for field in schema)


@dataclass(slots=True)
class Catalog:
    """Event types by stream. ``shipped`` names modules whose EVENT_TYPES are registered at the first access."""

    shipped: tuple[str, ...] = ()
    _types: dict[str, EventType] = field(default_factory=dict)

    def register(self, event_type: EventType, *, replace: bool = False) -> EventType:
        """Add the type of one stream; returns it. The same type may be registered again.

        ``replace``: it takes the place of another type of the stream, which is an error otherwise. Raises
        InvalidSettings.
        """
        if not isinstance(event_type, EventType):
            raise InvalidSettings(f"CATALOG.register: expected an EventType, got {described(event_type)}")
        stream = event_type.stream
        if not isinstance(stream, str) or not stream:
            raise InvalidSettings(f"CATALOG.register: the stream is {stream!r:.100}; expected its name as text")
        for name, kind in event_type.fields.items():
            if kind not in _ARROW:
                raise InvalidSettings(
                    f"stream {stream!r}: field {name!r} has the type {kind!r:.100}; expected one of {', '.join(_ARROW)}"
                )
        known = self._known().get(stream)
        if known is not None and known != event_type and not replace:
            raise InvalidSettings(
                f"there is a stream {stream!r} in the catalog already, with another definition; register this one "
                "under another name, or with replace=True"
            )
        self._types[stream] = event_type
        return event_type

    def find(self, stream: str) -> EventType | None:
        """Type of ``stream``, or None where the catalog does not list it."""
        return self._known().get(stream)

    def _known(self) -> dict[str, EventType]:
        # These modules import this one, so they are loaded at the first access and not on import.
        modules, self.shipped = self.shipped, ()
        for name in modules:
            for event_type in import_module(name).EVENT_TYPES:
                self._types[event_type.stream] = event_type
        return self._types

    def __getitem__(self, stream: str) -> EventType:
        try:
            return self._known()[stream]
        except KeyError:
            raise UnknownEventType(
                f"stream {stream!r} is not in the catalog; known streams: {', '.join(sorted(self._types))}"
            ) from None

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._known().values())

    def __contains__(self, stream: str) -> bool:
        return stream in self._known()


CATALOG = Catalog(
    tuple(
        f"astrocyte.schemas.event_types.{name}" for name in ("axons", "cells", "dna", "ecology", "kernels", "controls")
    )
)
"""The catalog of this process, with the event types of the shipped scenarios."""


def _convert(name: str, found: Any) -> EventType:
    if isinstance(found, EventType) and found.stream != name:
        raise InvalidSettings(
            f"stream {name!r}: the EventType is of the stream {found.stream!r}; name it as the stream"
        )
    return CATALOG.register(found)


STREAMS: Final[Registry[EventType]] = Registry("stream", group="astrocyte.streams", convert=_convert)
"""Event types of installed packages by stream. Loading one adds it to the catalog (`pipeline.plugins`)."""
