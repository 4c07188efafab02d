"""Ctrl-C and SIGTERM end `simulate` and `demo` within two seconds at any moment, with what was done."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from astrocyte.pipeline.recording.reader import read_log
from astrocyte.schemas.frames import decode_frame
from tests.support.processes import descendants, handles, has_loaded, is_running
from tests.support.waiting import wait_until

LIMIT_S = 2.0
BUSY_S = 1.0
"""Allowance for a machine whose cores all have other work: the two seconds hold for one that is idle."""
# Each moment with one of the two signals in every run of the tests, and with both in the long form.
INTERRUPT_FIRST = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
TERMINATE_FIRST = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
ENDLESS = ["simulate", "tests.support.bursts:BURSTS", "--ticks", "1000000000"]
COLD = {"JAX_COMPILATION_CACHE_DIR": ""}


@dataclass
class Run:
    """A command that is running, with its streams in files."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def progress(self) -> list[str]:
        """Lines in which a demo shows how far it is."""
        return [line for line in self.errors.splitlines() if re.match(r"\w+: .*( events sent, | \.\.\.$)", line)]

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def at(self, moment: Callable[[], object], what: str) -> None:
        """Wait for the moment; fails if the process ends before it."""

        def there() -> object:
            assert self.process.poll() is None, self.errors
            return moment()

        wait_until(there, 120, lambda: f"{what}: {self.errors}")

    def ends(self, number: signal.Signals) -> None:
        """Send the signal; the process ends in time with one line, the right status and no child."""
        children = descendants(self.pid)
        before = self.errors
        began = time.monotonic()
        self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        elapsed = time.monotonic() - began
        said = self.errors.removeprefix(before)
        assert self.process.returncode == 128 + number, said
        assert elapsed < LIMIT_S + BUSY_S, said
        assert [line.startswith("astrocyte: stopped") for line in said.splitlines() if line not in self.progress] == [
            True
        ], said
        wait_until(lambda: not any(map(is_running, children)), 10, lambda: f"{children} to end")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def begin(*arguments: str, **environment: str) -> Run:
        code = "from astrocyte.pipeline.cli.start import main; main()"
        with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], stdout=out, stderr=errors,
                env={**os.environ, **environment, "PYTHONPATH": str(Path.cwd())}, cwd=tmp_path,
            )  # fmt: skip
        started.append(Run(process, tmp_path))
        return started[-1]

    yield begin
    for run in started:
        run.process.kill()
        run.process.wait()


def is_readable(path: Path) -> bool:
    """Whether every record of a log is complete."""
    return all(decode_frame(record.value).num_rows >= 0 for record in read_log(path))


@pytest.mark.parametrize("number", INTERRUPT_FIRST)
def test_a_signal_while_the_command_is_imported_ends_it(start, number) -> None:
    run = start(*ENDLESS, "--out", "run.jsonl")
    run.at(lambda: handles(run.pid, signal.SIGTERM), "its first statement")
    run.ends(number)


@pytest.mark.parametrize("number", TERMINATE_FIRST)
def test_a_signal_while_jax_is_imported_ends_it(start, number) -> None:
    run = start(*ENDLESS, "--out", "run.jsonl")
    run.at(lambda: has_loaded(run.pid, "/jaxlib/"), "JAX")
    run.ends(number)


def test_a_signal_while_a_world_is_compiled_leaves_a_readable_file(start) -> None:
    run = start("simulate", "cells", "--size", "1024", "--ticks", "100000", "--out", "run.jsonl.zst", **COLD)
    partial = run.folder / "run.jsonl.zst.partial"
    # The empty frames at the beginning are written while the first chunk is compiled.
    run.at(partial.exists, "the first frames")
    run.ends(signal.SIGINT)
    assert is_readable(partial)


@pytest.mark.parametrize("number", INTERRUPT_FIRST)
@pytest.mark.parametrize("name", ["run.jsonl.zst", pytest.param("run.jsonl", marks=pytest.mark.soak)])
def test_a_signal_in_the_middle_of_a_run_leaves_a_complete_file(start, number, name) -> None:
    run = start(*ENDLESS, "--out", name)
    partial = run.folder / f"{name}.partial"
    run.at(lambda: partial.exists() and partial.stat().st_size > 300_000, "some rounds")
    run.ends(number)
    assert is_readable(run.folder / name)
    assert not partial.exists()


def test_a_signal_while_a_checkpoint_is_written_keeps_the_checkpoint_before_it(start) -> None:
    run = start(*ENDLESS, "--checkpoint", "world.ckpt", "--checkpoint-ticks", "10", "--out", "run.jsonl")
    checkpoint = run.folder / "world.ckpt"
    run.at(lambda: checkpoint.exists() and checkpoint.with_name("world.ckpt.part").exists(), "a second checkpoint")
    run.ends(signal.SIGTERM)
    import numpy as np

    with np.load(checkpoint) as archive:
        assert all(archive[name].size >= 0 for name in archive.files)


@pytest.mark.parametrize("number", TERMINATE_FIRST)
def test_a_signal_while_no_broker_is_there_ends_the_wait(start, number) -> None:
    run = start(*ENDLESS, "--broker", "127.0.0.1:9")
    run.at(lambda: "waiting for it" in run.errors, "the notice")
    run.ends(number)


def test_a_signal_after_the_broker_has_gone_ends_the_run_and_says_what_was_confirmed(start, own_embedded) -> None:
    run = start(*ENDLESS, "--rate", "20000", "--broker", own_embedded.address)
    run.at(lambda: any(own_embedded.data_dir.rglob("*test_births*")), "the first events")
    own_embedded.kill()
    run.at(lambda: "is unavailable" in run.errors or "cannot be reached" in run.errors, "the notice")
    run.ends(signal.SIGINT)
    assert "the broker has confirmed" in run.errors


def test_a_signal_while_the_demo_starts_its_workers_leaves_no_process(start) -> None:
    run = start("demo", "--seconds", "60")
    run.at(lambda: (run.folder / "demo-data/logs/worker.log").exists() and len(descendants(run.pid)) > 1, "workers")
    run.ends(signal.SIGINT)


@pytest.mark.soak
def test_a_signal_in_the_middle_of_a_demo_leaves_no_process_and_keeps_its_data(start) -> None:
    run = start("demo", "--seconds", "600")
    run.at(lambda: "multi events" in run.errors and " 0 multi events" not in run.errors.splitlines()[-1], "matches")
    run.ends(signal.SIGTERM)
    assert "what the demo has stored so far is in demo-data" in run.errors
    assert (run.folder / "demo-data/astrocyte.db").stat().st_size > 0
