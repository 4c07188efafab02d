"""A broker started by a program: as a child process, or on its own thread."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from astrocyte.pipeline.broker.protocol.errors import BrokerError
from astrocyte.pipeline.broker.server.broker import EmbeddedBroker

__all__ = ["BrokerProcess", "BrokerThread"]


class BrokerProcess:
    """A broker as a child process that ends with its parent: ``with BrokerProcess(folder) as broker: broker.address``.

    Takes the fields of BrokerSettings as keywords. A second ``start`` after ``kill`` or ``stop`` keeps the port.
    """

    def __init__(self, data_dir: Path | str, port: int = 0, *, ready_timeout_s: float = 60.0, **settings: Any) -> None:
        self.data_dir, self.port, self._ready_timeout_s, self._settings = (
            Path(data_dir),
            port,
            ready_timeout_s,
            settings,
        )
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises BrokerError if it is not running."""
        if self._process is None:
            raise BrokerError("the broker process is not running; call start first")
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until clients can connect.

        Raises BrokerError with its error output if it ends or is not ready in time.
        """
        if self._process is not None:
            raise BrokerError(f"the broker process is already running, with process id {self._process.pid}")
        ready, ready_fd = os.pipe()
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when it fails, closed below
        try:
            self._process = subprocess.Popen(
                self._command(ready_fd),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(ready_fd,),
                start_new_session=True,  # Ctrl-C in a terminal reaches the parent only, which decides what happens
            )
        finally:
            os.close(ready_fd)
        try:
            self.address = self._await_address(ready)
        finally:
            os.close(ready)
            if not self.address:
                self.kill()
                errors.seek(0)
                self._error_output = errors.read().decode(errors="replace").strip()
            errors.close()
        if not self.address:
            reason = self._error_output or f"not ready in {self._ready_timeout_s} s"
            raise BrokerError(f"the broker did not start: {reason}")
        self.port = int(self.address.rpartition(":")[2])
        return self

    def stop(self, timeout_s: float = 30.0) -> int | None:
        """Send SIGTERM, and SIGKILL after ``timeout_s``; returns the exit status, None if it was not running."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._forget()
        return status

    def kill(self) -> int | None:
        """Send SIGKILL; returns the exit status, None if it was not running."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGKILL)
        status = self._process.wait()
        self._forget()
        return status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self, ready_fd: int) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "astrocyte.pipeline.broker",
            "--data",
            str(self.data_dir),
            "--port",
            str(self.port),
            "--ready-fd",
            str(ready_fd),
            "--until-stdin-closes",
        ]
        for name, value in self._settings.items():
            if name != "auto_create_topics":
                command += [f"--{name.replace('_', '-')}", str(value)]
            elif not value:
                command.append("--no-auto-create")
        return command

    def _await_address(self, ready: int) -> str:
        """The address that the child writes when it is ready; empty if it ended or timed out."""
        deadline, address = time.monotonic() + self._ready_timeout_s, b""
        while (left := deadline - time.monotonic()) > 0:
            if select.select([ready], [], [], left)[0]:
                part = os.read(ready, 256)
                if not part:
                    break
                address += part
        return address.decode()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


class BrokerThread:
    """A broker on a thread with its own event loop: ``with BrokerThread(folder) as broker: broker.address``."""

    def __init__(self, data_dir: Path | str, port: int = 0, **settings: Any) -> None:
        self._broker = EmbeddedBroker(data_dir, port=port, **settings)
        self._started: threading.Event = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return self._broker.address

    def start(self) -> Self:
        """Start it; re-raises an error of its start, such as BrokerError."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop it and wait for its end."""
        if self._loop is not None and self._end is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - raised again in the thread that starts it
            self._failure = failure
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with self._broker:
            self._started.set()
            await self._end.wait()
