"""Who may ask, and what a browser may do with the page.

On the loopback interface whoever uses the machine may ask; a token is needed beyond it. The name by which a browser
asks must be one of this server, so that a page of another site whose name is made to lead here (DNS rebinding) cannot.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from astrocyte.pipeline.settings import is_loopback
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["COOKIE", "HEADERS", "KEY_HEADER", "Access", "add_headers", "middleware"]

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Server": "astrocyte",
}
COOKIE: Final = "astrocyte-page"
KEY_HEADER: Final = "X-Astrocyte-Page"
_OPEN: Final = ("/login", "/static/page.css", "/static/icon.svg")
"""What is served without a token: the form that asks for it."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access:
    """Whether a request may be answered. Raises InvalidSettings for an address beyond loopback without a token."""

    def __init__(self, host: str, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise InvalidSettings(
                f"{host} can be reached from other machines, and page_token is not set; set ASTROCYTE_PAGE_TOKEN as "
                "well, or serve the page at 127.0.0.1"
            )
        self._local = is_loopback(host)
        self._token = token
        # What the browser keeps is of this process alone, and does not tell the token.
        key = secrets.token_bytes(32)
        self.session = "" if token is None else hmac.new(key, token.encode(), hashlib.sha256).hexdigest()
        self.page_key = secrets.token_urlsafe(24)
        """What only a page of this server can know: pages of other sites cannot read its answers."""

    @property
    def needs_token(self) -> bool:
        """Whether requests must show a token."""
        return self._token is not None

    def knows_host(self, host: str) -> bool:
        """Whether a request's ``Host`` may lead here; beyond loopback the token keeps strangers out, whatever it is."""
        if not self._local:
            return True
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return is_loopback(name.strip("[]"))

    def is_token(self, given: str) -> bool:
        """Whether it is the token, compared in constant time."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def allows(self, request: web.Request) -> bool:
        """Whether the request shows the token, as a bearer or by the cookie of the form."""
        if self._token is None:
            return True
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return True
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self.session.encode())

    def refusal(self, request: web.Request) -> str | None:
        """Why a request that changes or costs something may be one that a page of another site makes; None: it is not.

        It must be JSON, which a form cannot send, come from this origin as far as the browser says, and have the key
        of this page.
        """
        if request.content_type != "application/json":
            return "expected Content-Type: application/json"
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != request.host):
            return "a page of another site may not ask this"
        if not hmac.compare_digest(request.headers.get(KEY_HEADER, "").encode(), self.page_key.encode()):
            return f"expected the header {KEY_HEADER} of this page; load the page anew"
        return None


def middleware(access: Access) -> Any:
    """Refuses what may not be answered."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not access.knows_host(request.host):
            response: web.StreamResponse = web.Response(status=421, text="this server has another name\n")
        elif request.path not in _OPEN and not access.allows(request):
            wants_page = "text/html" in request.headers.get("Accept", "")
            response = (
                web.Response(status=303, headers={"Location": "/login"})
                if wants_page
                else web.Response(
                    status=401,
                    text="expected the header Authorization: Bearer TOKEN\n",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            )
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.reason}\n")
        return response

    return guard


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers of every answer, before it is sent."""
    response.headers.update(HEADERS)
