"""The command ``simulate``: how a run ends on a signal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.frames import decode_frame
from tests.support.waiting import wait_until

SIMULATE = (
    sys.executable, "-c", "from astrocyte.pipeline.cli.app import main; main()", "simulate",
    "tests.support.bursts:BURSTS", "--json", "--partitions", "1", "--out",
)  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The programs of the world are in the cache: a signal while they are compiled ends a run with nothing done."""
    path = tmp_path_factory.mktemp("compiled") / "run.jsonl"
    subprocess.run([*SIMULATE, str(path), "--ticks", "20"], check=True, capture_output=True)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_summary_and_no_traceback(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "run.jsonl"
    # At a hundredth of an event a second the next frame would be due in hours.
    process = subprocess.Popen(
        [*SIMULATE, str(path), "--seconds", "600", "--rate", "0.01"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        partial = tmp_path / "run.jsonl.partial"
        wait_until(partial.exists, timeout_s=120, what="the first frame")
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, errors
    assert re.fullmatch(r"astrocyte: stopped, run bursts-0-\w+: [\d,]+ ticks in .* s; test_births .*\n", errors)
    summary = json.loads(out)
    frames = [decode_frame(record.value) for record in read_log(path)]
    assert sum(frame.num_rows for frame in frames) == sum(summary["events"].values())
    assert {frame.stream for frame in frames if frame.end} == {"test_births", "test_deaths"}
    assert 0 < summary["end_tick"] < 600 / 0.1


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    script = """
import os, signal, sys, threading
from astrocyte.pipeline.stopping import ends_on_signal
with ends_on_signal() as stop:
    stop.finish("stopping")
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "stopping\n")


def test_signals_are_answered_while_the_main_thread_is_in_library_code() -> None:
    script = """
import hashlib
from astrocyte.pipeline.stopping import ends_on_signal
with ends_on_signal() as stop:
    stop.finish("stopping")
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000_000)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "stopping\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 128 + signal.SIGINT
        finally:
            process.kill()


def test_a_second_run_compiles_nothing_anew_and_writes_the_same_events(tmp_path):
    quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # on a fast machine it compiles in less than a second
    environment = {**os.environ, **quick, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    logs = []
    for name, more in (("first", {}), ("second", {}), ("without", {"JAX_COMPILATION_CACHE_DIR": ""})):
        log = tmp_path / f"{name}.jsonl"
        code = "from astrocyte.pipeline.cli.app import main; main()"
        arguments = ["simulate", "tests.support.bursts:BURSTS", "--ticks", "20", "--run", "r", "--out", str(log)]
        subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment | more, check=True, capture_output=True
        )
        logs.append(log.read_bytes())
        kept = sorted(path.name for path in (tmp_path / "cache").rglob("*-cache"))
        if name == "first":
            after_first = kept
    assert after_first
    assert kept == after_first
    assert logs[0] == logs[1] == logs[2]
