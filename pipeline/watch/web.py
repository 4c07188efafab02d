"""The web endpoint of a worker process: ``/healthz``, ``/readyz`` and ``/metrics``, on a thread of its own.

It only answers GET and HEAD on these paths. Beyond the loopback interface it asks for a bearer token, which
`Settings` demands there.
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, NamedTuple

import orjson

from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["METRICS_TYPE", "Answer", "WebServer", "json_answer", "serve"]

logger = logging.getLogger(__name__)

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_MOST_REQUESTS: Final = 16
"""Requests that are answered at the same time; connections beyond that are closed."""
_REQUEST_S: Final = 5.0
"""How long a client may be silent within its request."""


class Answer(NamedTuple):
    """What is answered: status, content type and body."""

    status: int
    kind: str
    body: bytes


def json_answer(status: int, body: Any) -> Answer:
    """JSON, with a newline at its end for terminals."""
    return Answer(status, "application/json", orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


Pages = Callable[[str], "Answer | None"]
"""The answer for a path; None where there is no such page. Called on the thread of the request."""


class WebServer:
    """A server that runs until `stop`."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="web", daemon=True)
        self._thread.start()
        self.port: int = server.server_address[1]

    def stop(self) -> None:
        """Stop to listen; requests that are being answered are not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], pages: Pages, token: str | None) -> None:
        self.pages = pages
        self.token = token
        self._free = threading.BoundedSemaphore(_MOST_REQUESTS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks the resolver for the name of the address.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: these are clients that go away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_S
    server_version = "astrocyte"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(self._found())

    def do_HEAD(self) -> None:
        self._answer(self._found(), body=False)

    def _found(self) -> Answer:
        if not self._may():
            return Answer(401, "text/plain; charset=utf-8", b"expected the header Authorization: Bearer TOKEN\n")
        try:
            found = self.server.pages(self.path.partition("?")[0])
        except Exception:
            logger.exception("the page %s cannot be made", self.path.partition("?")[0])
            return Answer(500, "text/plain; charset=utf-8", b"see the log of the worker\n")
        return found or Answer(404, "text/plain; charset=utf-8", b"pages: /healthz /readyz /metrics\n")

    def _may(self) -> bool:
        token = self.server.token
        if token is None:
            return True
        kind, _, given = (self.headers.get("Authorization") or "").partition(" ")
        # Bytes, since strings beyond ASCII cannot be compared in constant time.
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())

    def _answer(self, answer: Answer, *, body: bool = True) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        if answer.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the signature of http.server
        """Log nothing: a probe asks every few seconds."""


def serve(settings: Settings, pages: Pages) -> WebServer | None:
    """Serve the pages at ``metrics_host`` and ``metrics_port``; None if the port is not set. Raises InvalidSettings."""
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        return None
    token = settings.metrics_token
    try:
        server = _Server((host, port), pages, None if token is None else token.get_secret_value())
    except OSError as error:
        raise InvalidSettings(
            f"health and metrics cannot be served at port {port} of {host}: {error.strerror or error}; set another "
            "ASTROCYTE_METRICS_PORT, or ASTROCYTE_METRICS_HOST (each worker on a machine needs a port of its own)"
        ) from None
    return WebServer(server)
