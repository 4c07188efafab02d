"""The page of a running pipeline behind a link: its process starts when somebody follows the link.

The address is there at once, because the parent listens; a browser that connects waits until the child, which inherits
the socket, answers. Nobody looks: nothing is spent.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from astrocyte.pipeline.page.listening import listening
from astrocyte.pipeline.roles.parent import END_WITH_PARENT
from astrocyte.pipeline.settings import Settings
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["PageLink"]

_END_S: Final = 0.5


class PageLink:
    """Listens from ``with`` on; `check` is to be called a few times a second.

    ``environment`` holds the settings for the child, and ``demo`` is the folder of the demo that it is of.
    The port is that of the settings, or a free one if it is taken.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], *, output: IO[str], demo: Path | None = None
    ) -> None:
        self._settings = settings
        self._environment = dict(environment)
        self._output = output
        self._demo = demo
        self._socket: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        try:
            self._socket = listening("127.0.0.1", self._settings.page_port)
        except InvalidSettings:
            self._socket = listening("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Start the child if somebody has connected. It is not started again: what ended it is in its log."""
        if self._child is None and self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            number = self._socket.fileno()
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "astrocyte.pipeline.page", "--listen-fd", str(number)),
                    *(() if self._demo is None else ("--demo", str(self._demo))),
                ],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(number,),
                env={**os.environ, **self._environment, END_WITH_PARENT: "1"},
                start_new_session=True,  # Ctrl-C in a terminal reaches the parent, which decides what happens
            )

    def stop(self, timeout_s: float = _END_S) -> None:
        """End the child, after that time by a kill, and stop to listen."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()  # it only reads
            child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
