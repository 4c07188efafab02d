"""An HTTP server in the test's own loop that takes what is posted, and answers as the test says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

__all__ = ["Receiver", "http_receiver"]


@dataclass(slots=True)
class Receiver:
    """Requests with their headers, and what each is answered."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Path, headers with lower-case names, and body of each request that was answered with 200."""
    answers: deque[web.Response | str] = field(default_factory=deque)
    """Answers of the next requests: a response, ``cut`` or ``hang``."""
    refuses: Callable[[bytes], bool] = lambda _body: False
    """Whether a body can never be taken."""
    away: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        body = await request.read()
        answer = self.answers.popleft() if self.answers else None
        if answer == "hang":
            await self.away.wait()
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        if answer is not None:
            return answer
        if self.refuses(body):
            return web.Response(status=400, text="bad request: not like this")
        self.requests.append((request.path, {name.lower(): value for name, value in request.headers.items()}, body))
        return web.Response(status=200)


@asynccontextmanager
async def http_receiver(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a port of the loopback interface."""
    receiver = Receiver()
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", receiver.take)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, found = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{found}"
    try:
        yield receiver
    finally:
        receiver.away.set()
        await runner.cleanup()
