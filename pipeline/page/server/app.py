"""Routes of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.scenes.scenes import Scenes
from astrocyte.pipeline.page.server.files import StaticFile, static_files
from astrocyte.pipeline.page.server.hub import MOST_CLIENTS
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.routes.answers import answered, while_asked
from astrocyte.pipeline.page.server.routes.queries import MOST_US, number_of
from astrocyte.pipeline.page.server.routes.rules import add_rule_routes
from astrocyte.pipeline.page.server.routes.scenes import add_scene_route
from astrocyte.pipeline.page.server.routes.tail import add_tail_routes
from astrocyte.pipeline.page.server.routes.trees import add_tree_routes
from astrocyte.pipeline.page.server.security import COOKIE, Access, add_headers, middleware
from astrocyte.pipeline.page.tree.trees import Trees

__all__ = ["make_app"]

_WRITE_S: Final = 60.0
"""How long a browser may take none of its changes before its connection is closed."""
_LOGIN_PAUSE_S: Final = 0.5
_HIDDEN: Final = b'role="alert" hidden'
"""In the form: what is said where a token was wrong."""
_MOST_BODY: Final = 16 << 10
_MOST_PAST: Final = 500
"""Alerts of the past, and multi events, that a browser gets at once."""


def make_app(page: Page, inquiry: Inquiry, access: Access, bench: RuleBench) -> web.Application:
    """The application that answers for one page."""
    app = web.Application(middlewares=[middleware(access)], client_max_size=_MOST_BODY)
    routes = _Routes(page, inquiry, access)
    app.router.add_get("/", routes.index)
    app.router.add_get("/login", routes.login_form)
    app.router.add_post("/login", routes.login)
    app.router.add_get("/static/{path:.+}", routes.static)
    app.router.add_get("/api/stream", routes.stream)
    app.router.add_get("/api/lineage", routes.lineage)
    app.router.add_get("/api/near-misses", routes.near_misses)
    add_rule_routes(app, bench, inquiry, access)
    bench.figures = page.figures
    app.router.add_get("/api/findings", routes.findings)
    add_tree_routes(app, Trees(page.source))
    add_tail_routes(app, page, access, write=bench.write)
    add_scene_route(app, Scenes(page.source))

    async def run(_app: web.Application) -> Any:
        async with page.running(), bench.running():
            yield

    app.cleanup_ctx.append(run)
    app.on_response_prepare.append(add_headers)
    return app


class _Routes:
    def __init__(self, page: Page, inquiry: Inquiry, access: Access) -> None:
        self._page = page
        self._inquiry = inquiry
        self._access = access
        self._files = static_files()

    async def index(self, request: web.Request) -> web.Response:
        """The page."""
        return _file(request, self._files["index.html"])

    async def static(self, request: web.Request) -> web.Response:
        """A style sheet, script or picture."""
        found = self._files.get(request.match_info["path"])
        if found is None:
            raise web.HTTPNotFound
        return _file(request, found)

    async def login_form(self, request: web.Request) -> web.Response:
        """The form that asks for the token, and says whether one was wrong."""
        if not self._access.needs_token:
            raise web.HTTPNotFound
        if self._access.allows(request):
            return web.Response(status=303, headers={"Location": "/"})
        form = self._files["login.html"]
        if "wrong" not in request.query:
            return _file(request, form)
        headers = {"Cache-Control": "no-store", "Content-Type": form.kind}
        return web.Response(body=form.body.replace(_HIDDEN, b'role="alert"'), headers=headers)

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Take the token of the form."""
        given = str((await request.post()).get("token", ""))
        if not self._access.is_token(given):
            await asyncio.sleep(_LOGIN_PAUSE_S)
            return web.Response(status=303, headers={"Location": "/login?wrong"})
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, self._access.session, httponly=True, samesite="Strict", path="/")
        return response

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The snapshot, then changes, until the browser or the server ends it."""
        if self._page.hub.clients >= MOST_CLIENTS:
            return web.Response(
                status=503, text=f"{MOST_CLIENTS} browsers look already\n", headers={"Retry-After": "5"}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        client = self._page.join()
        try:
            await response.write(b"retry: 1000\n\n")
            while True:
                frame = await client.next_frame()
                async with asyncio.timeout(_WRITE_S):
                    await response.write(frame)
        except (ConnectionError, TimeoutError):
            return response
        finally:
            self._page.hub.leave(client)

    async def lineage(self, request: web.Request) -> web.Response:
        """Why a multi event or alert was found."""
        return await answered(self._inquiry.lineage(request.query.get("id", "")))

    async def findings(self, request: web.Request) -> web.Response:
        """Findings up to an instant of the past."""
        return await answered(self._findings(request.query))

    async def _findings(self, query: Mapping[str, str]) -> dict[str, Any]:
        at_us, run = number_of(query, "at", -MOST_US, MOST_US), query.get("run", "")
        items = await self._page.ask(lambda state: state.findings_until(run, at_us, _MOST_PAST))
        return {"items": items}

    async def near_misses(self, request: web.Request) -> web.Response:
        """What nearly matched; whoever leaves ends the search, which may take minutes."""
        query = request.query
        return await answered(while_asked(request, self._inquiry.near_misses(query.get("rule", ""), query.get("key"))))


def _file(request: web.Request, found: StaticFile) -> web.Response:
    headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Content-Type": found.kind}
    if request.headers.get("If-None-Match") == found.tag:
        return web.Response(status=304, headers={"ETag": found.tag})
    return web.Response(body=found.body, headers=headers)
