"""Real workers of roles as child processes: started, killed, stopped, started again, and measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from astrocyte.pipeline.roles.worker import environment_of, worker_command
from astrocyte.pipeline.settings import Settings
from tests.support.processes import descendants, handles, peak_memory_bytes, role_of
from tests.support.waiting import wait_until

__all__ = ["SUPERVISOR", "Memory", "Worker", "stopping"]

GRACE_S = 300.0
"""Time for a clean end. On an idle machine it takes about a second, and a supervisor gives it 20 s; a machine that has
ten times as much to do as it can is as much slower."""
SUPERVISOR = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker"]
"""``astrocyte worker``: with several roles, one child process for each."""


class Worker:
    """One role, or several under a supervisor, as a process that may be started again."""

    def __init__(
        self,
        settings: Settings,
        role: str,
        log: Path,
        environment: Mapping[str, str],
        command: Sequence[str] | None = None,
        kills: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.role = role
        self.log = log
        self.kills = kills
        """Step and call at which each life of it ends (`fault_hooks`)."""
        hooks = {"FAULT_DEATHS": str(log.with_suffix(".deaths")), "FAULT_KILLS": json.dumps(list(kills))}
        self._environment = environment_of(settings) | {"ASTROCYTE_ROLES": role} | hooks | environment
        self._command = command or worker_command()
        self._began = 0
        self.starts = 0
        self.gone = False
        """Whether it was ended by the test."""
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.gone = False
        self.starts += 1
        with self.log.open("ab") as out:
            self._began = out.tell()
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=out, stderr=out)

    @property
    def said(self) -> str:
        """What the process that runs now, or ran last, has logged."""
        return self.log.read_bytes()[self._began :].decode(errors="replace")

    @property
    def ended(self) -> int | None:
        """Status with which it has ended, unless the test ended it; None while it runs."""
        return None if self.gone else self.process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def show_waits(self) -> None:
        """Its log says where its coroutines wait (`fault_hooks`), unless it has ended or stands still."""
        if self.process.poll() is None and handles(self.process.pid, signal.SIGRTMIN):
            before = len(self.said)
            self.signal(signal.SIGRTMIN)
            with suppress(pytest.fail.Exception):
                wait_until(lambda: len(self.said) > before, 5)

    def kill(self) -> None:
        """kill -9."""
        self.gone = True
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask for a clean end."""
        self.gone = True
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.process.terminate()

    def stop(self) -> None:
        """A clean end, with status 0."""
        if not self.gone:
            self.terminate()
        status = self.process.wait(GRACE_S)
        assert status == 0, f"{self.role} ended with status {status}: {self.said[-3000:]}"

    def ready(self) -> None:
        """Return when each of its roles reads partitions, or has joined a group whose partitions others have."""
        lines = [f"role {role} is ready and reads" for role in self.role.split(",")]

        def reads() -> bool:
            assert self.process.poll() is None, f"{self.role} ended with {self.process.returncode}: {self.said[-3000:]}"
            said = self.said
            return all(line in said for line in lines)

        wait_until(reads, 300, lambda: f"the start of {self.role}: {self.said[-1000:]}")


class Memory:
    """The largest resident set of any process of each role, also of those that were killed."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self.peak_bytes: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the measurement."""
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.2):
            for worker in list(self._workers):
                pids = {worker.process.pid} if "," not in worker.role else descendants(worker.process.pid)
                for pid in pids:
                    role = worker.role if "," not in worker.role else role_of(pid)
                    self.peak_bytes[role] = max(self.peak_bytes.get(role, 0), peak_memory_bytes(pid))


@contextmanager
def stopping(workers: Sequence[Worker]) -> Iterator[None]:
    """The workers that run end well after the block, and in any case; where it fails, their logs are shown."""
    try:
        yield
    except BaseException:
        for worker in workers:
            worker.show_waits()
            sys.stderr.write(f"\n{worker.log.name}: {worker.log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        running = [worker for worker in workers if worker.process.poll() is None]
        try:
            for worker in running:
                worker.terminate()
            for worker in running:
                worker.stop()
        finally:
            for worker in running:
                worker.kill()
