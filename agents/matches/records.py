"""Output records of a table of matches. A match of which no record can be made is returned apart, with the reason."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import orjson

from astrocyte.agents.ingest.faults import apart, reason_of
from astrocyte.agents.matches.lineage import alert_records, lineages, multi_event_records
from astrocyte.agents.matches.table import STATUSES, MatchTable
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.ids import format_ids, hash_id
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import is_in_calendar, iso_from_us
from astrocyte.schemas.topics import MULTI_EVENTS

__all__ = ["FailedMatch", "MatchRecords", "match_letter", "match_records"]

_NOWHERE: Final = -1
"""Offset of a letter whose event was not read from a topic."""


@dataclass(frozen=True, slots=True)
class FailedMatch:
    """A table of one match, what could not be made of it (``emit``: nothing; ``alert``: no alert), and why."""

    match: MatchTable
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class MatchRecords:
    """Multi events and alerts of matches, in their order."""

    multi_events: list[JsonRecord] = field(default_factory=list)
    alerts: list[JsonRecord] = field(default_factory=list)
    failed: list[FailedMatch] = field(default_factory=list)


def match_records(table: MatchTable) -> MatchRecords:
    """Multi events and alerts of the matches; never raises for one of them."""
    found = MatchRecords()
    table = table.joined()

    def attempt(first: int, last: int) -> None:
        part = table if last - first == len(table) else table.take(np.arange(first, last))
        multi_events, alerts = multi_event_records(part), alert_records(part)
        found.multi_events.extend(multi_events)
        found.alerts.extend(alerts)
        for at, (stage, reason) in sorted(part.values.failed.items()):
            found.failed.append(FailedMatch(part.take(np.array([at])), stage, reason))

    def refuse(at: int, error: Exception) -> None:
        part = table.take(np.array([at]))
        rule = part.rules[part.rule[0]].name
        found.failed.append(FailedMatch(part, "emit", reason_of(f"the record of a match of rule {rule!r}", error)))

    if len(table):
        apart(len(table), attempt, refuse)
    return found


def match_letter(failed: FailedMatch, partition: int) -> DeadLetter:
    """Dead letter of a match: its place is that of its last event that was read from a topic; its id the match's.

    The payload names rule, key and events of the match, without the values that raised.
    """
    match = failed.match
    rule, key, event_id = match.rules[match.rule[0]], match.key[0], format_ids(match.ids)[0]
    time_us = int(match.time_us[0])
    topic, number, offset = MULTI_EVENTS, partition, _NOWHERE
    for block, _, rows in match.events.parts():
        if block.origin is not None:
            place = (block.origin.topic, block.origin.partition, block.origin.offset_of(int(rows[-1])))
            topic, number, offset = place if place[2] >= offset else (topic, number, offset)
    body = {
        "event_id": event_id,
        "timestamp": iso_from_us(time_us),
        "correlation_rule": rule.name,
        "rule_version": rule.content_version,
        "timed_out": bool(match.timed_out[0]),
        "status": STATUSES[int(match.status[0])],
        "key": key,
    }
    try:
        payload: bytes | None = orjson.dumps(body | {"lineage": lineages(match)[0]}, option=orjson.OPT_SERIALIZE_NUMPY)
    except Exception:  # noqa: BLE001  the letter must be written even if its match has no JSON
        payload = None
    return DeadLetter(
        letter_id=str(hash_id("dead", failed.stage, event_id)),
        reason=failed.reason,
        stage=failed.stage,
        topic=topic,
        partition=number,
        offset=offset,
        timestamp=iso_from_us(time_us) if is_in_calendar(time_us) else None,
        key_b64=None if key is None else b64encode(str(key).encode("utf-8", "replace")).decode(),
        payload_b64=None if payload is None else b64encode(payload).decode(),
    )
