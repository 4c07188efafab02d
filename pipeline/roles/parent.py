"""End a child process with its parent, even a killed one: only the parent holds the pipe of its standard input."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

__all__ = ["END_WITH_PARENT", "end_with_parent", "killed_with_parent"]

END_WITH_PARENT: Final = "ASTROCYTE_END_WITH_PARENT"
"""Set in the environment of a child whose parent holds the other end of its standard input."""
_LIMIT_S: Final = 20.0
"""Time to end by itself; a role may wait for a broker that ended with the parent. It is safe against being killed."""
_PREPARE: Final = """
import ctypes, os, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent:  # it has ended before this
        os._exit(137)
os.execvp(command[0], command)
"""
"""A program instead of subprocess's ``preexec_fn``, which is unsafe beside threads."""


def end_with_parent() -> None:
    """Once the parent is gone, end this process, if the parent has asked for that: by SIGTERM, and at last at once."""
    # Removed, so that children of this process do not mistake their standard input for such a pipe.
    if os.environ.pop(END_WITH_PARENT, None):
        threading.Thread(target=_watch, name="parent", daemon=True).start()


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LIMIT_S)
    os._exit(128 + signal.SIGTERM)


def killed_with_parent(command: Sequence[str]) -> list[str]:
    """The command, such that the system kills its process when the thread that has started it ends (on Linux).

    For programs that do not watch their standard input.
    """
    return [sys.executable, "-I", "-S", "-c", _PREPARE, str(os.getpid()), *command]
