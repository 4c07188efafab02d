"""The lineage of a multi event: its sources, down to topic, partition and offset.

It is looked up in a SQL database, in recorded logs, or on a broker. A source that is itself a multi event is explained
in turn. If a log or a broker is given, each source is shown with its fields, read at its offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from astrocyte.pipeline.console import counted, number_text
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.times import iso_from_us, time_us
from astrocyte.schemas.topics import is_derived

__all__ = [
    "Explained",
    "NoSuchEvent",
    "Origin",
    "SourceEvent",
    "explain",
    "explain_sources",
    "explained_of_json",
    "render",
]

_DEPTH: Final = 16
_SHOWN: Final = 12
"""Largest number of sources of one multi event, window or statistic that are shown as text."""


class NoSuchEvent(AstrocyteError):
    """No origin that was searched has a multi event with the id."""


@dataclass(slots=True)
class SourceEvent:
    """One source of a multi event, and its location."""

    event_id: str
    stream: str | None = None
    step: str | None = None
    time_us: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    fields: dict[str, Any] | None = None
    """The event's JSON record, if it could be read."""
    made_of: Explained | None = None
    """Its own lineage, if it is a multi event or the result of a window or statistic."""


@dataclass(slots=True)
class Explained:
    """A multi event with its sources, in the order in which the rule took them."""

    event_id: str
    rule: str
    time_us: int
    sources: list[SourceEvent]
    rule_version: str | None = None
    key: str | None = None
    integrated_value: float | None = None
    confidence: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    status: str = "final"
    """Of a rule of eventual consistency: provisional, confirmed or retracted."""
    note: str | None = None
    """What could not be found, and what to do; of a statistic, what else is behind it."""
    window_us: tuple[int, int] | None = None
    """Of the result of a window or statistic: start (included) and end (excluded) of its events."""

    def places(self) -> list[dict[str, Any]]:
        """Where the sources lie: for each topic and partition the first and last offset, and their number."""
        found: dict[tuple[str, int], list[int]] = {}
        for source in self.sources:
            if source.topic is not None and source.partition is not None and source.offset is not None:
                found.setdefault((source.topic, source.partition), []).append(source.offset)
        return [
            {"topic": topic, "partition": partition, "first_offset": min(each), "last_offset": max(each),
             "events": len(each)}
            for (topic, partition), each in sorted(found.items())
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The tree as nested objects."""
        return {
            "event_id": self.event_id,
            "timestamp": iso_from_us(self.time_us),
            "correlation_rule": self.rule,
            "rule_version": self.rule_version,
            "key": self.key,
            "integrated_value": self.integrated_value,
            "confidence": self.confidence,
            "details": self.details,
            "alerts": self.alerts,
            "status": self.status,
            "note": self.note,
            "window": None
            if self.window_us is None
            else dict(zip(("start", "end"), map(iso_from_us, self.window_us), strict=True)),
            "places": self.places(),
            "sources": [_source_json(source) for source in self.sources],
        }


class Origin(Protocol):
    """A store in which multi events are looked up."""

    name: str

    def find(self, event_id: str) -> Explained | None:
        """The multi event with its direct sources; the id of an alert finds the multi event of the alert."""

    def read(self, sources: Sequence[SourceEvent]) -> None:
        """Fill in the fields of the sources that can be read at their offsets."""


class Tracer(Protocol):
    """Finds the events behind sources that have no place of their own; see `pipeline.analysis.ancestry`."""

    def of_result(self, source: SourceEvent) -> Explained | None:
        """The events from which the result of a window or statistic was computed."""


def explain(event_id: str, origins: Sequence[Origin], tracer: Tracer | None = None) -> Explained:
    """The lineage tree of a multi event, from the first origin that has it. Raises NoSuchEvent.

    With a ``tracer`` it leads through windows and statistics to the events themselves.
    """
    for origin in origins:
        found = origin.find(event_id)
        if found is not None:
            _explain_sources(found, origins, origin, tracer, 0)
            return found
    places = " or ".join(origin.name for origin in origins)
    raise NoSuchEvent(
        f"no multi event {event_id!r} in {places}; 'astrocyte tap multi.events' shows the ids, and --db, --log or -b "
        "say where to look"
    )


def explain_sources(found: Explained, origins: Sequence[Origin], tracer: Tracer) -> None:
    """`explain` of a multi event that is in no origin, such as one of rules that are only tried.

    Of its sources those without fields are read in the origins.
    """
    for source in found.sources:
        if _may_be_a_result(source):
            source.made_of = tracer.of_result(source)
            if source.made_of is not None:
                _explain_made(source.made_of, tracer, 1)
    for origin in origins:
        origin.read([source for source in found.sources if source.fields is None and source.topic is not None])


def explained_of_json(body: Mapping[str, Any]) -> Explained:
    """What `Explained.as_json` gave, without what its sources are made of."""
    sources = [
        SourceEvent(
            each["event_id"], each["stream"], each["step"],
            None if each["timestamp"] is None else time_us(each["timestamp"]),
            each["topic"], each["partition"], each["offset"], each["event"],
        )
        for each in body["sources"]
    ]  # fmt: skip
    return Explained(
        body["event_id"], body["correlation_rule"], time_us(body["timestamp"]), sources, body["rule_version"],
        body["key"], body["integrated_value"], body["confidence"], body["details"], body["alerts"], body["status"],
        body["note"],
    )  # fmt: skip


def _explain_sources(
    found: Explained, origins: Sequence[Origin], first: Origin, tracer: Tracer | None, depth: int
) -> None:
    for origin in (first, *(other for other in origins if other is not first)):
        origin.read([source for source in found.sources if source.fields is None and source.topic is not None])
    if depth >= _DEPTH:
        return
    for source in found.sources:
        if _may_be_a_result(source):
            source.made_of = first.find(source.event_id)
            if source.made_of is not None:
                _explain_sources(source.made_of, origins, first, tracer, depth + 1)
            elif tracer is not None:
                source.made_of = tracer.of_result(source)
                if source.made_of is not None:
                    _explain_made(source.made_of, tracer, depth + 1)


def _explain_made(found: Explained, tracer: Tracer, depth: int) -> None:
    """Windows and statistics over each other; the fields of their events are not read: there may be very many."""
    if depth >= _DEPTH:
        return
    for source in found.sources:
        if _may_be_a_result(source):
            source.made_of = tracer.of_result(source)
            if source.made_of is not None:
                _explain_made(source.made_of, tracer, depth + 1)


def _may_be_a_result(source: SourceEvent) -> bool:
    # Looking one up reads whole topics, so events of the input topics, whatever their names, are left out.
    return source.topic is None or is_derived(source.topic)


def _source_json(source: SourceEvent) -> dict[str, Any]:
    return {
        "event_id": source.event_id,
        "stream": source.stream,
        "step": source.step,
        "timestamp": None if source.time_us is None else iso_from_us(source.time_us),
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "event": source.fields,
        "made_of": None if source.made_of is None else source.made_of.as_json(),
    }


def render(explained: Explained) -> str:
    """The tree as readable text."""
    return "\n".join(_lines(explained)) + "\n"


def _lines(explained: Explained) -> Iterator[str]:
    version = f" version {explained.rule_version}" if explained.rule_version else ""
    key = f", key {explained.key}" if explained.key is not None else ""
    yield f"{explained.event_id}  {explained.rule}{version}{key}, {iso_from_us(explained.time_us)}"
    values = {"integrated_value": explained.integrated_value, "confidence": explained.confidence} | explained.details
    shown = "  ".join(f"{name} = {_value(value)}" for name, value in values.items() if value is not None)
    if shown:
        yield f"│  {shown}"
    if explained.status != "final":
        yield f"│  {explained.status}"
    for alert in explained.alerts:
        yield f"│  alert ({alert['severity']}): {alert['message']}"
    total = len(explained.sources)
    if explained.window_us is not None:
        start, end = map(iso_from_us, explained.window_us)
        count = f"{counted(total, 'event')} " if total else ""
        yield f"│  of {count}from {start} up to {end}"
    for each in explained.places() if total > _SHOWN else ():
        place = f"{each['topic']}[{each['partition']}]@{each['first_offset']} to {each['last_offset']}"
        yield f"│  {counted(each['events'], 'event')} in {place}"
    if explained.note is not None:
        yield f"{'│ ' if total else '└─'} {explained.note}"
    shown_sources = explained.sources if total <= _SHOWN else [*explained.sources[: _SHOWN - 1], explained.sources[-1]]
    for number, source in enumerate(shown_sources):
        last = number == len(shown_sources) - 1
        if last and len(shown_sources) < total:
            yield f"├─ ... {total - len(shown_sources):,} more of {total:,} (all with --json)"
        branch, trunk = ("└─ ", "   ") if last else ("├─ ", "│  ")
        step = f"{source.step}: " if source.step else ""
        yield f"{branch}{step}{source.stream or '?'}  {source.event_id}"
        time = "" if source.time_us is None else f"{iso_from_us(source.time_us)}  "
        place = _place(source)
        yield f"{trunk}   {time}{place}"
        if source.fields is not None:
            inner = {name: value for name, value in source.fields.items() if name in ("type", "value")}
            for nested in ("metadata", "payload"):
                inner |= source.fields.get(nested) or {}
            yield f"{trunk}   " + "  ".join(
                f"{name} = {_value(value)}" for name, value in inner.items() if value is not None
            )
        if source.made_of is not None:
            for line in _lines(source.made_of):
                yield f"{trunk}   {line}"


_UNKNOWN: Final = "place unknown (of an event of a window or statistic: --rules FILE names the rules that made it)"


def _place(source: SourceEvent) -> str:
    if source.topic is None:
        return "no place of its own" if source.made_of is not None else _UNKNOWN
    return f"{source.topic}[{source.partition}]@{source.offset}"


def _value(value: Any) -> str:
    return (
        number_text(value)
        if isinstance(value, float)
        else value
        if isinstance(value, str)
        else orjson.dumps(value).decode()
    )
