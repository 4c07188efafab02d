"""What ``make simulate`` prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from tests.support.simulation.runs import Result, prepare, run, shrunk

__all__ = ["many", "one", "run"]

_SHOWN = 3000
"""Characters of a problem."""


def many(seeds: Iterable[int], mutant: str = "", *, all_of_them: bool = False, shrink: bool = True) -> int:
    """Run seeds until one fails, whose schedule is then made as small as possible; or all, with a line for each."""
    prepare()
    began_s, count, failed, simulated_s, cpu_s = time.monotonic(), 0, 0, 0.0, 0.0
    for seed in seeds:
        result = run(seed, mutant=mutant)
        count, simulated_s, cpu_s = count + 1, simulated_s + result.simulated_s, cpu_s + result.cpu_s
        if all_of_them:
            print(_text(result), flush=True)
            failed += result.failed
        elif result.failed:
            _show(result, mutant, shrink=shrink)
            return 1
    wall_s = time.monotonic() - began_s
    took = f"{wall_s:.0f} s, {cpu_s:.0f} s of them on a processor"
    print(f"{count} seeds, {simulated_s:.0f} s of simulated time in {took}: {failed or 'nothing'} found", flush=True)
    return int(failed > 0)


def one(seed: int, keep: Sequence[int] | None, run_it: Callable[..., Result], mutant: str, *, shrink: bool) -> int:
    """Run one seed, and print its schedule and what came of it."""
    prepare()
    result = run_it(seed, keep=keep)
    if result.failed:
        _show(result, mutant, shrink=shrink)
    else:
        print(_text(result), flush=True)
    return int(result.failed)


def _show(result: Result, mutant: str, *, shrink: bool) -> None:
    print(_text(result), flush=True)
    also = f" ARGS='--mutant \"{mutant}\"'" if mutant else ""
    if not shrink:
        print(f"to see it again: make simulate SEED={result.seed}{also}", flush=True)
        return
    kept, smallest = shrunk(result, lambda fewer: run(result.seed, keep=fewer, mutant=mutant))
    numbers = ",".join(map(str, kept)) or "none"
    print(f"\nthe smallest schedule that fails ({len(kept)} of {len(result.faults)} faults):\n\n{_text(smallest)}\n")
    print(f"to see it again: make simulate SEED={result.seed} FAULTS={numbers}{also}", flush=True)


def _text(result: Result) -> str:
    took = f"{result.simulated_s:.1f} s of simulated time in {result.cpu_s:.1f} s of a processor"
    lines = [f"seed {result.seed}: {took}, trace {result.digest}"]
    lines += [f"  fault {number}: {fault}" for number, fault in enumerate(result.faults)]
    lines += [f"  {result.line}"] if result.line else []
    lines += [f"  problem: {problem[-_SHOWN:]}" for problem in result.problems] or ["  nothing is wrong"]
    return "\n".join(lines)
