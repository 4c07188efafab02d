"""Faust workers as child processes, with what they report as a list of events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Worker:
    """One ``faust worker`` of an app of the tests."""

    def __init__(self, folder: Path, app: str = "tests.support.transport_app", **options: Any) -> None:
        folder.mkdir(parents=True)
        self.out = folder / "events.jsonl"
        self.log = folder / "worker.log"
        self.out.touch()
        environment = {f"T_{name.upper()}": str(value) for name, value in options.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faust", "-A", app, "worker", "-l", "info", "--without-web"],
                cwd=ROOT,
                env=os.environ | environment | {"T_OUT": str(self.out), "T_DATA": str(folder / "data")},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What the worker has reported so far."""
        lines = self.out.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in found if kind in (None, event["event"])]

    def offsets(self, partition: int = 0) -> list[int]:
        """Offsets of the partition that were delivered, in order."""
        return [
            offset for event in self.events("chunk") if event["partition"] == partition for offset in event["offsets"]
        ]

    def wait_offsets(self, wanted: list[int], partition: int = 0) -> None:
        """Return when the offsets delivered are these."""
        self.wait(lambda: len(self.offsets(partition)) >= len(wanted))
        assert self.offsets(partition) == wanted

    def wait(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Wait for a condition while the worker is running."""

        def alive() -> Any:
            value = condition()
            if not value and self.process.poll() is not None:
                pytest.fail(f"the worker ended with {self.process.returncode}: {self.text()[-3000:]}")
            return value

        return wait_until(alive, timeout_s, lambda: f"events {self.events()[-5:]}, log {self.text()[-2000:]}")

    def text(self) -> str:
        """The worker's log."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def ended(self, timeout_s: float = 30.0) -> int:
        """Exit status of a worker that ends by itself."""
        return self.process.wait(timeout_s)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers, and kills what is left of them after the test."""
    workers: list[Worker] = []

    def start(**options: Any) -> Worker:
        workers.append(Worker(tmp_path / f"worker-{len(workers)}", **options))
        return workers[-1]

    yield start
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.process.kill()
        worker.process.wait(10)
