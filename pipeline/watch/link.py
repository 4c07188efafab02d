"""The link between a supervisor and the process of a role: reports upwards, requests of the metrics downwards.

It is a socket that the child inherits. Messages are JSON, one a line. A child that is stopped or whose interpreter is
blocked says nothing, which is how the supervisor learns of it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import orjson

__all__ = ["SUPERVISOR", "Link", "Supervisor"]

SUPERVISOR: Final = "ASTROCYTE_SUPERVISOR_FD"
"""Set in the environment of a child: the number of its end of the socket."""
_MOST_WAITING: Final = 4
"""Answers that nobody has fetched."""


class Supervisor:
    """The child's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def of_environment(cls) -> Supervisor | None:
        """The supervisor that has started this process; None without one."""
        # Removed, so that children of this process do not take it for theirs.
        number = os.environ.pop(SUPERVISOR, "")
        if not number:
            return None
        connection = socket.socket(fileno=int(number))
        connection.set_inheritable(False)
        return cls(connection)

    def report(self, status: dict[str, Any]) -> None:
        """Send the state; waits while the supervisor is stopped, and does nothing once it is gone."""
        self._send({"status": status})

    def answer_with(self, metrics: Callable[[], str]) -> None:
        """Answer requests of the metrics, on a daemon thread."""
        threading.Thread(target=self._serve, args=(metrics,), name="supervisor", daemon=True).start()

    def _serve(self, metrics: Callable[[], str]) -> None:
        with contextlib.suppress(OSError), self._connection.makefile("rb") as requests:
            for request in requests:
                self._send({"number": orjson.loads(request)["number"], "metrics": metrics()})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), self._lock:
            self._connection.sendall(orjson.dumps(message) + b"\n")


class Link:
    """The supervisor's end: the last report of a child, and how many came."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self.theirs.set_inheritable(True)
        self.status: dict[str, Any] | None = None
        self.heard = 0
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue(_MOST_WAITING)
        self._asking = threading.Lock()
        self._asked = 0

    @property
    def environment(self) -> dict[str, str]:
        """What the child finds its end by; `theirs` must be passed on to it."""
        return {SUPERVISOR: str(self.theirs.fileno())}

    def begin(self) -> None:
        """The child has been started: read what it sends."""
        self.theirs.close()
        threading.Thread(target=self._read, name="link", daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._ours.makefile("rb") as lines:
            for line in lines:
                message = orjson.loads(line)
                if "status" in message:
                    self.status = message["status"]
                    self.heard += 1
                else:
                    with contextlib.suppress(queue.Full):
                        self._answers.put_nowait(message)

    def metrics(self, timeout_s: float) -> str:
        """Prometheus text of the child; empty if it does not answer in time."""
        with self._asking:
            self._asked += 1
            number = self._asked
            try:
                # A child that is stopped reads nothing: this must not wait.
                self._ours.send(orjson.dumps({"number": number}) + b"\n", socket.MSG_DONTWAIT)
                while True:
                    answer = self._answers.get(timeout=timeout_s)
                    if answer["number"] == number:
                        return str(answer["metrics"])
            except (OSError, queue.Empty):
                return ""

    def close(self) -> None:
        """The child has ended."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()
