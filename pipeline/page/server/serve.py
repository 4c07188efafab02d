"""Serving the page until a signal ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web

from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.server.app import make_app
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.security import Access

__all__ = ["serve_page"]

_END_S: Final = 0.5
"""Browsers hold their streams open; their end is not waited for."""


async def serve_page(
    page: Page,
    inquiry: Inquiry,
    access: Access,
    bench: RuleBench,
    listener: socket.socket,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve on a socket that listens, until cancelled; ``on_ready`` gets the address."""
    runner = web.AppRunner(make_app(page, inquiry, access, bench), access_log=None, shutdown_timeout=_END_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        host, port = listener.getsockname()[:2]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
