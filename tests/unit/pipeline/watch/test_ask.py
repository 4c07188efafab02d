"""Asking a worker for the state of its roles, as `astrocyte health` does."""

from __future__ import annotations

import pytest

from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.watch.ask import WorkerUnreachable, roles_of_worker
from astrocyte.pipeline.watch.web import json_answer, serve
from tests.support.kafka import free_port

TOKEN = "a-token-of-the-tests"
ROLE = {"role": "sql", "ready": False, "waits": ["it starts"]}


@pytest.mark.parametrize(
    ("body", "status"), [(ROLE, 503), ({"roles": {"sql": ROLE}}, 503), ({"roles": {"sql": ROLE}}, 200)]
)
def test_a_worker_of_one_role_and_one_of_several_say_the_same(body, status):
    settings = load_settings(metrics_port=0, metrics_token=TOKEN)
    server = serve(settings, lambda path: json_answer(status, body) if path == "/readyz" else None)
    try:
        assert roles_of_worker(settings.model_copy(update={"metrics_port": server.port})) == {"sql": ROLE}
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("body", "token", "said"),
    [
        (ROLE, None, "says 401 Unauthorized; set its ASTROCYTE_METRICS_TOKEN"),
        ([], TOKEN, "is no worker of Astrocyte"),
        ({"a": 1}, TOKEN, "is no worker of Astrocyte"),
    ],
)
def test_what_answers_and_is_not_understood_is_said(body, token, said):
    server = serve(load_settings(metrics_port=0, metrics_token=TOKEN), lambda _path: json_answer(200, body))
    try:
        with pytest.raises(WorkerUnreachable, match=said):
            roles_of_worker(load_settings(metrics_port=server.port, metrics_token=token))
    finally:
        server.stop()


def test_a_worker_that_is_not_there_is_said():
    with pytest.raises(WorkerUnreachable, match=r"no worker answers at 127.0.0.1:\d+ \(.*refused"):
        roles_of_worker(load_settings(metrics_port=free_port()))
