"""Routes of the view Tree: a window on the tree of a run, and one of its individuals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from astrocyte.pipeline.page.server.routes.answers import answered
from astrocyte.pipeline.page.server.routes.queries import MOST_US, at_of, number_of, real_of
from astrocyte.pipeline.page.tree.trees import Trees
from astrocyte.pipeline.page.tree.window import Window
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["add_tree_routes"]

_MOST_PX: Final = 4_000
_SIZE: Final = (1_000, 600)


def add_tree_routes(app: web.Application, trees: Trees) -> None:
    """Let the application answer for trees, and end their reading with it."""

    async def window(request: web.Request) -> web.Response:
        """The lines that a window shows."""
        return await answered(_window(trees, request.query))

    async def individual(request: web.Request) -> web.Response:
        """One individual with its relatives."""
        return await answered(_individual(trees, request.query))

    async def events(request: web.Request) -> web.Response:
        """The genome of an individual, and the events that name it."""
        return await answered(_events(trees, request.query))

    async def close(_app: web.Application) -> AsyncIterator[None]:
        yield
        await trees.close()

    app.router.add_get("/api/tree", window)
    app.router.add_get("/api/individual", individual)
    app.router.add_get("/api/individual/events", events)
    app.cleanup_ctx.append(close)


async def _window(trees: Trees, query: Any) -> dict[str, Any]:
    width = number_of(query, "width", 1, _MOST_PX, _SIZE[0])
    height = number_of(query, "height", 1, _MOST_PX, _SIZE[1])
    window = None
    if "from" in query:
        from_us, to_us = number_of(query, "from", -MOST_US, MOST_US), number_of(query, "to", -MOST_US, MOST_US)
        top, bottom = real_of(query, "top"), real_of(query, "bottom")
        if not (from_us < to_us and top < bottom):
            raise InvalidSettings("a window ends after its beginning: expected from < to and top < bottom")
        window = Window(from_us, to_us, top, bottom, width, height)
    return await trees.window(
        query.get("run", ""), window, at_us=at_of(query), with_extinct=query.get("extinct") == "1",
        colour=query.get("colour", ""), size=(width, height),
    )  # fmt: skip


async def _individual(trees: Trees, query: Any) -> dict[str, Any]:
    return await trees.individual(query.get("run", ""), number_of(query, "id", 0, MOST_US), at_of(query))


async def _events(trees: Trees, query: Any) -> dict[str, Any]:
    return await trees.events(query.get("run", ""), number_of(query, "id", 0, MOST_US), at_of(query))
