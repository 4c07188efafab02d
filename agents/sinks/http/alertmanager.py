"""The sink that raises alerts in Prometheus' Alertmanager, over its API v2.

Alertmanager knows alerts that fire until they are resolved; an alert of a rule is an instant. It fires from its own
time until ``resolve_after`` past its delivery, so that one that was delayed by an outage still notifies somebody.
Alerts of the same rule, key, run and severity are one alert there, which a later one prolongs. A provisional alert that
is retracted resolves it, unless another of these stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.agents.sinks.base import Rejected, Sourced
from astrocyte.agents.sinks.http.server import HttpServer, Row, alerts_of, is_retracted, one_by_one, post
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.times import iso_from_us, us_from_iso

__all__ = ["AlertmanagerSink", "posted_alert"]

_MOST: Final = 500
"""Alerts of one request."""
_FIRST_FORGET: Final = 4_096
_JSON: Final = {"Content-Type": "application/json"}


_Labels = tuple[tuple[str, str], ...]


class AlertmanagerSink:
    """Posts alerts to every one of ``servers``, which are the members of one cluster.

    Members do not pass alerts on to one another, so each is sent them all, and one that has them suffices: one that is
    away is passed over. Alerts that can never be taken are rejected, one by one.
    """

    def __init__(
        self,
        servers: Sequence[HttpServer],
        *,
        now_us: Callable[[], int],
        resolve_after_us: int = 300_000_000,
        name: str = "alertmanager",
        retry: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self._retry = retry or RetryPolicy(name)
        self._servers = servers
        self._now_us = now_us
        self._resolve_after_us = resolve_after_us
        self._firing: dict[_Labels, dict[str, int]] = {}
        self._forget_at = _FIRST_FORGET
        self.written = 0
        """Alerts that the servers have confirmed."""

    async def open(self) -> None:
        """Make the sessions, which connect at the first request."""
        for server in self._servers:
            await server.open()

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Post the batch's alerts; see `agents.sinks.base.Sink`."""
        rows = alerts_of(batch)
        refused: list[Rejected] = []
        for at in range(0, len(rows), _MOST):
            refused += await one_by_one(rows[at : at + _MOST], self._send)
        return refused

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.close()

    async def _send(self, rows: list[Row]) -> None:
        now_us = self._now_us()
        alerts = [self._posted(item.records[row], now_us) for item, row in rows]
        sent = [alert for alert in alerts if alert is not None]
        if sent:
            await post(self._servers, orjson.dumps(sent), _JSON, self._retry)
        self.written += len(rows)

    def _posted(self, alert: Mapping[str, Any], now_us: int) -> dict[str, Any] | None:
        """What to post of an alert; None of one that is retracted while another with its labels fires."""
        retracted = is_retracted(alert)
        posted = posted_alert(alert, now_us, 0 if retracted else self._resolve_after_us)
        labels = tuple(posted["labels"].items())
        firing = {name: end for name, end in self._firing.get(labels, {}).items() if end > now_us}
        if retracted:
            firing.pop(alert["alert_id"], None)
        else:
            firing[alert["alert_id"]] = us_from_iso(posted["endsAt"])
        self._firing[labels] = firing
        if len(self._firing) > self._forget_at:
            self._firing = {
                each: own for each, own in self._firing.items() if any(end > now_us for end in own.values())
            }
            self._forget_at = max(_FIRST_FORGET, 2 * len(self._firing))
        return None if retracted and firing else posted


def posted_alert(alert: Mapping[str, Any], now_us: int, resolve_after_us: int) -> dict[str, Any]:
    """An alert as Alertmanager takes it. Labels say which alert it is, annotations what its receivers should read."""
    labels = {
        "alertname": alert["rule"],
        "severity": alert["severity"],
        "key": alert.get("key"),
        "run": alert.get("simulation_id"),
        "job": "astrocyte",
    }
    keys = alert.get("keys")
    notes = {
        "summary": alert["message"],
        "alert_id": alert["alert_id"],
        "multi_event_id": alert["multi_event_id"],
        "count": alert.get("count"),
        "keys": ", ".join(keys) if keys else None,
        "suppressed": alert.get("suppressed"),
    }
    began_us = us_from_iso(alert["timestamp"])
    return {
        "labels": {name: str(value) for name, value in labels.items() if value},
        "annotations": {name: str(value) for name, value in notes.items() if value is not None},
        "startsAt": alert["timestamp"],
        "endsAt": iso_from_us(max(began_us, now_us) + resolve_after_us),
    }
