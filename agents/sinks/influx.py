"""The InfluxDB sink: own batches over the v2 write API, tried again without end, refused only row by row.

The client library's batching writer gives up after some retries and drops what it held, so it is not used; its plain
write call is. A batch is confirmed when every line of it was answered with success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.rest import ApiException

from agents.sinks.base import Rejected, SinkError, Sourced
from agents.sinks.influx_points import Points, points_of
from agents.sinks.retry import Patience
from schemas.catalog import CATALOG, Catalog

__all__ = ["InfluxSink"]

_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_BAD: Final = frozenset({400, 422})


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive lines of one item."""

    points: Points
    start: int
    stop: int

    def payload(self) -> bytes:
        lines = self.points.lines
        return type(lines)(lines.texts.slice(self.start, self.stop - self.start), lines.rows).payload()

    def __len__(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[_Part, _Part]:
        middle = (self.start + self.stop) // 2
        return _Part(self.points, self.start, middle), _Part(self.points, middle, self.stop)


class InfluxSink:
    """Writes points to ``bucket`` of ``org``. ``most_lines`` bounds a request, ``entity_limit`` the tags of entities.

    429 and 503 wait as long as the server asks, a lost connection for ever; 413 halves the request; 400 and 422 are
    halved down to the line that is to blame, which is rejected alone; 401, 403 and 404 raise SinkError.
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
        entity_limit: int = 10_000,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
        catalog: Catalog = CATALOG,
    ) -> None:
        self.name = name
        self._url, self._token, self._org, self._bucket = url, token, org, bucket
        self._most_lines = most_lines
        self._entity_limit = entity_limit
        self._timeout_s = timeout_s
        self._patience = patience or Patience(name)
        self._catalog = catalog
        self._client: InfluxDBClientAsync | None = None
        self.written = 0
        """Points that the server has confirmed."""

    async def open(self) -> None:
        """Make the client; whether the server is there shows at the first write. Raises SinkError for a bad address."""
        if not self._url.startswith(("http://", "https://")):
            raise SinkError(f"{self._url!r} is no address of InfluxDB; http://host:8086 was wanted")
        self._client = InfluxDBClientAsync(
            url=self._url, token=self._token, org=self._org, enable_gzip=True, timeout=int(self._timeout_s * 1000)
        )

    async def write(self, batch: Sequence[Sourced]) -> list[Rejected]:
        """Write the batch's points; see `agents.sinks.base.Sink`."""
        found = await asyncio.to_thread(
            lambda: list(points_of(batch, entity_limit=self._entity_limit, catalog=self._catalog))
        )
        rejected: list[Rejected] = []
        for request in self._requests(found):
            rejected += await self._write(request)
        return rejected

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _requests(self, found: Sequence[Points]) -> list[list[_Part]]:
        """Parts of at most ``most_lines`` lines together, one list a request."""
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

    async def _write(self, parts: list[_Part]) -> list[Rejected]:
        lines = sum(len(part) for part in parts)
        try:
            await self._post(b"".join(part.payload() for part in parts))
        except ApiException as error:
            if error.status == 413 and lines > 1:
                return [each for half in _halves(parts) for each in await self._write(half)]
            if error.status in _BAD or error.status == 413:
                if lines > 1:
                    return [each for half in _halves(parts) for each in await self._write(half)]
                return [parts[0].points.rejected(parts[0].start, f"InfluxDB answered {error.status}: {_said(error)}")]
            raise SinkError(self._explain(error)) from None
        self.written += lines
        return []

    async def _post(self, payload: bytes) -> None:
        client = self._client
        if client is None:
            raise SinkError(f"sink {self.name!r} was written to before it was opened; await open() first")

        async def attempt() -> None:
            # The second positional argument of this call is the organisation: always by name.
            await client.write_api().write(bucket=self._bucket, org=self._org, record=payload, write_precision="ns")

        await self._patience.persist(attempt, _may_pass, _wait_hint)

    def _explain(self, error: ApiException) -> str:
        what = {
            401: "the token is not valid; set ASTROCYTE_INFLUX_TOKEN",
            403: f"the token may not write to bucket {self._bucket!r}",
            404: f"organisation {self._org!r} or bucket {self._bucket!r} does not exist; try: astrocyte influx setup",
        }.get(error.status, _said(error))
        return f"InfluxDB at {self._url} answered {error.status}: {what}; nothing was dropped, the batch is read again"


def _halves(parts: list[_Part]) -> tuple[list[_Part], list[_Part]]:
    if len(parts) == 1:
        first, second = parts[0].halves()
        return [first], [second]
    return parts[: len(parts) // 2], parts[len(parts) // 2 :]


def _may_pass(error: Exception) -> str | None:
    if isinstance(error, ApiException):
        return f"InfluxDB answered {error.status}: {_said(error)}" if error.status in _TRANSIENT else None
    if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
        return f"InfluxDB cannot be reached: {type(error).__name__}: {error}"
    return None


def _wait_hint(error: Exception) -> float | None:
    headers: Any = getattr(error, "headers", None) or {}
    try:
        return float(headers.get("Retry-After"))
    except (TypeError, ValueError):
        return None


def _said(error: ApiException) -> str:
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
    return body.strip()[:300]
