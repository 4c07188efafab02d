"""A server of the tests as a child process that says over HTTP when it is ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError

import pytest

from astrocyte.pipeline.roles.parent import killed_with_parent
from tests.support.kafka import free_port
from tests.support.waiting import wait_until

__all__ = ["HttpProcess", "program"]


def program(package: str, *names: str) -> str:
    """Path of a program of a Debian package; skips the test where it is absent, but fails it in CI."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"{names[0]} is not installed (Debian: apt-get install {package})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class HttpProcess:
    """A program that listens at a loopback address, and answers at ``ready`` when it is.

    Without an ``address`` the program gets one by the option ``--web.listen-address``.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        address: str = "",
        ready: str = "/-/ready",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not address:
            address = f"127.0.0.1:{free_port()}"
            command = [*command, f"--web.listen-address={address}"]
        self.url = f"http://{address}"
        self._ready_path = ready
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                killed_with_parent(command), env=os.environ | (environment or {}), stdout=log, stderr=log
            )
        wait_until(self._ready, 60, lambda: f"{command[0]}: {self._log.read_text()[-1000:]}")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._ready_path, timeout=10) as answer:
                return bool(200 <= answer.status < 300)
        except (URLError, ConnectionError):
            return False
