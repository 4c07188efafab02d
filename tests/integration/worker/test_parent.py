"""Processes started by `astrocyte worker` end with it, also if it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.worker import wait_until

WORKER = [sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "worker", "--rules", "axons"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_role_processes_end_when_their_parent_does(own_embedded, tmp_path, how):  # noqa: F811
    command = [*WORKER, "--role", "sql", "--role", "influx", "--broker", own_embedded.address]
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        parent = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        wait_until(
            lambda: log.read_text(errors="replace").count("is ready and reads") >= 2,
            120,
            lambda: log.read_text()[-2000:],
        )
        pids = children(parent.pid)
        assert len(pids) == 2
    finally:
        os.kill(parent.pid, how)
        parent.wait(60)
    wait_until(lambda: all(gone(pid) for pid in pids), 60, lambda: log.read_text(errors="replace")[-2000:])
