"""A real Alertmanager for tests."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_process import HttpProcess, program

__all__ = ["Alertmanager", "alertmanager"]


class Alertmanager(HttpProcess):
    """One that notifies ``receiver`` of every group of alerts at once."""

    def __init__(self, path: str, folder: Path, receiver: str) -> None:
        config = {
            "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "test", "webhook_configs": [{"url": receiver, "send_resolved": True}]}],
        }
        file = folder / "alertmanager.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        options = [f"--config.file={file}", f"--storage.path={folder}/data", "--cluster.listen-address="]
        super().__init__([path, *options], folder)

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that fire."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Any]:
    """``alertmanager(receiver)`` starts one that notifies the receiver."""
    path = program("prometheus-alertmanager", "prometheus-alertmanager", "alertmanager")
    started: list[Alertmanager] = []

    def start(receiver: str) -> Alertmanager:
        folder = tmp_path / f"alertmanager-{len(started)}"
        folder.mkdir()
        started.append(Alertmanager(path, folder, receiver))
        return started[-1]

    yield start
    for each in started:
        each.stop()
