"""Alerts of several matches: those of one rule that came within its ``group`` time, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from astrocyte.agents.matches.headers import own_headers, rule_headers
from astrocyte.schemas.events import Severity
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.json.reader import JsonRecord
from astrocyte.schemas.times import iso_from_us

__all__ = ["MOST_KEYS", "GroupedAlert", "after_pause", "grouped_alert_records"]

MOST_KEYS: Final = 100
"""Keys that one alert lists; it counts all of its matches."""


@dataclass(frozen=True, slots=True)
class GroupedAlert:
    """One alert of all matches of a group. ``time_us`` is the end of the group's time."""

    rule: str
    version: str
    time_us: int
    severity: Severity
    message: str
    """That of the first match, and how many more there were."""
    key: str | None
    """Key of the group; None where it holds matches of all keys."""
    match_id: str
    """Id of the first match."""
    count: int
    keys: tuple[str, ...]
    """Keys of the matches, in order of their first one; `MOST_KEYS` at most."""
    suppressed: int = 0
    """Alerts that ``cool_down`` suppressed before it."""
    timed_out: bool = False
    run: str = ""
    """Simulation of the first match's first event."""

    @property
    def alert_id(self) -> str:
        """The same matches always give the same id."""
        return str(hash_id("grouped alert", self.match_id))


def after_pause(message: str, suppressed: int) -> str:
    """The message of an alert that ends a pause in which ``suppressed`` others were not raised."""
    return f"{message} ({suppressed} more in the pause before)" if suppressed else message


def grouped_alert_records(alerts: Sequence[GroupedAlert]) -> list[JsonRecord]:
    """The alerts as records (`schemas.events.Alert`)."""
    return [_record(alert) for alert in alerts]


def _record(alert: GroupedAlert) -> JsonRecord:
    time = iso_from_us(alert.time_us)
    body: dict[str, Any] = {
        "alert_id": alert.alert_id,
        "timestamp": time,
        "rule": alert.rule,
        "severity": alert.severity,
        "message": alert.message,
        "key": alert.key,
        "multi_event_id": alert.match_id,
        "count": alert.count,
        "keys": alert.keys,
    }
    if alert.suppressed:
        body["suppressed"] = alert.suppressed
    headers = [
        *rule_headers("astrocyte.alert", alert.rule, alert.version, timed_out=alert.timed_out),
        *own_headers(alert.alert_id, time, alert.run),
    ]
    return JsonRecord(None if alert.key is None else alert.key.encode(), orjson.dumps(body), headers)
