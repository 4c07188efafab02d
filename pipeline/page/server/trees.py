"""Routes of the view Tree: a window on the tree of a run, and one of its individuals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from astrocyte.pipeline.page.server.answers import answered
from astrocyte.pipeline.page.tree.trees import Trees
from astrocyte.pipeline.page.tree.window import Window
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["add_tree_routes"]

_MOST_PX: Final = 4_000
_SIZE: Final = (1_000, 600)
_MOST_US: Final = 1 << 62


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
    width = _number(query, "width", 1, _MOST_PX, _SIZE[0])
    height = _number(query, "height", 1, _MOST_PX, _SIZE[1])
    window = None
    if "from" in query:
        from_us, to_us = _number(query, "from", -_MOST_US, _MOST_US), _number(query, "to", -_MOST_US, _MOST_US)
        top, bottom = _real(query, "top"), _real(query, "bottom")
        if not (from_us < to_us and top < bottom):
            raise InvalidSettings("a window ends after its beginning: expected from < to and top < bottom")
        window = Window(from_us, to_us, top, bottom, width, height)
    return await trees.window(
        query.get("run", ""), window, at_us=_at(query), with_extinct=query.get("extinct") == "1",
        colour=query.get("colour", ""), size=(width, height),
    )  # fmt: skip


async def _individual(trees: Trees, query: Any) -> dict[str, Any]:
    return await trees.individual(query.get("run", ""), _number(query, "id", 0, _MOST_US), _at(query))


async def _events(trees: Trees, query: Any) -> dict[str, Any]:
    return await trees.events(query.get("run", ""), _number(query, "id", 0, _MOST_US), _at(query))


def _at(query: Any) -> int | None:
    return _number(query, "at", -_MOST_US, _MOST_US) if "at" in query else None


def _number(query: Any, name: str, low: int, high: int, otherwise: int | None = None) -> int:
    text = query.get(name, "")
    if not text and otherwise is not None:
        return otherwise
    try:
        value = int(text)
    except ValueError:
        raise InvalidSettings(f"{name}: expected a whole number, got {text[:40]!r}") from None
    if not low <= value <= high:
        raise InvalidSettings(f"{name}: expected a number from {low} to {high}, got {value}")
    return value


def _real(query: Any, name: str) -> float:
    text = query.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= _MOST_US:
        raise InvalidSettings(f"{name}: expected a number, got {text[:40]!r}")
    return value
