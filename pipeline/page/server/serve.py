"""Serving the page until a signal ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web

from astrocyte.pipeline.page.server.app import make_app
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.security import Access
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["serve_page"]

_END_S: Final = 0.5
"""Browsers hold their streams open; their end is not waited for."""


async def serve_page(
    page: Page, inquiry: Inquiry, *, host: str, port: int, token: str | None, on_ready: Callable[[str], None]
) -> None:
    """Serve until cancelled; ``on_ready`` gets the address. Port 0 chooses a free one. Raises InvalidSettings."""
    app = make_app(page, inquiry, Access(host, token))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_S)
    await runner.setup()
    try:
        listener = _listening(host, port)
        await web.SockSite(runner, listener).start()
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{listener.getsockname()[1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InvalidSettings(
            f"the page cannot be served at port {port} of {host}: {error.strerror or error}; choose another one with "
            "--port, or 0 for a free one"
        ) from None
    return listener
