"""The webhook sink: each alert is posted as a CloudEvent, and confirmed by the receiver's 2xx.

A request holds one event in structured mode, or several in batched mode (CloudEvents 1.0, HTTP protocol binding). An
alert has the same ``id`` and ``source`` whenever it is sent again, by which receivers recognise it; that a provisional
one is retracted is an event of its own, with its own id and type. With a secret, requests are signed as Standard
Webhooks asks (webhook-id, webhook-timestamp, webhook-signature).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced
from astrocyte.agents.sinks.http.answers import run_concurrently
from astrocyte.agents.sinks.http.server import HttpServer, Row, alerts_of, is_retracted, one_by_one, post
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.schemas.json.cloudevents import EXTENSIONS, OWN_SOURCE

__all__ = ["WebhookSink", "cloud_event_of", "signing_key"]

_ONE: Final = "application/cloudevents+json; charset=utf-8"
_SEVERAL: Final = "application/cloudevents-batch+json; charset=utf-8"
_PREFIX: Final = "whsec_"


class WebhookSink:
    """Posts alerts to ``server``, up to ``most_events`` a request and ``in_flight`` requests at a time.

    A request that the receiver can never take (400, 413, 422) is halved until only such alerts are rejected.
    """

    def __init__(
        self,
        server: HttpServer,
        *,
        now_us: Callable[[], int],
        name: str = "webhook",
        secret: str | None = None,
        most_events: int = 1,
        in_flight: int = 4,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self._retry = retry or RetryPolicy(name)
        self._server = server
        self._key = None if secret is None else signing_key(secret)
        self._now_us = now_us
        self._most_events = most_events
        self._in_flight = in_flight
        self.written = 0
        """Alerts that the receiver has confirmed."""

    async def open(self) -> None:
        """Make the session, which connects at the first request."""
        await self._server.open()

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Post the batch's alerts; see `agents.sinks.base.Sink`."""
        rows = alerts_of(batch)
        refused: list[Rejected] = []
        for retracted in (False, True):  # requests overtake one another: what is taken back has to be there before
            chosen = [row for row in rows if is_retracted(row[0].records[row[1]]) == retracted]
            parts = [chosen[at : at + self._most_events] for at in range(0, len(chosen), self._most_events)]
            for found in await run_concurrently(parts, lambda part: one_by_one(part, self._send), self._in_flight):
                refused += found
        return refused

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def _send(self, rows: list[Row]) -> None:
        events = [cloud_event_of(item.records[row]) for item, row in rows]
        several = self._most_events > 1
        body = orjson.dumps(events if several else events[0])
        headers = {"Content-Type": _SEVERAL if several else _ONE}
        if self._key is not None:
            headers |= _signature(self._key, events, body, self._now_us() // 1_000_000)
        await post([self._server], body, headers, self._retry)
        self.written += len(rows)


def cloud_event_of(alert: Mapping[str, Any]) -> dict[str, Any]:
    """The CloudEvent of an alert, or of its retraction; ``data`` is the record as it is in the topic ``alerts``."""
    retracted = is_retracted(alert)
    event = {
        "specversion": "1.0",
        "id": f"{alert['alert_id']}.retracted" if retracted else alert["alert_id"],
        "source": f"{OWN_SOURCE}rules/{alert['rule']}",
        "type": "astrocyte.alert.retracted" if retracted else "astrocyte.alert",
        "time": alert["timestamp"],
        "datacontenttype": "application/json",
        "data": {name: value for name, value in alert.items() if name not in EXTENSIONS.values()},
    }
    attributes = {"subject": alert.get("key")} | {name: alert.get(field) for name, field in EXTENSIONS.items()}
    return event | {name: value for name, value in attributes.items() if value}


def signing_key(secret: str) -> bytes:
    """The key of a secret of Standard Webhooks: base64, with or without the prefix ``whsec_``. Raises SinkError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < 16:
        raise SinkError(
            f"ASTROCYTE_WEBHOOK_SECRET: expected {_PREFIX} and at least 16 random bytes in base64, such as the output "
            "of: openssl rand -base64 32"
        )
    return key


def _signature(key: bytes, events: Sequence[Mapping[str, Any]], body: bytes, now_s: int) -> dict[str, str]:
    """Headers that sign a request; its id is the same whenever the same events are sent."""
    first, last = events[0]["id"], events[-1]["id"]
    message_id = first if first == last else f"{first}..{last}"
    signed = hmac.new(key, f"{message_id}.{now_s}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
