"""Origins of lineage: recorded logs, a broker, a SQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from astrocyte.pipeline.analysis.ancestry import WindowSpan
from astrocyte.pipeline.analysis.explain import Explained, NoSuchEvent, SourceEvent
from astrocyte.pipeline.kafka.record import ConsumedRecord, status_of
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.recording.tap import Selector
from astrocyte.schemas.errors import AstrocyteError
from astrocyte.schemas.times import time_us
from astrocyte.schemas.topics import ALERTS, MULTI_EVENTS

__all__ = ["BrokerOrigin", "LogOrigin", "SqlOrigin", "explained_of"]


class LogOrigin:
    """Multi events and their sources in recorded logs."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = tuple(paths)
        self.name = ", ".join(str(path) for path in paths)

    def find(self, event_id: str) -> Explained | None:
        """See `pipeline.analysis.explain.Origin`."""
        return _find(event_id, lambda topic: (r for r in self._records() if r.topic == topic))

    def read(self, sources: Sequence[SourceEvent]) -> None:
        """See `pipeline.analysis.explain.Origin`."""
        wanted = _by_place(sources)
        if wanted:
            for record in self._records():
                place = (record.topic, record.partition, record.offset)
                if place in wanted:
                    _fill(record, wanted.pop(place))
                    if not wanted:
                        return

    def records(self, topic: str) -> Iterator[ConsumedRecord]:
        """See `pipeline.analysis.ancestry.Store`."""
        return (record for record in self._records() if record.topic == topic)

    def window_result(self, _window: str, _result_id: str, _end_us: int) -> WindowSpan | None:
        """None: results in a log are among the records of their topic."""
        return None

    def _records(self) -> Iterator[ConsumedRecord]:
        for path in self.paths:
            yield from read_log(path)


class BrokerOrigin:
    """Multi events and their sources in the topics of a broker."""

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.name = f"the broker at {broker}"

    def find(self, event_id: str) -> Explained | None:
        """See `pipeline.analysis.explain.Origin`."""
        return _find(event_id, lambda topic: asyncio.run(self._topic(topic)))

    def read(self, sources: Sequence[SourceEvent]) -> None:
        """See `pipeline.analysis.explain.Origin`."""
        wanted = _by_place(sources)
        if wanted:
            asyncio.run(self._read(wanted))

    def records(self, topic: str) -> list[ConsumedRecord]:
        """See `pipeline.analysis.ancestry.Store`."""
        return asyncio.run(self._topic(topic))

    def window_result(self, _window: str, _result_id: str, _end_us: int) -> WindowSpan | None:
        """None: results on a broker are among the records of their topic."""
        return None

    async def _topic(self, topic: str) -> list[ConsumedRecord]:
        from astrocyte.pipeline.kafka.client import consumer_client, scan, topic_partitions

        known = await topic_partitions(self.broker)
        if topic not in known:
            return []
        async with consumer_client(self.broker) as client:
            return [record async for batch in scan(client, {topic: known[topic]}) for record in batch]

    async def _read(self, wanted: dict[tuple[str, int, int], list[SourceEvent]]) -> None:
        from astrocyte.pipeline.kafka.client import consumer_client, read_at

        async with consumer_client(self.broker) as client:
            for place, sources in wanted.items():
                record = await read_at(client, *place)
                if record is not None:
                    _fill(record, sources)


class SqlOrigin:
    """Multi events and their sources in a SQL database."""

    def __init__(self, url: str) -> None:
        from astrocyte.agents.sinks.sql.engines import engine_of
        from astrocyte.agents.sinks.sql.url import database_url, shown_address, sqlite_path

        address = database_url(url)
        self.name = f"the database {shown_address(url)}"
        if address.get_backend_name() == "sqlite":
            path = sqlite_path(address)
            if path != ":memory:" and not Path(path).exists():
                raise NoSuchEvent(f"there is no database {path}; a worker with the role sql, or the demo, creates one")
        self._engine = engine_of(url)

    def find(self, event_id: str) -> Explained | None:
        """See `pipeline.analysis.explain.Origin`."""
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        from astrocyte.agents.sinks.sql.engines import columns_there
        from astrocyte.schemas.tables.outputs import AlertRow, MultiEventRow, MultiEventSource

        events, sources, alerts = MultiEventRow.__table__, MultiEventSource.__table__, AlertRow.__table__
        try:
            with self._engine.connect() as connection:
                match = select(*columns_there(connection, events))
                row = connection.execute(match.where(events.c.event_id == event_id)).mappings().first()
                if row is None:
                    named = select(alerts.c.multi_event_id).where(alerts.c.alert_id == event_id)
                    other = connection.execute(named).scalar()
                    if other is None or other == event_id:
                        return None
                    row = connection.execute(match.where(events.c.event_id == other)).mappings().first()
                    if row is None:
                        return None
                made_of = select(sources).where(sources.c.event_id == row["event_id"]).order_by(sources.c.position)
                alerted = select(alerts.c.alert_id, alerts.c.severity, alerts.c.message)
                alerted = alerted.where(alerts.c.multi_event_id == row["event_id"])
                return _from_rows(
                    row,
                    connection.execute(made_of).mappings().all(),
                    connection.execute(alerted).mappings().all(),
                )
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise AstrocyteError(f"{self.name} cannot be read: {reason}") from None

    def read(self, sources: Sequence[SourceEvent]) -> None:
        """Do nothing: SQL does not store all mono events."""

    def records(self, _topic: str) -> Iterable[ConsumedRecord]:
        """None: SQL holds no messages."""
        return ()

    def window_result(self, window: str, result_id: str, end_us: int) -> WindowSpan | None:
        """See `pipeline.analysis.ancestry.Store`."""
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        from astrocyte.schemas.tables.outputs import WindowResult

        results = WindowResult.__table__
        query = select(results).where(
            results.c.window_end == end_us, results.c.result_id == result_id, results.c.window_name == window
        )
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).mappings().all()
        except SQLAlchemyError:
            return None  # a database of an earlier version has no results of windows
        if not rows:
            return None
        fields = {row["field"]: row["text"] if row["value"] is None else row["value"] for row in rows}
        first = rows[0]
        return WindowSpan(
            first["event_key"] or None, first["window_start"], first["window_end"], fields, first["simulation_id"]
        )


def _from_rows(row: Any, sources: Iterable[Any], alerts: Iterable[Any]) -> Explained:
    return Explained(
        row["event_id"],
        row["correlation_rule"],
        row["timestamp"],
        [
            SourceEvent(
                source["source_event_id"],
                source["stream"],
                source["step"],
                source["timestamp"],
                source["source_topic"],
                source["source_partition"],
                source["source_offset"],
            )
            for source in sources
        ],
        row["rule_version"],
        row["event_key"],
        row["integrated_value"],
        row["confidence"],
        row["details"] or {},
        [{"alert_id": a["alert_id"], "severity": a["severity"], "message": a["message"]} for a in alerts],
        status=row["status"] or "final",
    )


def _find(event_id: str, records: Callable[[str], Iterable[ConsumedRecord]]) -> Explained | None:
    found = next((r for r in records(MULTI_EVENTS) if _body(r).get("event_id") == event_id), None)
    if found is None:
        alert = next((_body(r) for r in records(ALERTS) if _body(r).get("alert_id") == event_id), None)
        other = None if alert is None else alert.get("multi_event_id")
        if other is None or other == event_id:
            return None
        found = next((r for r in records(MULTI_EVENTS) if _body(r).get("event_id") == other), None)
        if found is None:
            return None
    explained = explained_of(found)
    if explained.status != "final":  # what came later of this match is its status now
        later = [status_of(r) for r in records(MULTI_EVENTS) if _body(r).get("event_id") == explained.event_id]
        explained.status = later[-1]
    alerts: dict[str, dict[str, Any]] = {}
    for record in records(ALERTS):
        body = _body(record)
        if body.get("multi_event_id") == explained.event_id:
            alerts[str(body.get("alert_id"))] = {name: body.get(name) for name in ("alert_id", "severity", "message")}
    explained.alerts += alerts.values()
    return explained


def explained_of(record: ConsumedRecord) -> Explained:
    """The multi event in one message of the topic ``multi.events``."""
    body = _body(record)
    entries: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for stream, entry in (body.get("lineage") or {}).items():
        for each in (entry, *(entry.get("also") or ())):
            entries[each.get("event_id")] = (stream, each)
    sources = []
    for source_id in body.get("source_events", ()):
        stream, entry = entries.get(source_id, (None, {}))
        time = entry.get("timestamp")
        sources.append(
            SourceEvent(
                source_id,
                stream,
                entry.get("step"),
                None if time is None else time_us(time),
                entry.get("topic"),
                entry.get("partition"),
                entry.get("offset"),
            )
        )
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
    return Explained(
        body["event_id"],
        body.get("correlation_rule", "?"),
        time_us(body["timestamp"]),
        sources,
        next((value for name, value in headers.items() if name in ("ce_ruleversion", "ce_rule_version")), None),
        None if record.key is None else record.key.decode("utf-8", "replace"),
        body.get("integrated_value"),
        body.get("confidence"),
        body.get("metadata") or {},
        status=status_of(record),
    )


def _body(record: ConsumedRecord) -> dict[str, Any]:
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _by_place(sources: Iterable[SourceEvent]) -> dict[tuple[str, int, int], list[SourceEvent]]:
    places: dict[tuple[str, int, int], list[SourceEvent]] = {}
    for source in sources:
        if source.topic is not None and source.partition is not None and source.offset is not None:
            places.setdefault((source.topic, source.partition, source.offset), []).append(source)
    return places


def _fill(record: ConsumedRecord, sources: Iterable[SourceEvent]) -> None:
    wanted = {source.event_id: source for source in sources}
    for event in Selector()([record]):
        try:
            body = orjson.loads(event.value or b"")
        except orjson.JSONDecodeError:
            continue
        event_id = body.get("event_id", body.get("id")) if isinstance(body, dict) else None
        source = wanted.get(str(event_id))
        if source is None and event.row is None and len(wanted) == 1:
            (source,) = wanted.values()  # one message, one event: its id may be derived from its offset
        if source is not None:
            source.fields = body
