"""JSON records: what users and other programs produce and consume (docs/events.md).

The models here define the shapes. High-rate paths write and read the same JSON column by column
(`schemas.json.reader`); tests check both against these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer

from astrocyte.schemas.times import us_from_iso

__all__ = [
    "Alert",
    "ControlEvent",
    "DeadLetter",
    "DnaEvent",
    "DnaMeta",
    "LineageEntry",
    "MonoEvent",
    "MultiEvent",
    "Severity",
    "is_command",
]

Severity = Literal["info", "warning", "critical"]


def _check_time(text: str) -> str:
    us_from_iso(text)
    return text


Timestamp = Annotated[str, AfterValidator(_check_time)]
"""ISO 8601 text, kept unchanged."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MonoEvent(_Record):
    """One mono event of one stream. ``metadata`` holds the fields other than ``value``."""

    event_id: str
    timestamp: Timestamp
    source_stream: str = Field(description="'stream:' and the name of the stream")
    type: str
    value: float | int | str | bool | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class LineageEntry(_Record):
    """Origin of one source event of a match; ``also`` holds further events of the same stream."""

    event_id: str
    timestamp: Timestamp
    step: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    also: tuple[LineageEntry, ...] = ()

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value not in (None, (), [])}


class MultiEvent(_Record):
    """A multi event: what a rule makes of the events of a match.

    ``metadata`` holds the values that the rule emits besides ``integrated_value`` and ``confidence``, and is left
    out where there are none. The correlation key is the Kafka key; the rule's version, and whether the event is
    provisional or timed out, are CloudEvents extension attributes in the headers.
    """

    event_id: str
    timestamp: Timestamp
    event_type: Literal["MULTI_ORIGINATED"] = "MULTI_ORIGINATED"
    source_events: tuple[str, ...]
    correlation_rule: str
    integrated_value: float | int | None = None
    confidence: float = 1.0
    lineage: dict[str, LineageEntry]
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_empty_metadata(self, handler: Any) -> dict[str, Any]:
        record: dict[str, Any] = handler(self)
        if not record["metadata"]:
            del record["metadata"]
        return record


class Alert(_Record):
    """A notification, with severity and message, about one multi event, or about those of a group.

    The last three members are left out where they do not apply.
    """

    alert_id: str
    timestamp: Timestamp
    rule: str
    severity: Severity
    message: str
    key: str | None = None
    multi_event_id: str
    count: int | None = Field(
        default=None, description="multi events of a rule with group; multi_event_id is the first"
    )
    keys: tuple[str, ...] | None = Field(default=None, description="keys of these multi events, 100 at most")
    suppressed: int | None = Field(default=None, description="alerts that cool_down suppressed before this one")

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: Any) -> dict[str, Any]:
        optional = ("count", "keys", "suppressed")
        return {name: value for name, value in handler(self).items() if value is not None or name not in optional}


class DeadLetter(_Record):
    """A record that could not be processed, whole, with the reason and its topic, partition and offset."""

    letter_id: str
    reason: str
    stage: str = Field(
        min_length=1, max_length=32, description="step that refused it (docs/events.md), or the name of a sink"
    )
    topic: str
    partition: int
    offset: int
    row: int | None = Field(default=None, description="row of a frame, where only one row was refused")
    timestamp: Timestamp | None = None
    key_b64: str | None = None
    payload_b64: str | None = Field(default=None, description="the message's value, or of one row its JSON record")
    headers: tuple[tuple[str, str], ...] = Field(default=(), description="header values in base64")

    @property
    def place(self) -> str:
        """Topic, partition, offset and row of what was refused, as text."""
        row = "" if self.row is None else f" row {self.row}"
        return f"{self.topic}[{self.partition}]@{self.offset}{row}"


class ControlEvent(_Record):
    """A control command; the simulator sets ``tick`` when the command takes effect, so that a replay repeats it."""

    control: str
    timestamp: Timestamp
    run: str | None = None
    tick: int | None = None
    values: dict[str, float | int | str | bool | None]


def is_command(body: Mapping[str, Any]) -> bool:
    """Whether the object of a control message is a `ControlEvent`, as controllers give them.

    Such commands hold absolute values and their time, so two that are identical are one that was repeated. A message
    that a user sends by hand may have only values, and may be meant twice.
    """
    return isinstance(body.get("control"), str) and "timestamp" in body and isinstance(body.get("values"), Mapping)


class DnaMeta(_Record):
    """Metadata of the dna envelope."""

    correlation_id: str | None = None
    version: Literal["1.0"] = "1.0"


class DnaEvent(_Record):
    """The dna envelope of ``dna.*`` events (docs/events.md); ``timestamp`` is in seconds since 1970."""

    id: str
    type: str
    source: Literal["dna_service"] = "dna_service"
    target: None = None
    timestamp: float
    payload: dict[str, Any]
    meta: DnaMeta = DnaMeta()
