"""The InfluxDB sink: batches over the v2 write API, retried for ever; lines are refused one by one.

The client library's batching writer drops its buffer after some retries, so only its plain call of ``/api/v2/write``
is used. A batch is confirmed when the server has confirmed all its lines. Writing a line twice (after a lost response)
is idempotent, because it is the same point.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
import cramjam
from influxdb_client import WriteService
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.rest import ApiException

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced
from astrocyte.agents.sinks.http.answers import REFUSED, TRANSIENT, run_concurrently, wait_hint
from astrocyte.agents.sinks.influx.address import client_arguments, unreachable
from astrocyte.agents.sinks.influx.points import PointRules, Points, points_of
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.tls import tls_fault

__all__ = ["InfluxSink"]

logger = logging.getLogger(__name__)

_NEEDS_TLS: Final = re.compile(r"HTTPS (server|port)")
"""In the 400 with which servers of TLS answer a request in the clear; it says nothing of the lines."""
_EXPIRED: Final = re.compile(r"points? beyond retention policy.*?dropped=(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive lines of one item."""

    points: Points
    start: int
    stop: int

    def payload(self) -> bytes:
        return self.points.lines.payload(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


class InfluxSink:
    """Writes points to ``bucket`` of ``org``; ``rules`` are the options by which rows become points.

    A request has at most ``most_lines`` lines, and up to ``in_flight`` requests run concurrently, because a server uses
    one processor per request. Their order does not matter, as no line depends on another.

    ``tls`` is the context for an address with https; by default the system's authorities verify the server.

    429 and 503 are retried after the time that the server requests, and a lost connection for ever. Batches that cause
    400, 413 or 422 are halved until only the invalid line is rejected. 401, 403, 404, redirections and a server that
    cannot be verified raise SinkError. Points older than the bucket's retention are counted in ``expired`` and not
    rejected: the bucket is configured to drop them.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str,
        org: str,
        bucket: str,
        name: str = "influx",
        most_lines: int = 5_000,
        in_flight: int = 4,
        rules: PointRules | None = None,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.name = name
        self._url, self._token, self._org, self._bucket = url, token, org, bucket
        self._most_lines = most_lines
        self._in_flight = in_flight
        self._rules = rules or PointRules()
        self._timeout_s = timeout_s
        self._tls = tls
        self._retry = retry or RetryPolicy(name)
        self._client: InfluxDBClientAsync | None = None
        self.written = 0
        """Points that the server has confirmed."""
        self.expired = 0
        """Points that the server dropped because they are older than the bucket's retention."""

    async def open(self) -> None:
        """Create the client, which connects at the first write. Raises SinkError for an invalid address."""
        arguments = client_arguments(
            self._url, token=self._token, org=self._org, timeout_s=self._timeout_s, tls=self._tls
        )
        # aiohttp repeats a redirected POST as a GET, to wherever it is sent.
        self._client = InfluxDBClientAsync(**arguments, allow_redirects=False)

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Write the batch's points; see `agents.sinks.base.Sink`."""
        if self._client is None:
            raise SinkError(f"write() was called before sink {self.name!r} was opened; await open() first")
        found = await asyncio.to_thread(points_of, batch, self._rules)
        requests = self._requests(found.points)
        refused = await run_concurrently(requests, self._send, self._in_flight)
        return found.refused + [each for part in refused for each in part]

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _requests(self, found: Sequence[Points]) -> list[list[_Part]]:
        """Parts grouped into requests of at most ``most_lines`` lines; one list per request."""
        requests: list[list[_Part]] = []
        room = 0
        for points in found:
            start = 0
            while start < len(points.lines):
                if room == 0:
                    requests.append([])
                    room = self._most_lines
                stop = min(start + room, len(points.lines))
                requests[-1].append(_Part(points, start, stop))
                room -= stop - start
                start = stop
        return requests

    async def _send(self, parts: list[_Part]) -> list[Rejected]:
        lines = sum(map(len, parts))
        try:
            await self._post(await asyncio.to_thread(_compressed, parts))
        except ApiException as error:
            if error.status not in REFUSED or _NEEDS_TLS.search(_said(error)):
                raise SinkError(self._explain(error)) from None
            dropped = _EXPIRED.search(_said(error))
            if dropped is not None and int(dropped[1]) >= lines:
                self._count_expired(lines)
                return []
            if lines > 1:
                halves = _halves(parts, lines // 2)
                return [each for half in halves for each in await self._send(half)]
            reason = f"InfluxDB answered {error.status}: {_said(error)}"
            return [parts[0].points.rejected(parts[0].start, reason)]
        except (aiohttp.ClientError, OSError) as error:
            refused = unreachable(self._url, error)
            if refused is None:
                raise
            raise refused from None
        self.written += lines
        return []

    def _count_expired(self, lines: int) -> None:
        if not self.expired:
            logger.warning(
                "InfluxDB drops points older than the retention of bucket %r (astrocyte influx setup --raw-days DAYS)",
                self._bucket,
            )
        self.expired += lines

    async def _post(self, body: bytes) -> None:
        assert self._client is not None
        service = WriteService(self._client.api_client)

        async def attempt() -> None:
            await service.post_write_async(
                self._org,
                self._bucket,
                body,
                precision="ns",
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                async_req=False,
                _return_http_data_only=False,
            )

        await self._retry.persist(attempt, _is_transient, _wait_hint)

    def _explain(self, error: ApiException) -> str:
        what = {
            401: "the token is not valid; set ASTROCYTE_INFLUX_TOKEN",
            403: f"the token may not write to bucket {self._bucket!r}",
            404: f"organisation {self._org!r} or bucket {self._bucket!r} does not exist; try: astrocyte influx setup",
        }.get(error.status, _said(error))
        return f"InfluxDB at {self._url} answered {error.status}: {what}; nothing was dropped, the batch is read again"


def _compressed(parts: Sequence[_Part]) -> bytes:
    # Level 1 is seven times as fast as level 6 for a sixth more bytes; the client's own choice is level 9.
    return bytes(cramjam.gzip.compress(b"".join(part.payload() for part in parts), 1))


def _halves(parts: Sequence[_Part], first_lines: int) -> tuple[list[_Part], list[_Part]]:
    """The first ``first_lines`` lines, and the other lines."""
    first: list[_Part] = []
    second: list[_Part] = []
    for part in parts:
        cut = min(part.stop, part.start + max(first_lines, 0))
        if cut > part.start:
            first.append(_Part(part.points, part.start, cut))
        if part.stop > cut:
            second.append(_Part(part.points, cut, part.stop))
        first_lines -= cut - part.start
    return first, second


def _is_transient(error: Exception) -> str | None:
    if isinstance(error, ApiException):
        return f"InfluxDB answered {error.status}: {_said(error)}" if error.status in TRANSIENT else None
    if isinstance(error, aiohttp.InvalidURL) or tls_fault(error) is not None:
        return None
    if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
        return f"InfluxDB cannot be reached: {type(error).__name__}: {error}"
    return None


def _wait_hint(error: Exception) -> float | None:
    return wait_hint(getattr(error, "headers", None) or {})


def _said(error: ApiException) -> str:
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
    return body.strip()[:300]
