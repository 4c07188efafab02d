"""``make fuzz``: every decoder that reads what others wrote, each in processes of its own, until the time is over.

python -m tests.fuzz --minutes 10 [--target json] [--seed N] [--engine atheris|mutators]

What ends a process (a signal, a hang, an error that is not allowed, too much memory) is a finding; the next process
goes on. Findings lie in build/fuzz/findings; `--keep FILE --why TEXT` adds one to the corpus, which `make test` reads.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from astrocyte.pipeline.roles.parent import killed_with_parent
from tests.fuzz.child import RAISED, TOO_LARGE
from tests.fuzz.page import Page
from tests.fuzz.target import CORPUS, kept_inputs

__all__ = ["Outcome", "engine_here", "fuzz", "main"]

ROOT: Final = Path(__file__).parents[2]
WORK: Final = ROOT / "build" / "fuzz"
_STILL_S: Final = 120.0
"""Wall time without a new input, after which a process that uses no processor time has stopped."""
_START_S: Final = 120.0
_SAME: Final = 3
"""Findings at one place after which the target's other inputs are not tried: most of them would end there too."""


@dataclass
class Outcome:
    """What became of a target."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_mb: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """One input, what it did, and where it lies."""

    kind: str
    place: str
    path: Path


def engine_here() -> tuple[str, str]:
    """The engine to use, and why not atheris where that is missing."""
    if importlib.util.find_spec("atheris") is not None:
        return "atheris", ""
    return "mutators", "atheris is not installed (pip install -r requirements-fuzz.txt): no coverage guides the search"


def fuzz(
    name: str,
    *,
    seconds: float,
    seed: int,
    engine: str,
    work: Path = WORK,
    module: str = "tests.fuzz.child",
    same: int = _SAME,
) -> Outcome:
    """Read inputs of a target for some seconds, in one process after another where one is ended by a finding.

    Ends early after ``same`` findings at one place.
    """
    outcome = Outcome(name)
    corpus = work / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data, _ in kept_inputs(name):
        (corpus / sha256(data).hexdigest()).write_bytes(data)
    places: Counter[str] = Counter()
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and max(places.values(), default=0) < same:
        began_s = time.monotonic()
        finding = _process(outcome, corpus, left_s, seed + len(outcome.findings), engine, work, module)
        outcome.seconds += time.monotonic() - began_s
        if finding is None:
            break
        places[finding.place] += 1
        outcome.findings.append(finding)
        print(f"{name}: {finding.kind} at {finding.place}: {finding.path}", flush=True)
    return outcome


def _process(
    outcome: Outcome, corpus: Path, seconds: float, seed: int, engine: str, work: Path, module: str
) -> Finding | None:
    name = outcome.target
    page_path, said_path = work / f"{name}.page", work / f"{name}.out"
    page_path.unlink(missing_ok=True)
    page = Page(page_path)
    command = [sys.executable, "-m", module, name, str(page_path), str(corpus)]
    command += ["--seconds", f"{seconds:.1f}", "--seed", str(seed), "--engine", engine]
    # In memory where there is such a folder: a disk is slower, and is not what is tested.
    memory = Path("/dev/shm")
    with said_path.open("wb") as said, tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as files:
        child = subprocess.Popen(
            killed_with_parent(command), cwd=ROOT, stdout=said, stderr=said, env=os.environ | {"TMPDIR": files}
        )
        status = _ended(child, page)
    data = page.last()
    outcome.inputs += page.inputs
    outcome.slowest_s = max(outcome.slowest_s, page.slowest_us / 1e6)
    outcome.peak_mb = max(outcome.peak_mb, page.peak_kb >> 10)
    if status == 0:
        return None
    text = said_path.read_text(errors="replace")
    if page.inputs == 0:
        raise RuntimeError(f"{shlex.join(command)} ended with {status} before its first input:\n{text[-3000:]}")
    kind, place = _what(status, text)
    folder = work / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{kind} at {place}\n\n{text[-8000:]}")
    return Finding(kind, place, path)


def _ended(child: subprocess.Popen[bytes], page: Page) -> int | None:
    """The child's exit status; None if it stood still and was killed."""
    seen, changed_s = -1, time.monotonic()
    while True:
        try:
            return child.wait(1.0)
        except subprocess.TimeoutExpired:
            page.last()
        if page.inputs != seen:
            seen, changed_s = page.inputs, time.monotonic()
        elif time.monotonic() - changed_s > _STILL_S + (_START_S if seen == 0 else 0):
            child.kill()
            child.wait()
            return None


def _what(status: int | None, text: str) -> tuple[str, str]:
    """The kind of a finding, and a place by which the same one is recognised."""
    frames = re.findall(r'File "([^"]*)", line (\d+)', text)
    own = [(name, line) for name, line in frames if "tests/fuzz" not in name] or frames
    place = f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else "?"
    if status is None:
        return "stands still", place
    if status == RAISED:
        last = next((line for line in reversed(text.splitlines()) if re.match(r"[\w.]+(:|$)", line)), "")
        return f"raised {last[:200]}", f"{place} {last.partition(':')[0]}"
    if status == TOO_LARGE:
        return "takes too much memory", "memory"
    if status in (-signal.SIGPROF, 128 + signal.SIGPROF):
        return "hangs", "hang"
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"ended by {name}", f"{name} {place}"


def keep(path: Path, why: str) -> None:
    """Add the input of a finding to the corpus of its target."""
    target = path.name.rpartition("-")[0]
    line = json.dumps({"why": why, "input": base64.b64encode(path.read_bytes()).decode()})
    with (CORPUS / f"{target}.jsonl").open("a") as file:
        file.write(line + "\n")


def main() -> int:
    """Exit status 1 if anything was found."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, in equal parts for the targets")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, help="default: drawn anew")
    parser.add_argument("--engine", choices=["atheris", "mutators"])
    parser.add_argument("--keep", type=Path, help="add the input of a finding to the corpus, with --why")
    parser.add_argument("--why", help="what the input did")
    given = parser.parse_args()
    if given.keep is not None:
        if not given.why:
            parser.error("--keep needs --why")
        keep(given.keep, given.why)
        return 0
    engine, reason = (given.engine, "") if given.engine else engine_here()
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed
    chosen = given.target or list(TARGETS)
    print(f"engine {engine}, seed {seed}{': ' + reason if reason else ''}", flush=True)
    outcomes = []
    for name in chosen:
        outcomes.append(fuzz(name, seconds=60 * given.minutes / len(chosen), seed=seed, engine=engine))
        _print_row(outcomes[-1])
    total = sum(each.inputs for each in outcomes)
    found = sum(len(each.findings) for each in outcomes)
    peak = max(each.peak_mb for each in outcomes)
    print(f"{total:,} inputs, {found} findings, slowest {max(e.slowest_s for e in outcomes):.2f} s, peak {peak} MB")
    return 1 if found else 0


def _print_row(outcome: Outcome) -> None:
    print(
        f"{outcome.target:20} {outcome.inputs:>10,} inputs {outcome.seconds:6.0f} s"
        f"   slowest {outcome.slowest_s:6.3f} s   peak {outcome.peak_mb:5} MB   {len(outcome.findings)} findings",
        flush=True,
    )
