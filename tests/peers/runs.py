"""Child processes of engines, and the turns that they take.

All children of a workload live at once, and one works at a time: each makes its first pass, warms up, and then they
take turns, so that what else the machine does meets all of them alike. A child that does not answer in time is ended.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from astrocyte.pipeline.bench.processes import used_s
from astrocyte.pipeline.roles.parent import killed_with_parent
from tests.support.processes import peak_memory_bytes


class Silent(Exception):
    """The child did not answer within the limit, or ended; the text says which."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one child: seconds for one answer, events and seconds of warming up, turns, seconds of a turn."""

    answer_s: float = 60.0
    warm_events: int = 2_000_000
    warm_s: float = 30.0
    turns: int = 3
    turn_s: float = 0.5


@dataclass
class Measured:
    """What was measured of one engine in one workload. Times are processor seconds, but for ``start_s``."""

    start_s: float = 0.0
    start_cpu_s: float = 0.0
    cold_s: float = 0.0
    warmed: int = 0
    """Events before the first turn."""
    turns: list[float] = field(default_factory=list)
    """Median processor seconds of the passes of each turn."""
    wall_s: float = 0.0
    peak_mb: float = 0.0
    count: int = 0
    hash: str = ""
    error: str = ""
    """Why there is no figure."""

    @property
    def warm_s(self) -> float:
        """Processor seconds of a pass, the median of the turns."""
        return median(self.turns)


class Child:
    """The process of one engine. See children/protocol.py for what is said."""

    def __init__(self, command: Sequence[str], log: Path, limits: Limits) -> None:
        self._limits = limits
        self._log = log
        self._rest = b""
        self.found = Measured()
        began = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                killed_with_parent(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, cwd=log.parent
            )
        self._expect("ready")
        self.found.start_s = time.perf_counter() - began
        self.found.start_cpu_s = used_s(self._process.pid)
        self.events = int(self._expect("events")["events"])

    def _expect(self, name: str) -> dict[str, Any]:
        """The next answer. Raises Silent."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._limits.answer_s
        while True:
            line, mark, rest = self._rest.partition(b"\n")
            if mark:
                self._rest = rest
                if line.startswith(b"@"):
                    answer: dict[str, Any] = json.loads(line[1:])
                    if name in answer:
                        return answer
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise Silent(f"none in {self._limits.answer_s:.0f} s")
            data = os.read(self._process.stdout.fileno(), 65_536)
            if not data:
                raise Silent(f"ended with {self._process.wait()}: {self._last_words()}")
            self._rest += data

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if "Error" in line or "Exception" in line] or lines
        return (said or ["it printed nothing"])[-1][:200]

    def one_pass(self) -> dict[str, Any]:
        """One pass over all events. Raises Silent, also where its matches are not those of the pass before."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"pass\n")
            self._process.stdin.flush()
        except OSError:
            raise Silent(f"ended with {self._process.wait()}: {self._last_words()}") from None
        answer = self._expect("cpu_s")
        found = (int(answer["count"]), str(answer["hash"]))
        if self.found.hash and found != (self.found.count, self.found.hash):
            raise Silent(f"passes differ: {self.found.count:,} and {found[0]:,} matches")
        self.found.count, self.found.hash = found
        return answer

    def warm(self) -> None:
        """The first pass, and then more until the engine is warm. Raises Silent."""
        self.found.cold_s = self.one_pass()["cpu_s"]
        self.found.warmed = self.events
        began = time.monotonic()
        while self.found.warmed < self._limits.warm_events and time.monotonic() - began < self._limits.warm_s:
            self.one_pass()
            self.found.warmed += self.events

    def turn(self) -> None:
        """Passes for some processor time, at least one. Raises Silent."""
        passes: list[dict[str, Any]] = []
        while not passes or (sum(each["cpu_s"] for each in passes) < self._limits.turn_s and len(passes) < 20):
            passes.append(self.one_pass())
        self.found.turns.append(median(each["cpu_s"] for each in passes))
        self.found.wall_s = median(each["wall_s"] for each in passes)
        self.found.peak_mb = peak_memory_bytes(self._process.pid) / (1 << 20)

    def end(self) -> None:
        """End the process at once; it holds nothing."""
        self._process.kill()
        self._process.communicate()


def measure(commands: dict[str, list[str]], folder: Path, limits: Limits) -> dict[str, Measured]:
    """Figures of each engine by its name, for one workload; the commands have its arguments."""
    found: dict[str, Measured] = {}
    children: dict[str, Child] = {}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, command in commands.items():
            try:
                children[name] = Child(command, folder / f"{name}.log", limits)
                found[name] = children[name].found
                children[name].warm()
            except Silent as silent:
                found.setdefault(name, Measured()).error = str(silent)
        for _ in range(limits.turns):
            for name, child in children.items():
                try:
                    if not found[name].error:
                        child.turn()
                except Silent as silent:
                    found[name].error = str(silent)
        return found
    finally:
        for child in children.values():
            child.end()
