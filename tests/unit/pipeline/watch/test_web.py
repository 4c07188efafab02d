"""The web endpoint of a worker: off by default, on the loopback interface, and with a token beyond it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.watch.web import Answer, WebServer, serve
from astrocyte.schemas.errors import InvalidSettings

TOKEN = "a-token-of-the-tests"


def pages(path: str) -> Answer | None:
    if path == "/broken":
        raise RuntimeError(TOKEN)
    return Answer(503, "text/plain", b"no\n") if path == "/healthz" else None


@pytest.fixture
def server() -> Iterator[WebServer]:
    found = serve(load_settings(metrics_port=0, metrics_token=TOKEN), pages)
    assert found is not None
    yield found
    found.stop()


def ask(server: WebServer, path: str, method: str = "GET", token: str | None = TOKEN) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_pages_are_served_whatever_their_query(server):
    assert ask(server, "/healthz") == ask(server, "/healthz?verbose") == (503, b"no\n")
    assert ask(server, "/healthz", "HEAD") == (503, b"")
    assert ask(server, "/")[0] == 404
    assert ask(server, "/healthz", "POST")[0] == 501


@pytest.mark.parametrize("token", [None, "", "another", TOKEN + "x", "tökén"])
def test_without_the_token_nothing_is_said(server, token):
    token = None if token is None else token.encode().decode("latin-1")
    status, body = ask(server, "/healthz", token=token)
    assert status == 401
    assert TOKEN.encode() not in body


def test_a_page_that_raises_costs_its_request(server, caplog):
    status, body = ask(server, "/broken")
    assert (status, body) == (500, b"see the log of the worker\n")
    assert ask(server, "/healthz")[0] == 503


def test_a_client_that_sends_nothing_delays_no_other(server):
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/healthz")[0] == 503


def test_it_is_off_by_default():
    assert serve(load_settings(), pages) is None


def test_a_port_that_is_in_use_is_an_error_that_names_it(server):
    with pytest.raises(InvalidSettings, match=rf"port {server.port} of 127.0.0.1: .*ASTROCYTE_METRICS_PORT"):
        serve(load_settings(metrics_port=server.port), pages)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "worker-1"])
def test_beyond_loopback_a_token_is_needed(host):
    with pytest.raises(InvalidSettings, match="ASTROCYTE_METRICS_TOKEN"):
        load_settings(metrics_port=9100, metrics_host=host)
    assert TOKEN not in repr(load_settings(metrics_port=9100, metrics_host=host, metrics_token=TOKEN))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_it_is_not(host):
    load_settings(metrics_port=9100, metrics_host=host)
