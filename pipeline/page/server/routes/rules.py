"""Routes of the view Rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from astrocyte.pipeline.page.rules.bench import RuleBench, TextChanged
from astrocyte.pipeline.page.rules.check import MOST_TEXT
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.routes.answers import answered
from astrocyte.pipeline.page.server.routes.posts import posted, text_of
from astrocyte.pipeline.page.server.security import Access

__all__ = ["add_rule_routes"]

_MOST_BODY: Final = 6 * MOST_TEXT
"""Bytes of a question: each character of a text may be an escape sequence of six."""


def add_rule_routes(app: web.Application, bench: RuleBench, inquiry: Inquiry, access: Access) -> None:
    """Add them; that which publishes only where the page may."""
    routes = _RuleRoutes(bench, inquiry, access)
    app.router.add_get("/api/rules", routes.listed)
    app.router.add_post("/api/rules/check", routes.check)
    app.router.add_post("/api/rules/try", routes.trial)
    app.router.add_post("/api/rules/cancel", routes.cancel)
    app.router.add_post("/api/rules/why", routes.why)
    if bench.write:
        app.router.add_post("/api/rules/publish", routes.publish)


class _RuleRoutes:
    def __init__(self, bench: RuleBench, inquiry: Inquiry, access: Access) -> None:
        self._bench = bench
        self._inquiry = inquiry
        self._access = access

    async def listed(self, _request: web.Request) -> web.Response:
        """The rule files that run, and the key that further questions need."""
        return await answered(self._listed())

    async def _listed(self) -> dict[str, Any]:
        return await self._bench.listed() | {"key": self._access.page_key}

    async def check(self, request: web.Request) -> web.Response:
        """Problems of a text."""
        body = await self._body(request)
        return await answered(self._bench.check(text_of(body, "name"), text_of(body, "text")))

    async def trial(self, request: web.Request) -> web.Response:
        """What a text finds in the history."""
        body = await self._body(request)
        again = body.get("again") is True
        return await answered(self._bench.trial(text_of(body, "name"), text_of(body, "text"), again=again))

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop the trial."""
        await self._body(request)
        return await answered(self._cancel())

    async def _cancel(self) -> dict[str, Any]:
        await self._bench.cancel()
        return {}

    async def why(self, request: web.Request) -> web.Response:
        """A match of the last trial, as `lineage` shows one that was recorded."""
        return await answered(self._why(await self._body(request)))

    async def _why(self, body: Mapping[str, Any]) -> Any:
        match = body.get("match")
        found = await self._bench.why(
            text_of(body, "rule"), match if isinstance(match, int) else -1, after=body.get("after") is True
        )
        if "explained" not in found:
            return {"error": found["failed"]}
        return await self._inquiry.of_trial(found["explained"], found["text"])

    async def publish(self, request: web.Request) -> web.Response:
        """Publish a text."""
        body = await self._body(request)
        seen = body.get("seen")
        question = self._bench.publish(
            text_of(body, "name"), text_of(body, "text"), seen if isinstance(seen, str) else None
        )
        return await answered(question, statuses={TextChanged: 409})

    async def _body(self, request: web.Request) -> Mapping[str, Any]:
        return await posted(request, self._access, most_bytes=_MOST_BODY)
