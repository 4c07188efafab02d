"""What a rule file declares of a stream: topic, decoder, and where key, time, id and fields stand (docs/events.md).

Nothing that is declared here is guessed by a reader. A *path* is a member's name, or names divided by dots
(``after.amount``); a member whose own name holds the dots is found first.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from astrocyte.schemas.arrow.columns import column_name
from astrocyte.schemas.catalog import NUMBERS, WHOLE, FieldType
from astrocyte.schemas.times import TimeUnit
from astrocyte.schemas.topics import is_derived, is_legal, mono_topic
from astrocyte.schemas.values.single import bytes_text, distinguishing, number_of

__all__ = [
    "DecoderChoice",
    "FieldDeclaration",
    "KeyDeclaration",
    "KeyReading",
    "StreamDeclaration",
    "TimeDeclaration",
    "member_field",
]

KeyReading = Literal["text", "int32", "int64", "hex", "json"]
"""How the bytes of a Kafka key are read; int32 and int64 are big-endian, as Kafka's own serializers write them."""


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError(f"expected a name, got {value!r}; leave it out for the default, or write the name")
    return value


_Name = Annotated[str, AfterValidator(_not_empty)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


class DecoderChoice(_Part):
    """Decoder of a stream's messages, by its registered name, with its options (those of ``csv`` and ``avro``)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> Mapping[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


def member_field(path: str) -> str:
    """A name for the field that stands at a path: ``user_id`` for ``user.id``."""
    return path.replace(".", "_")


class KeyDeclaration(_Part):
    """Which field the key of the stream is, and how the Kafka key is read where the body does not have that field.

    ``partitioned``: messages of one key are in one partition of the topic, because the producer partitions by this
    field. Without it the stream is repartitioned by the field first (default: true, but false for ``debezium``,
    whose keys are primary keys). Where it is stated, messages without a Kafka key are not reported.
    """

    field: _Name = "key"
    path: _Name | None = None
    """Where the field stands in the body; default: the field's name."""
    reading: KeyReading | None = None
    partitioned: bool | None = None


class TimeDeclaration(_Part):
    """Which member is the event time. Without ``unit`` the unit of a number is decided by its magnitude."""

    field: _Name
    unit: TimeUnit | None = None


class FieldDeclaration(_Part):
    """Type of a field, and where it stands; without ``type`` each value keeps its own.

    ``text``: the producer writes the number as text, such as ``"220.22"``. It is read as a number of the type; other
    text is a value of another type.
    """

    type: FieldType | None = None
    path: _Name | None = None
    text: bool = False

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        if self.text and self.type not in NUMBERS:
            raise ValueError(
                f"text: true reads numbers that are written as text, and the type is {self.type or 'not declared'}; "
                f"expected one of {', '.join(NUMBERS)}, such as {{type: float64, text: true}}"
            )
        return self


def _named(name: str) -> Any:
    """Validator of a shorthand: one string stands for a mapping with that member."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


_Fields = dict[_Name, Annotated[FieldDeclaration, _named("type")]]


class StreamDeclaration(_Part):
    """Declaration of one stream. All but ``name`` may be left out."""

    name: _Name
    topic: _Name | None = None
    """Topic that carries the stream; default: ``mono.<name>``."""
    decoder: Annotated[DecoderChoice | None, _named("name")] = None
    """Default: each message is recognised by its content type and its content."""
    key: Annotated[KeyDeclaration, _named("field")] = KeyDeclaration()
    time: Annotated[TimeDeclaration | None, _named("field")] = None
    id: _Name | None = None
    """Path of the member that identifies an event: a second event with its value is a duplicate."""
    fields: _Fields = Field(default_factory=dict)
    on_type_error: Annotated[
        Literal["dead_letter", "null"],
        BeforeValidator(lambda value: "null" if value is None else value),  # YAML reads null without quotes as None
    ] = "dead_letter"

    @model_validator(mode="before")
    @classmethod
    def _last_name_of_path(cls, value: Any) -> Any:
        # "key: after.customer_id" is the field customer_id, which stands at that path.
        if isinstance(value, dict) and isinstance(value.get("key"), str) and "." in value["key"]:
            path = value["key"]
            return value | {"key": {"field": path.rpartition(".")[2], "path": path}}
        return value

    @model_validator(mode="after")
    def _check_topic(self) -> Self:
        topic = self.topic or mono_topic(self.name)
        if not is_legal(topic):
            advice = "name the topic as it is in Kafka" if self.topic else "give the name of its topic as topic:"
            raise ValueError(
                f"topic {topic!r}; expected 1 to 249 letters, digits, dots, underscores and hyphens; {advice}"
            )
        if is_derived(topic):
            raise ValueError(
                f"the pipeline itself writes topic {topic!r}, so no stream can be in it; rules read the results of "
                "another rule or of a window as a stream of its name"
            )
        return self

    @property
    def is_partitioned(self) -> bool:
        """Whether the topic is partitioned by the key field."""
        if self.key.partitioned is not None:
            return self.key.partitioned
        return self.decoder is None or self.decoder.name != DEBEZIUM

    @property
    def identifying(self) -> frozenset[str]:
        """The fields that distinguish the events of the stream."""
        return frozenset({self.key.field} if self.id is None else {self.key.field, self.id})

    @property
    def types(self) -> dict[str, FieldType]:
        """Declared types by field."""
        return {name: field.type for name, field in self.fields.items() if field.type is not None}

    @cached_property
    def numbers_as_text(self) -> Mapping[str, FieldType]:
        """Types of the fields whose numbers are written as text, by column."""
        return {column_name(name): field.type for name, field in self.fields.items() if field.text and field.type}

    def read_numbers(self, fields: MutableMapping[str, Any]) -> None:
        """Replace text by the number that it writes, in the fields (by column) for which that is declared.

        A decimal number is replaced by the integer that it is, in the fields that are declared to hold integers.
        """
        for column in self.numbers_as_text:
            if column in fields:
                fields[column] = self.read_number(column, fields[column])
        for column in self.whole_columns:
            if isinstance(fields.get(column), Decimal):
                fields[column] = distinguishing(fields[column])

    def read_number(self, column: str, value: Any) -> Any:
        """The value of a column; the number where the value is text that writes one, and that is declared."""
        kind = self.numbers_as_text.get(column)
        text = bytes_text(bytes(value)) if isinstance(value, bytes | bytearray | memoryview) else value
        if kind is None or not isinstance(text, str):
            return value
        number = number_of(text, whole=kind in WHOLE)
        return value if number is None else number

    @cached_property
    def column_types(self) -> Mapping[str, FieldType]:
        """Declared types, by the column of a frame that holds the field; made once for all events."""
        return {column_name(name): kind for name, kind in self.types.items()}

    @cached_property
    def exact_columns(self) -> frozenset[str]:
        """Columns that are declared to hold integers or text, in which decimal numbers keep their digits."""
        return frozenset(name for name, kind in self.column_types.items() if kind in WHOLE or kind == "string")

    @cached_property
    def whole_columns(self) -> frozenset[str]:
        """Columns that are declared to hold integers."""
        return frozenset(name for name, kind in self.column_types.items() if kind in WHOLE)

    @cached_property
    def typed_columns(self) -> frozenset[str]:
        """Columns of a declared type that tells lists and objects from text, as all but ``json`` do."""
        return frozenset(name for name, kind in self.column_types.items() if kind != "json")


DEBEZIUM: Final = "debezium"
