"""Alerts, multi events and dead letters: the newest of each, and how many there were."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from astrocyte.pipeline.kafka.record import ConsumedRecord, status_of
from astrocyte.pipeline.page.aggregates.newest import Newest
from astrocyte.pipeline.page.content.standing import Standing
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.events import DeadLetter
from astrocyte.schemas.times import time_us
from astrocyte.schemas.topics import ALERTS, DEAD_LETTERS

__all__ = ["MOST_FINDINGS", "MOST_LETTERS", "Finding", "Findings", "finding_of", "letter_id_of", "letter_of"]

MOST_FINDINGS: Final = 2_000
"""Alerts that are kept, and multi events: many of these must not push out the few of those."""
MOST_LETTERS: Final = 500
_MOST_RULES: Final = 200
_SHOWN: Final = 400
"""Characters of the content of a dead letter."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is counted of an alert or a multi event, and its message, which is read only if it is shown."""

    record: ConsumedRecord
    is_alert: bool
    identity: str
    rule: str
    run: str
    time_us: int
    severity: str
    number: int = 1
    """-1 of a message that takes a finding back."""


@dataclass(slots=True)
class Findings:
    """The newest alerts, multi events and dead letters; numbers of all by rule, and by rule and severity."""

    newest_alerts: Newest[Finding] = field(default_factory=lambda: Newest(MOST_FINDINGS))
    newest_matches: Newest[Finding] = field(default_factory=lambda: Newest(MOST_FINDINGS))
    letters: Newest[ConsumedRecord] = field(default_factory=lambda: Newest(MOST_LETTERS))
    alerts: Counter[str] = field(default_factory=Counter)
    matches: Counter[str] = field(default_factory=Counter)
    standing: Standing = field(default_factory=Standing)
    all_alerts: int = 0
    all_matches: int = 0

    def take(self, record: ConsumedRecord) -> Finding | None:
        """Take one message of the topics ``alerts``, ``multi.events`` and ``dead_letters``.

        Returns the finding that it adds, or with the number -1 the one that it takes back.
        """
        if record.topic == DEAD_LETTERS:
            self.letters.extend([record])
            return None
        found = _headed(record)
        if found is None:
            return None
        change = self.standing.take(found.identity, status_of(record))
        if change == "known":
            return None
        found = found if change == "new" else replace(found, number=-1)
        counts = self.alerts if found.is_alert else self.matches
        if found.rule in counts or len(counts) < _MOST_RULES:
            counts[found.rule] += found.number
        if found.is_alert:
            self.all_alerts += found.number
        else:
            self.all_matches += found.number
        if change == "new":
            (self.newest_alerts if found.is_alert else self.newest_matches).extend([found])
        return found


def _headed(record: ConsumedRecord) -> Finding | None:
    """The finding in a message; None where it is no such message."""
    try:
        body = orjson.loads(record.value or b"")
        time = time_us(body["timestamp"])
        is_alert = record.topic == ALERTS
        rule = str(body["rule" if is_alert else "correlation_rule"])
        identity = str(body.get("alert_id" if is_alert else "event_id"))
    except (orjson.JSONDecodeError, InvalidEvent, KeyError, TypeError):
        return None
    headers = dict(record.headers)
    run = (headers.get("ce_simulationid") or b"").decode("utf-8", "replace")
    severity = str(body.get("severity") or "") if is_alert else ""
    return Finding(record, is_alert, identity, rule, run, time, severity)


def finding_of(found: Finding) -> dict[str, Any]:
    """The finding as the page lists it."""
    record = found.record
    body = orjson.loads(record.value or b"")
    shown: dict[str, Any] = {
        "kind": "alert" if found.is_alert else "match",
        "rule": found.rule,
        "run": found.run,
        "t": found.time_us,
        "key": body.get("key"),
        "place": f"{record.topic}[{record.partition}]@{record.offset}",
    }
    if found.is_alert:
        event = body.get("multi_event_id")
        return {**shown, "id": body.get("alert_id"), "event": event, "severity": found.severity,
                "message": body.get("message")}  # fmt: skip
    names = ("integrated_value", "confidence")
    values = {name: body[name] for name in names if body.get(name) is not None}
    event = body.get("event_id")
    return {**shown, "id": event, "event": event, "values": values, "sources": len(body.get("source_events") or ())}


def letter_id_of(record: ConsumedRecord) -> str | None:
    """Id of the dead letter in a message; None where it is none."""
    try:
        return str(orjson.loads(record.value or b"")["letter_id"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def letter_of(record: ConsumedRecord) -> dict[str, Any]:
    """A dead letter as the page lists it."""
    place = {"written_ms": record.timestamp_ms}
    try:
        letter = DeadLetter.model_validate_json(record.value or b"")
        payload = b64decode(letter.payload_b64 or "", validate=True)
        key = None if letter.key_b64 is None else b64decode(letter.key_b64, validate=True).decode("utf-8", "replace")
    except ValueError:
        return {**place, "stage": "?", "reason": "this message of the topic dead_letters is no dead letter"}
    text = payload[: 4 * _SHOWN].decode("utf-8", "replace")
    shown = text if text.isprintable() else f"{len(payload):,} bytes that are no text"
    return {
        **place,
        "id": letter.letter_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stage": letter.stage,
        "reason": letter.reason,
        "key": key,
        "payload": shown[:_SHOWN],
    }
