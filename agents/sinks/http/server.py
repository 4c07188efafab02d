"""HTTP servers that a sink posts to: TLS, a token, redirections refused, and what their answers mean."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp

from astrocyte.agents.sinks.base import Rejected, SinkError, Sourced, SourcedRecords
from astrocyte.agents.sinks.http.answers import REFUSED, TRANSIENT, server_parts, wait_hint
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.tls import tls_context, tls_fault

__all__ = ["HttpServer", "NotTaken", "Row", "alerts_of", "is_retracted", "one_by_one", "post", "server_of"]

logger = logging.getLogger(__name__)

_SHOWN: Final = 300
"""Characters of an answer that a message shows."""


class NotTaken(Exception):
    """The server can never take what was sent."""


class _Status(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, said: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"answered {status}: {said}")
        self.status = status
        self.headers = headers


class _Away(Exception):
    """No server has taken the request, and one of them may later."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class HttpServer:
    """One server that is posted to. ``name`` is what messages call it, and ``setting`` the prefix of its settings.

    Messages show scheme, host and port only: the path and the query of a webhook are often its secret.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        setting: str,
        token: str | None = None,
        timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.setting = setting
        self.shown = _shown_address(url, name, setting)
        self._url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._away = False

    async def open(self) -> None:
        """Make the session, which connects at the first request."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers=self._headers,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def attempt(self, body: bytes, headers: Mapping[str, str]) -> None:
        """One request. Raises `_Status`, and the errors of aiohttp."""
        if self._session is None:
            raise SinkError(f"write() was called before the sink of {self.name} was opened; await open() first")
        # aiohttp repeats a redirected POST as a GET, to wherever it is sent.
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            said = (await answer.content.read(4 * _SHOWN)).decode(errors="replace").strip()[:_SHOWN]
            if not 200 <= answer.status < 300:
                raise _Status(answer.status, said or str(answer.reason), answer.headers)

    def is_transient(self, error: BaseException) -> str | None:
        """The reason to report of an error after which the same request may succeed; None of others."""
        if isinstance(error, _Status):
            return f"{self.name} at {self.shown} {error}" if error.status in TRANSIENT else None
        if isinstance(error, aiohttp.InvalidURL) or tls_fault(error) is not None:
            return None
        if isinstance(error, TimeoutError):
            return f"{self.name} at {self.shown} did not answer within {self._timeout_s:g} s"
        if isinstance(error, aiohttp.ClientError | OSError):
            return f"{self.name} at {self.shown} cannot be reached: {type(error).__name__}"
        return None

    def final(self, error: BaseException) -> BaseException:
        """What an error that retries cannot mend is to the sink: NotTaken, or SinkError."""
        if isinstance(error, _Status):
            if error.status in REFUSED:
                return NotTaken(f"{self.name} {error}")
            return SinkError(self._explain(error))
        if isinstance(error, aiohttp.InvalidURL):
            return SinkError(f"{self.name}: the address cannot be used; see ASTROCYTE_{self.setting}_URL")
        if isinstance(error, aiohttp.ClientError | OSError):
            return SinkError(
                f"no TLS connection to {self.name} at {self.shown}: {tls_fault(error)}. See "
                f"ASTROCYTE_{self.setting}_URL, ASTROCYTE_{self.setting}_CA_FILE and ASTROCYTE_{self.setting}_CERT_FILE"
            )
        return error

    def note(self, reason: str | None) -> None:
        """Log, once, that a server among several is passed over, and that it is back."""
        if (reason is not None) != self._away:
            self._away = reason is not None
            said = (
                f"{reason}; the others get the alerts" if reason else f"{self.name} at {self.shown} takes alerts again"
            )
            logger.warning("%s", said)

    def _explain(self, error: _Status) -> str:
        what = str(error)
        if error.status in (401, 403):
            what = f"answered {error.status}: it does not accept the token; set ASTROCYTE_{self.setting}_TOKEN"
        elif error.status in (301, 302, 303, 307, 308):
            what = f"answered {error.status}, a redirection, which is not followed; set ASTROCYTE_{self.setting}_URL"
        elif error.status in (404, 405):
            what = f"answered {error.status}: nothing takes events there; set ASTROCYTE_{self.setting}_URL"
        return f"{self.name} at {self.shown} {what}; nothing was dropped, the batch is read again"


async def post(servers: Sequence[HttpServer], body: bytes, headers: Mapping[str, str], retry: RetryPolicy) -> None:
    """Send a request to each of the servers; returns when one of them has answered 2xx.

    408, 425, 429, 5xx, timeouts and lost connections are retried for ever, after the time that a server asks for. 400,
    413 and 422 raise NotTaken; anything else (401, 403, 404, a redirection, a server that cannot be verified) raises
    SinkError, if none of the servers takes it.
    """

    async def attempt() -> None:
        answers = await asyncio.gather(*(each.attempt(body, headers) for each in servers), return_exceptions=True)
        errors = [(server, error) for server, error in zip(servers, answers, strict=True) if error is not None]
        if len(errors) < len(servers):
            for server, error in zip(servers, answers, strict=True):
                server.note(None if error is None else server.is_transient(error) or str(server.final(error)))
            return
        # What may pass is waited for, unless one says that it never will.
        for server, error in errors:
            if isinstance(error, _Status) and error.status in REFUSED:
                raise server.final(error) from None
        for server, error in errors:
            if (reason := server.is_transient(error)) is not None:
                raise _Away(reason, wait_hint(error.headers) if isinstance(error, _Status) else None) from error
        server, error = errors[0]
        raise server.final(error) from None

    await retry.persist(
        attempt,
        lambda error: str(error) if isinstance(error, _Away) else None,
        lambda error: error.wait_s if isinstance(error, _Away) else None,
    )


Row = tuple[SourcedRecords, int]
"""An alert of a batch, as its item and its number there."""


async def one_by_one(rows: list[Row], send: Callable[[list[Row]], Awaitable[None]]) -> list[Rejected]:
    """Send alerts in one request; of a request that can never be taken, halve after halve, until those are known."""
    try:
        await send(rows)
    except NotTaken as error:
        if len(rows) == 1:
            item, row = rows[0]
            return [item.rejected(row, str(error))]
        half = len(rows) // 2
        return await one_by_one(rows[:half], send) + await one_by_one(rows[half:], send)
    return []


def alerts_of(batch: Sequence[Sourced]) -> list[Row]:
    """Every alert of a batch, as its item and its number there."""
    return [
        (item, row)
        for item in batch
        if isinstance(item, SourcedRecords) and item.kind == "alerts"
        for row in range(len(item.records))
    ]


def is_retracted(alert: Mapping[str, Any]) -> bool:
    """Whether a record of the topic ``alerts`` takes a provisional alert back."""
    return alert.get("status") == "retracted"


def server_of(settings: Mapping[str, Any], url: str, *, name: str, setting: str) -> HttpServer:
    """The server at ``url`` by the settings ``<setting>_*`` (without the prefix). Raises SinkError, InvalidSettings."""
    tls = tls_context(settings, setting.lower()) if url.lower().startswith("https:") else None
    return HttpServer(url, name=name, setting=setting, token=settings["token"], tls=tls)


def _shown_address(url: str, name: str, setting: str) -> str:
    """Scheme, host and port. Raises SinkError for what is no address of a server, and never shows it."""
    parts = server_parts(url)
    if parts is None:
        raise SinkError(f"ASTROCYTE_{setting}_URL is no address of {name}; expected one such as http://host:9000/path")
    if "@" in parts.netloc:
        raise SinkError(
            f"ASTROCYTE_{setting}_URL holds a user or password; put a bearer token into ASTROCYTE_{setting}_TOKEN"
        )
    return f"{parts.scheme}://{parts.netloc}"
