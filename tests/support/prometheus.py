"""A real Prometheus for tests. Absent, the test is skipped with the reason; in CI absence is a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from astrocyte.pipeline.roles.parent import killed_with_parent
from tests.support.kafka import free_port
from tests.support.waiting import wait_until

__all__ = ["Prometheus", "program", "prometheus"]


def program(name: str) -> str:
    """Path of a program of Debian's package prometheus; skips the test where it is absent, but fails it in CI."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Prometheus:
    """A server with a configuration of the test."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                killed_with_parent(
                    [program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
                     f"--web.listen-address={self.url.removeprefix('http://')}"]
                ),
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._ready, 60, lambda: f"Prometheus: {self._log.read_text()[-1000:]}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an instant query; fails the test with what the server says of a wrong one."""
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except HTTPError as error:
            pytest.fail(f"{expression}: {error.read().decode()}")
        return found

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False


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
