"""The route of the scenes of the view World."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from astrocyte.pipeline.page.scenes.scenes import Scenes
from astrocyte.pipeline.page.server.routes.answers import answered
from astrocyte.pipeline.page.server.routes.queries import at_of

__all__ = ["add_scene_route"]


def add_scene_route(app: web.Application, scenes: Scenes) -> None:
    """Let the application answer for scenes, and end their reading with it."""

    async def scene(request: web.Request) -> web.Response:
        """A scene of a run at an instant."""
        query = request.query
        return await answered(_scene(scenes, query.get("kind", ""), query.get("run", ""), query))

    async def close(_app: web.Application) -> AsyncIterator[None]:
        yield
        await scenes.close()

    app.router.add_get("/api/scene", scene)
    app.cleanup_ctx.append(close)


async def _scene(scenes: Scenes, kind: str, run: str, query: Mapping[str, str]) -> dict[str, Any]:
    return await scenes.at(kind, run, at_of(query))
