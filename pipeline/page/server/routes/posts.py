"""Questions that change or cost something: JSON that must come from this page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from astrocyte.pipeline.page.server.security import Access

__all__ = ["posted", "text_of"]


async def posted(request: web.Request, access: Access, *, most_bytes: int) -> Mapping[str, Any]:
    """The JSON object of a question. Raises HTTPForbidden for one that another site may have had sent."""
    reason = access.refusal(request)
    if reason is not None:
        raise web.HTTPForbidden(reason=reason)
    data = await _read(request, most_bytes)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise web.HTTPBadRequest(reason="expected JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="expected a JSON object")
    return body


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A member that must be text. Raises HTTPBadRequest."""
    value = body.get(name)
    if not isinstance(value, str):
        raise web.HTTPBadRequest(reason=f"expected text as {name}")
    return value


async def _read(request: web.Request, most_bytes: int) -> bytes:
    data = bytearray()
    async with asyncio.timeout(30):
        while part := await request.content.read(1 << 16):
            data += part
            if len(data) > most_bytes:
                raise web.HTTPRequestEntityTooLarge(max_size=most_bytes, actual_size=len(data))
    return bytes(data)
