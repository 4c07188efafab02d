"""A real Alertmanager for tests. Absent, the test is skipped with the reason; in CI absence is a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from astrocyte.pipeline.roles.parent import killed_with_parent
from tests.support.kafka import free_port
from tests.support.waiting import wait_until

__all__ = ["Alertmanager", "alertmanager"]


class Alertmanager:
    """One that notifies ``receiver`` of every group of alerts at once."""

    def __init__(self, program: str, folder: Path, receiver: str) -> None:
        config = {
            "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "test", "webhook_configs": [{"url": receiver, "send_resolved": True}]}],
        }
        file = folder / "alertmanager.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                killed_with_parent(
                    [program, f"--config.file={file}", f"--storage.path={folder}/data", "--cluster.listen-address=",
                     f"--web.listen-address={self.url.removeprefix('http://')}"]
                ),
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._ready, 60, lambda: f"Alertmanager: {self._log.read_text()[-1000:]}")

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that fire."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
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
def alertmanager(tmp_path: Path) -> Iterator[Any]:
    """``alertmanager(receiver)`` starts one that notifies the receiver."""
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        reason = "Alertmanager is not installed (Debian: apt-get install prometheus-alertmanager)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    started: list[Alertmanager] = []

    def start(receiver: str) -> Alertmanager:
        folder = tmp_path / f"alertmanager-{len(started)}"
        folder.mkdir()
        started.append(Alertmanager(program, folder, receiver))
        return started[-1]

    yield start
    for each in started:
        each.stop()
