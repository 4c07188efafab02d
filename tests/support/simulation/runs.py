"""Runs of seeds, each in a child process of its own, and the search for the smallest schedule that still fails."""

from __future__ import annotations

import io
import logging
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astrocyte.agents.sinks.sql.migrate import upgrade
from astrocyte.agents.warm import warm
from tests.support.simulation import faults as faults_module
from tests.support.simulation.faults import Fault
from tests.support.simulation.mutants import MUTANTS
from tests.support.simulation.pipeline import TEMPLATE, Case, Simulation, adapt_product
from tests.support.simulation.world import Stuck, World, active

__all__ = ["Result", "prepare", "run", "shrunk"]

CPU_LIMIT_S, WALL_LIMIT_S = 60, 1200.0
"""A run that takes longer than this does not end; one that waits in real time has blocked the process."""
SIMULATED_LIMIT_S = 900.0
_KEPT: list[World] = []


def _home() -> str | None:
    """A folder in memory, if there is one: the double of the disk decides what is durable."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    faults: list[Fault] = field(default_factory=list)
    """Those that happened."""
    problems: list[str] = field(default_factory=list)
    digest: str = ""
    simulated_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    line: dict[str, object] = field(default_factory=dict)
    """What `Outcome.line` says."""
    log: list[str] = field(default_factory=list)
    """What the processes logged."""

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return bool(self.problems)


def prepare() -> None:
    """Load and compile everything that a run needs, once for all child processes: by a short run in this one."""
    warm()
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    result = Result(0)
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=_home()))
    upgrade(f"sqlite:///{folder}/template.db")
    TEMPLATE[:] = [(folder / "template.db").read_bytes()]
    with World(0) as world:
        _simulate(world, folder, result, [], Case(seconds=1.0))
    shutil.rmtree(folder)
    if result.failed:
        raise RuntimeError(f"a run without faults fails: {result.problems}")
    # The threads of that world never run again, and must not be collected, which would run them to their ends.
    _KEPT.append(world)


def run(
    seed: int, *, keep: Sequence[int] | None = None, mutant: str = "", trace: Path | None = None, verbose: bool = False
) -> Result:
    """Run one seed in a child process; ``keep`` are the numbers of the faults that happen, all by default."""
    began_s = time.monotonic()
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receive)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
        result = _in_child(seed, keep, mutant, trace, verbose)
        with os.fdopen(send, "wb") as file:
            pickle.dump(result, file)
        sys.stdout.flush()
        os._exit(0)
    os.close(send)
    try:
        content = _read(receive, began_s + WALL_LIMIT_S)
    finally:
        os.close(receive)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not content:
        return Result(
            seed, problems=[f"the run did not end within {CPU_LIMIT_S} s on a processor, or its process died"]
        )
    result: Result = pickle.loads(content)
    result.wall_s = time.monotonic() - began_s
    return result


def _read(fd: int, until_s: float) -> bytes:
    content = b""
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([fd], [], [], left_s)[0]:
            part = os.read(fd, 1 << 16)
            if not part:
                return content
            content += part
    return b""


def shrunk(result: Result, again: Callable[[Sequence[int]], Result]) -> tuple[list[int], Result]:
    """The numbers of as few faults of a failing run as still make it fail, and what came of these.

    ``again`` runs the seed with some of the faults.
    """
    kept = list(range(len(result.faults)))
    smallest = result
    for number in reversed(range(len(result.faults))):
        fewer = [each for each in kept if each != number]
        found = again(fewer)
        if found.failed:
            kept, smallest = fewer, found
    return kept, smallest


class _Log(logging.Handler):
    def __init__(self, lines: list[str], verbose: bool) -> None:
        super().__init__(logging.INFO if verbose else logging.WARNING)
        self._lines = lines
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        world = active()
        if world is None:
            return
        who = world.current.name if world.current is not None else "-"
        line = f"{world.seconds:9.4f} {who:22} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._lines.append(line)
        if self._verbose:
            print(line)


def _in_child(seed: int, keep: Sequence[int] | None, mutant: str, trace: Path | None, verbose: bool) -> Result:
    result = Result(seed)
    root = logging.getLogger()
    root.handlers[:] = [_Log(result.log, verbose)]
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=_home()))
    if not verbose:
        sys.stderr = io.StringIO()  # of commands that say what they wait for
    file: Any = trace.open("w", buffering=1) if trace is not None else None
    world = World(seed, None if file is None else lambda line: file.write(line + "\n"))
    try:
        with world:
            case = Case.drawn(world.dice("case"))
            _simulate(world, folder, result, keep, MUTANTS[mutant](case) if mutant else case)
    except BaseException:
        result.problems.append(traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result.cpu_s = used.ru_utime + used.ru_stime
    result.digest, result.simulated_s = world.digest, world.seconds
    return result


def _simulate(world: World, folder: Path, result: Result, keep: Sequence[int] | None, case: Case) -> None:
    adapt_product(world)
    simulation = Simulation(world, folder, case)
    drawn = faults_module.drawn(world.dice("faults"), simulation.roles)
    result.faults = drawn if keep is None else [drawn[number] for number in keep]
    faults_module.schedule(simulation, result.faults)
    simulation.begin()
    try:
        world.run(lambda: simulation.done, SIMULATED_LIMIT_S)
    except Stuck as error:
        result.problems.append(str(error))
    result.problems += simulation.problems
    result.problems += world.errors
    if simulation.outcome is not None:
        result.line = simulation.outcome.line()
