"""Matches as records for other programs: multi events with their lineage, and alerts.

The lineage lists, by stream, the events of a match: ``{"axon_1": {"event_id", "timestamp", "step", "topic",
"partition", "offset"}, ...}``. Further events of one stream are in ``also`` of its first one, in the same form.
Events read from Kafka have topic, partition and offset. An event that is itself a match or a window result has the id
of that multi event or window result, so that the lineage can be traced to the source events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import orjson

from astrocyte.agents.matches.headers import Headers, own_headers, rule_headers
from astrocyte.agents.matches.table import FINAL, STATUSES, MatchTable
from astrocyte.schemas.ids import Ids, format_ids, match_ids
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import iso_strings

__all__ = ["alert_ids", "alert_records", "lineages", "multi_event_records"]

_ASIDE: Final = ("integrated_value", "confidence")
_DUMP: Final = orjson.OPT_SERIALIZE_NUMPY


def lineages(table: MatchTable) -> list[dict[str, dict[str, Any]]]:
    """Lineage of every match."""
    return [lineage for lineage, _ in _lineages(table)]


def multi_event_records(table: MatchTable) -> list[JsonRecord]:
    """Every match as a multi event (`schemas.events.MultiEvent`), in the table's order.

    Headers hold the rule's version (``ce_ruleversion``) and, where they apply, ``ce_timedout``, or ``ce_status``
    (provisional, confirmed, retracted) with ``ce_provisional``. Matches whose emitted values raised are left out:
    ``table.values.failed`` has them.
    """
    if not len(table):
        return []
    ids, times = format_ids(table.ids), iso_strings(table.time_us)
    values, confidence = table.values, table.values.confidence.tolist()
    shared = _SharedHeaders(table, "astrocyte.multi_event")
    keys, rules, runs = table.key.tolist(), table.rule.tolist(), table.first_runs()
    found = []
    # Each body is serialised at once: thousands of live nested dictionaries would slow the garbage collector down.
    for i, (lineage, sources) in enumerate(_lineages(table)):
        if values.is_lost(i):
            continue
        body: dict[str, Any] = {
            "event_id": ids[i],
            "timestamp": times[i],
            "event_type": "MULTI_ORIGINATED",
            "source_events": sources,
            "correlation_rule": table.rules[rules[i]].name,
            "integrated_value": values.integrated[i],
            "confidence": confidence[i],
            "lineage": lineage,
        }
        metadata = {name: value for name, value in values.emit[i].items() if name not in _ASIDE}
        if metadata:
            body["metadata"] = metadata
        key = keys[i]
        headers = [*shared.of(i), *own_headers(ids[i], times[i], runs[i])]
        found.append(JsonRecord(None if key is None else key.encode(), orjson.dumps(body, option=_DUMP), headers))
    return found


def alert_ids(table: MatchTable) -> Ids:
    """Ids of the alerts of the matches: functions of the ids of these."""
    count = len(table)
    return match_ids("alert", "1", table.ids, np.zeros(count, np.int64), np.arange(count + 1))


def alert_records(table: MatchTable) -> list[JsonRecord]:
    """The alerts (`schemas.events.Alert`) of the matches, where the rule defines one, in the table's order."""
    chosen = [i for i, alert in enumerate(table.values.alert) if alert is not None] if len(table) else []
    if not chosen:
        return []
    part = table.take(np.array(chosen, np.int64))
    multi, times = format_ids(part.ids), iso_strings(part.time_us)
    ids = format_ids(alert_ids(part))
    shared = _SharedHeaders(part, "astrocyte.alert")
    keys, runs, found = part.key.tolist(), part.first_runs(), []
    for i, place in enumerate(chosen):
        alert = table.values.alert[place]
        assert alert is not None
        body: dict[str, Any] = {
            "alert_id": ids[i],
            "timestamp": times[i],
            "rule": part.rules[part.rule[i]].name,
            "severity": alert[0],
            "message": alert[1],
            "key": keys[i],
            "multi_event_id": multi[i],
        }
        if before := part.suppressed_before(i):
            body["suppressed"] = before
        headers = [*shared.of(i), *own_headers(ids[i], times[i], runs[i])]
        found.append(JsonRecord(None if keys[i] is None else keys[i].encode(), orjson.dumps(body), headers))
    return found


class _SharedHeaders:
    """Headers common to all matches of one rule and status, built once."""

    def __init__(self, table: MatchTable, kind: str) -> None:
        self._table = table
        self._kind = kind
        self._known: dict[tuple[int, int, bool], Headers] = {}
        self._names = list(zip(table.rule.tolist(), table.status.tolist(), table.timed_out.tolist(), strict=True))

    def of(self, i: int) -> Headers:
        """Headers of match i."""
        name = self._names[i]
        headers = self._known.get(name)
        if headers is None:
            index, status, timed_out = name
            rule = self._table.rules[index]
            headers = rule_headers(self._kind, rule.name, rule.content_version, timed_out=timed_out)
            if status != FINAL:
                headers.append(("ce_status", STATUSES[status].encode()))
                headers.append(("ce_provisional", b"true" if STATUSES[status] == "provisional" else b"false"))
            self._known[name] = headers
        return headers


def _lineages(table: MatchTable) -> Iterator[tuple[dict[str, dict[str, Any]], list[str]]]:
    """Lineage and ids of the source events of every match."""
    count = len(table.events)
    ids = table.event_id_strings()
    times = iso_strings(table.events.timestamps()) if count else []
    streams: list[Any] = [None] * count
    places: list[tuple[str, int, int] | None] = [None] * count
    for chunk, positions, rows in table.events.parts():
        origin, stream = chunk.origin, chunk.frame.stream
        single = origin is not None and isinstance(origin.offsets, int)
        place = (origin.topic, origin.partition, origin.offset_of(0)) if origin is not None and single else None
        for position, row in zip(positions.tolist(), rows.tolist(), strict=True):
            streams[position] = stream
            if origin is not None:
                places[position] = place or (origin.topic, origin.partition, origin.offset_of(row))
    steps, bounds = table.step.tolist(), table.offsets.tolist()
    for i, index in enumerate(table.rule.tolist()):
        names = table.rules[index].positive
        first, last = bounds[i], bounds[i + 1]
        lineage: dict[str, dict[str, Any]] = {}
        for at in range(first, last):
            entry: dict[str, Any] = {"event_id": ids[at], "timestamp": times[at], "step": names[steps[at]]}
            place = places[at]
            if place is not None:
                entry["topic"], entry["partition"], entry["offset"] = place
            known = lineage.setdefault(streams[at], entry)
            if known is not entry:
                known.setdefault("also", []).append(entry)
        yield lineage, ids[first:last]
