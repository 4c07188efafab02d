"""The process that reads inputs of one target, until its time is over or one of them is a finding.

python -m tests.fuzz.child TARGET PAGE CORPUS --seconds N --seed N --engine atheris|mutators

Whoever starts it holds what is read in a page (`tests.fuzz.page`): a finding may end this process.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.page import MOST_BYTES, Page
from tests.support.mutations import mutated

if TYPE_CHECKING:
    from tests.fuzz.target import Target

__all__ = ["RAISED", "TOO_LARGE", "guarded"]

RAISED: Final = 77
"""Exit status after an error that the target does not allow."""
TOO_LARGE: Final = 78
"""Exit status after the peak of memory has grown by more than the target allows."""

_ROOT: Final = Path(__file__).parents[2]
_MOST_ADDRESSES: Final = 6 << 30
_INSTRUMENTED: Final = (
    "astrocyte.schemas",
    "astrocyte.agents.ingest",
    "astrocyte.agents.rules",
    "astrocyte.agents.expressions.lexer",
    "astrocyte.agents.expressions.parser",
    "astrocyte.agents.sinks.influx.read_lines",
    "astrocyte.pipeline.broker",
    "astrocyte.pipeline.recording",
    "astrocyte.pipeline.roles.sink.decode",
    "astrocyte.pipeline.state",
    "astrocyte.pipeline.topology.rule_updates",
    "astrocyte.pipeline.kafka.codecs",
    "astrocyte.pipeline.kafka.record_batches",
    "astrocyte.simulator.runtime.controls",
)
"""Modules whose branches guide the search. Those that Numba compiles cannot be among them."""


def guarded(target: Target, page: Page) -> Callable[[bytes], None]:
    """Reads one input within the limits of the target; a finding ends the process, with the page as the witness."""
    read = target.open()
    allowed_kb = _peak_kb() + 1024 * target.most_mb

    def run(data: bytes) -> None:
        if len(data) > MOST_BYTES:
            return
        page.begin(data)
        # Processor time of this process alone, and a signal that nothing in it handles: compiled code hangs too.
        signal.setitimer(signal.ITIMER_PROF, target.most_s)
        began_us = time.process_time_ns() // 1000
        try:
            read(data)
        except target.allowed:
            pass
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(RAISED)
        signal.setitimer(signal.ITIMER_PROF, 0)
        peak_kb = _peak_kb()
        page.end(time.process_time_ns() // 1000 - began_us, peak_kb)
        if peak_kb > allowed_kb:
            print(f"the peak of memory is {peak_kb} KiB, the limit {allowed_kb} KiB", file=sys.stderr, flush=True)
            os._exit(TOO_LARGE)

    return run


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mutants_of(inputs: list[bytes], rng: random.Random, target: Target) -> Iterator[bytes]:
    """The inputs, then changed ones without end: damaged, cut, or joined of two."""
    yield from inputs
    while True:
        data = rng.choice(inputs)
        if not target.in_place and rng.random() < 0.2:
            other = rng.choice(inputs)
            data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        in_place = target.in_place and rng.random() < 0.9
        yield mutated(data, rng, in_place=in_place)[: max(target.most_bytes, len(data))]


def by_mutators(target: Target, page: Page, folder: Path, seconds: float, seed: int) -> None:
    """Without guidance: mutants of seeds and of what is in the folder, drawn from a seed."""
    run = guarded(target, page)
    inputs = [path.read_bytes() for path in sorted(folder.iterdir())]
    end_s = time.monotonic() + seconds
    for data in mutants_of(inputs, random.Random(f"{target.name} {seed}"), target):
        if time.monotonic() > end_s:
            return
        run(data)


def by_atheris(target: Target, page: Page, folder: Path, seconds: float, seed: int) -> None:
    """Guided by branches that were not taken before; inputs that take one are kept in the folder."""
    import atheris  # type: ignore[import-not-found]

    options = {
        "max_total_time": max(1, round(seconds)), "seed": seed % (1 << 31) or 1, "max_len": target.most_bytes,
        # The limits of `guarded` hold; those of libFuzzer are by wall time and by the memory of all inputs.
        "timeout": 3600, "rss_limit_mb": 0, "malloc_limit_mb": 0, "verbosity": 0, "reload": 0,
        "len_control": 0, "detect_leaks": 0, "artifact_prefix": f"{folder.parent}/artifact-",
    }  # fmt: skip
    run = guarded(target, page)
    flags = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(folder)], run, enable_python_coverage=True)
    atheris.Fuzz()


def load_targets(engine: str) -> Mapping[str, Target]:
    """All targets; with atheris, the modules that they read with are instrumented as they are imported."""
    if engine == "atheris":
        import atheris

        # `include` takes whole top-level packages only.
        others = [name for name in _modules() if not name.startswith(_INSTRUMENTED)]
        with atheris.instrument_imports(include=["astrocyte"], exclude=others, enable_loader_override=True):
            from tests.fuzz.targets import TARGETS
    else:
        from tests.fuzz.targets import TARGETS
    return TARGETS


def _modules() -> Iterator[str]:
    """All modules and packages of the project."""
    for package in ("schemas", "simulator", "agents", "pipeline"):
        for path in (_ROOT / package).rglob("*.py"):
            yield ".".join(("astrocyte", *path.relative_to(_ROOT).with_suffix("").parts)).removesuffix(".__init__")


def main(load: Callable[[str], Mapping[str, Target]] = load_targets) -> None:
    """Exit status 0 when the time is over, else that of the finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("page", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--engine", choices=["atheris", "mutators"], required=True)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    faulthandler.enable()
    logging.disable(logging.WARNING)
    target = load(given.engine)[given.target]
    given.corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (given.corpus / sha256(data).hexdigest()).write_bytes(data)
    run = by_atheris if given.engine == "atheris" else by_mutators
    run(target, Page(given.page), given.corpus, given.seconds, given.seed)


if __name__ == "__main__":
    main()
