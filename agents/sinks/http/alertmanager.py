"""The sink that raises alerts in Prometheus' Alertmanager, over its API v2.

Alertmanager knows alerts that fire until they are resolved; an alert of a rule is an instant. It fires from its own
time until ``resolve_after`` past its delivery, so that one that was delayed by an outage still notifies somebody.
Alerts of the same rule, key, run and severity are one alert there, which a later one prolongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.agents.sinks.base import Rejected, Sourced
from astrocyte.agents.sinks.http.server import HttpServer, Row, alerts_of, one_by_one, post
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.times import iso_from_us, us_from_iso

__all__ = ["AlertmanagerSink", "posted_alert"]

_MOST: Final = 500
"""Alerts of one request."""
_JSON: Final = {"Content-Type": "application/json"}


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
        alerts = [posted_alert(item.records[row], now_us, self._resolve_after_us) for item, row in rows]
        body = orjson.dumps(alerts)
        await post(self._servers, body, _JSON, self._retry)
        self.written += len(rows)


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
