"""Health checks of containers, run against the pages that they ask for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.watch.web import Answer, serve


class Probed:
    """A worker's pages: alive, and ready as is set."""

    def __init__(self) -> None:
        self.ready = True
        self.port = 0

    def answer(self, path: str) -> Answer:
        return Answer(200 if path == "/healthz" or (path == "/readyz" and self.ready) else 503, "text/plain", b"")

    def ask(self, command: Sequence[str], **environment: str) -> bool:
        """Whether a command of a container succeeds, which asks port 9100 there."""
        assert command[0] == "python"
        done = subprocess.run(
            [sys.executable, *(part.replace("9100", str(self.port)) for part in command[1:])],
            env={"PATH": os.environ["PATH"], **environment}, check=False, capture_output=True,
        )  # fmt: skip
        return done.returncode == 0


@contextlib.contextmanager
def probed(settings: Settings) -> Iterator[Probed]:
    """Pages that are served with the port, host and token of the settings."""
    probe = Probed()
    server = serve(settings, probe.answer)
    probe.port = server.port
    try:
        yield probe
    finally:
        server.stop()
