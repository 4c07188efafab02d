"""Processes started by `astrocyte worker`, `demo` and the benchmarks end with them, also if they are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.pipeline.roles.parent import END_WITH_PARENT
from tests.support.brokers import own_embedded  # noqa: F401  fixture
from tests.support.processes import descendants, is_running
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


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
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


def killed_after_its_first_line(code: str, folder: Path) -> str:
    """Run a program, and kill it when it has written a line, which is returned."""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert parent.stdout is not None
        return parent.stdout.readline().strip()
    finally:
        parent.kill()
        parent.communicate()


def test_a_child_that_does_not_end_by_itself_ends_all_the_same():
    code = """
import signal, time
from astrocyte.pipeline.roles import parent
parent._LIMIT_S = 0.5
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
parent.end_with_parent()
print("ready", flush=True)
while True:
    signal.pause()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {END_WITH_PARENT: "1"}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "ready\n"
        child.stdin.close()
        assert child.wait(30) == 143
        assert child.stdout.read() == "asked\n"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_program_of_a_benchmark_is_killed_with_it(tmp_path):
    code = """
import subprocess, time
from astrocyte.pipeline.roles.parent import killed_with_parent
child = subprocess.Popen(killed_with_parent(["sleep", "600"]))
print(child.pid, flush=True)
child.wait()
"""
    pid = int(killed_after_its_first_line(code, tmp_path))
    wait_until(lambda: gone(pid), 30, lambda: f"{pid} to end")


def test_a_database_of_a_benchmark_ends_with_it(tmp_path):
    code = """
import signal
from astrocyte.pipeline.bench.servers.postgres import PostgresUnavailable, postgres_server
try:
    with postgres_server() as server:
        print((server.folder / "data/postmaster.pid").read_text().split()[0], flush=True)
        signal.pause()
except PostgresUnavailable as error:
    print(error, flush=True)
"""
    said = killed_after_its_first_line(code, tmp_path)
    if not said.isdigit():
        pytest.skip(said)
    wait_until(lambda: gone(int(said)), 60, lambda: f"{said} to end")


@pytest.mark.soak
def test_a_demo_that_is_killed_leaves_no_process(tmp_path):
    code = "from astrocyte.pipeline.cli.start import main; main()"
    log = tmp_path / "log"
    with log.open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-c", code, "demo", "--seconds", "60"], cwd=tmp_path, stdout=out, stderr=out,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
    try:
        wait_until(lambda: len(descendants(demo.pid)) > 3, 120, log.read_text)
        children = descendants(demo.pid)
    finally:
        demo.kill()
        demo.wait()
    wait_until(lambda: not any(map(is_running, children)), 60, lambda: f"{children} to end")
