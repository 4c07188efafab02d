"""Queries about what rules found: alerts, multi events with their sources, dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.engine import Engine

from astrocyte.agents.stores.repositories.base import Repository, columns_of
from astrocyte.schemas.tables import AlertRow, DeadLetterRow, MultiEventRow, MultiEventSource, WindowResult
from astrocyte.schemas.tables.outputs import stands

__all__ = ["Letter", "OutputRepository", "Source", "StoredAlert", "StoredMultiEvent", "WindowValue"]

_ALERTS = AlertRow.__table__
_EVENTS = MultiEventRow.__table__
_SOURCES = MultiEventSource.__table__
_LETTERS = DeadLetterRow.__table__
_WINDOWS = WindowResult.__table__


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert; ``timestamp`` is its event time in microseconds."""

    alert_id: str
    simulation_id: str | None
    timestamp: int
    rule: str
    severity: str
    message: str
    event_key: str | None
    multi_event_id: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class StoredMultiEvent:
    """A multi event; ``details`` holds the values that its rule emits besides the columns."""

    event_id: str
    simulation_id: str | None
    timestamp: int
    correlation_rule: str
    event_key: str | None
    integrated_value: float | None
    confidence: float | None
    provisional: bool | None
    status: str | None
    details: Any


@dataclass(frozen=True, slots=True)
class Source:
    """One source event of a multi event, down to topic, partition and offset."""

    position: int
    source_event_id: str
    stream: str | None
    step: str | None
    timestamp: int | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that could not be processed, with the reason."""

    letter_id: str
    stage: str
    reason: str
    source_topic: str
    source_partition: int
    source_offset: int
    source_row: int | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class WindowValue:
    """One field of one result of a window; start and end are event times in microseconds, the end is excluded."""

    event_key: str
    field: str
    window_start: int
    window_end: int
    value: float | None
    text: str | None


_ALERT_COLUMNS = columns_of(AlertRow, StoredAlert)
_EVENT_COLUMNS = columns_of(MultiEventRow, StoredMultiEvent)
_SOURCE_COLUMNS = columns_of(MultiEventSource, Source)
_LETTER_COLUMNS = columns_of(DeadLetterRow, Letter)
_WINDOW_COLUMNS = columns_of(WindowResult, WindowValue)


class OutputRepository(Repository):
    """Outputs about one simulation; without ``simulation_id``, all in the database.

    Lists and counts leave out what was retracted (of rules of eventual consistency).
    """

    def __init__(self, engine: Engine, simulation_id: str | None = None) -> None:
        super().__init__(engine, simulation_id or "")

    def alerts(self, *, rule: str | None = None, severity: str | None = None) -> Iterator[StoredAlert]:
        """Alerts (of a rule, of a severity) in order of event time, streamed."""
        query = self._mine(select(*_ALERT_COLUMNS), _ALERTS).where(stands(_ALERTS))
        query = query.order_by(_ALERTS.c.timestamp, _ALERTS.c.alert_id)
        if rule is not None:
            query = query.where(_ALERTS.c.rule == rule)
        return self._stream(query if severity is None else query.where(_ALERTS.c.severity == severity), StoredAlert)

    def alert_counts(self) -> dict[tuple[str, str], int]:
        """Number of alerts by rule and severity."""
        kinds = (_ALERTS.c.rule, _ALERTS.c.severity)
        query = self._mine(select(*kinds, func.count()), _ALERTS).where(stands(_ALERTS))
        query = query.group_by(*kinds).order_by(*kinds)
        with self.engine.connect() as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(query)}

    def multi_events(self, rule: str | None = None) -> Iterator[StoredMultiEvent]:
        """Multi events (of a rule) in order of event time, streamed."""
        query = self._mine(select(*_EVENT_COLUMNS), _EVENTS).where(stands(_EVENTS))
        query = query.order_by(_EVENTS.c.timestamp, _EVENTS.c.event_id)
        return self._stream(
            query if rule is None else query.where(_EVENTS.c.correlation_rule == rule), StoredMultiEvent
        )

    def multi_event(self, event_id: str) -> StoredMultiEvent | None:
        """One multi event, such as that of an alert, or None."""
        return self._first(
            self._mine(select(*_EVENT_COLUMNS), _EVENTS).where(_EVENTS.c.event_id == event_id), StoredMultiEvent
        )

    def sources(self, event_id: str) -> list[Source]:
        """The source events of a multi event, in the order of its steps."""
        query = select(*_SOURCE_COLUMNS).where(_SOURCES.c.event_id == event_id).order_by(_SOURCES.c.position)
        return self._all(query, Source)

    def window(self, name: str, field: str | None = None, *, key: str | None = None) -> Iterator[WindowValue]:
        """Results of a window (one of its fields, one key) in order of event time, streamed: a curve."""
        order = (_WINDOWS.c.window_end, _WINDOWS.c.event_key, _WINDOWS.c.field)
        query = self._mine(select(*_WINDOW_COLUMNS), _WINDOWS).where(_WINDOWS.c.window_name == name).order_by(*order)
        if field is not None:
            query = query.where(_WINDOWS.c.field == field)
        return self._stream(query if key is None else query.where(_WINDOWS.c.event_key == key), WindowValue)

    def dead_letters(self, *, stage: str | None = None) -> Iterator[Letter]:
        """Dead letters (of a stage) by topic, partition and offset, streamed."""
        place = (_LETTERS.c.source_topic, _LETTERS.c.source_partition, _LETTERS.c.source_offset, _LETTERS.c.letter_id)
        query = self._mine(select(*_LETTER_COLUMNS), _LETTERS).order_by(*place)
        return self._stream(query if stage is None else query.where(_LETTERS.c.stage == stage), Letter)

    def _mine(self, query: Select[Any], table: Any) -> Select[Any]:
        return query.where(self._own(table)) if self.simulation_id else query
