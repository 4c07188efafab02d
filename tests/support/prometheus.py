"""A real Prometheus for tests."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.http_process import HttpProcess, program

__all__ = ["Prometheus", "prometheus", "promtool"]


def promtool() -> str:
    """Path of the program that checks and tries rules."""
    return program("prometheus", "promtool")


class Prometheus(HttpProcess):
    """A server with a configuration of the test."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        path = program("prometheus", "prometheus")
        super().__init__([path, f"--config.file={file}", f"--storage.tsdb.path={folder}/data"], folder)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an instant query; fails the test with what the server says of a wrong one."""
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except HTTPError as error:
            pytest.fail(f"{expression}: {error.read().decode()}")
        return found


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Any]:
    """``prometheus(config)`` starts one."""
    started: list[Prometheus] = []

    def start(config: dict[str, Any]) -> Prometheus:
        folder = tmp_path / f"prometheus-{len(started)}"
        folder.mkdir()
        started.append(Prometheus(folder, config))
        return started[-1]

    yield start
    for each in started:
        each.stop()
