"""End a child process with its parent, even a killed one: only the parent holds the pipe of its standard input."""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

__all__ = ["END_WITH_PARENT", "end_with_parent"]

END_WITH_PARENT: Final = "ASTROCYTE_END_WITH_PARENT"
"""Set in the environment of a child whose parent holds the other end of its standard input."""


def end_with_parent() -> None:
    """Send this process SIGTERM once its parent is gone, if the parent has asked for that."""
    # Removed, so that children of this process do not mistake their standard input for such a pipe.
    if os.environ.pop(END_WITH_PARENT, None):
        threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
