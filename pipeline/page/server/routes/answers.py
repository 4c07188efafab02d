"""Answers to questions of a browser, as JSON; what goes wrong is said in words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web

from astrocyte.schemas.errors import AstrocyteError

__all__ = ["answered", "while_asked"]

_LOOK_S: Final = 0.25
"""Time between two looks whether the browser still waits."""


_T = TypeVar("_T")


async def answered(
    question: Awaitable[Any], *, statuses: Mapping[type[AstrocyteError], int] | None = None
) -> web.Response:
    """The answer; ``statuses`` are those of some errors, others are 422."""
    try:
        body, status = await question, 200
    except TimeoutError:
        body, status = (
            {"error": "this took too long; ask on the command line: astrocyte explain, astrocyte why-not"},
            504,
        )
    except AstrocyteError as error:
        body, status = {"error": str(error)}, (statuses or {}).get(type(error), 422)
    with contextlib.suppress(TypeError):
        return _json(body, status)
    return _json({"error": "the answer holds values that JSON cannot express"}, 500)


async def while_asked(request: web.Request, question: Coroutine[Any, Any, _T]) -> _T:
    """The answer to a question that is cancelled once the browser has closed its connection."""
    task = asyncio.ensure_future(question)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            if request.transport is None or request.transport.is_closing():
                task.cancel()
        if task.cancelled():
            raise TimeoutError  # nobody reads the answer
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _json(body: Any, status: int) -> web.Response:
    option = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return web.Response(
        status=status,
        body=orjson.dumps(body, option=option, default=str),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
