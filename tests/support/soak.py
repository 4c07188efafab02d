"""``make soak``: the long runs once, then a search of all properties in rounds, each with the next seed.

python -m tests.support.soak --minutes 60 [--seed N] [pytest arguments]
"""

from __future__ import annotations

import argparse
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTHING_SELECTED = 5  # pytest's exit status

FOUND = """
Found by seed {seed}. To see it again:

    {command}

To keep it, write the arguments after "Falsifying example" as a decorator above the test's @given, and commit it with
the repair; `make test` then tries it first:

    @example(rows=[...], cuts=[...])
    @given(rows=..., cuts=...)

A state machine prints its steps instead: they can be used as the body of a test."""


def seeded(selected: str, seed: int, arguments: list[str]) -> int:
    """Run the tests with such markers, which draw the same examples each time from a seed; pytest's exit status."""
    options = ["-m", selected, "--hypothesis-profile=soak", f"--hypothesis-seed={seed}", *arguments]
    status = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", *options], cwd=ROOT, check=False).returncode
    if status == 1:
        print(FOUND.format(seed=seed, command=shlex.join(["python", "-m", "pytest", "-x", *options])))
    return status


def search(minutes: float, seed: int, arguments: list[str]) -> int:
    """Rounds of all properties until the time limit or a failure; returns pytest's last exit status."""
    end = time.monotonic() + 60 * minutes
    status = 0
    while status == 0 and time.monotonic() < end:
        print(f"search, seed {seed}, {(end - time.monotonic()) / 60:.0f} minutes left", flush=True)
        status = seeded("search and not soak", seed, arguments)
        seed += 1
    return status


def main() -> int:
    """Exit status: that of the pytest run that failed first, or 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="time for the search, after the long runs")
    parser.add_argument("--seed", type=int, help="of the first round; the next has the next; default: drawn anew")
    options, arguments = parser.parse_known_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    status = seeded("soak", seed, arguments)
    return status if status not in (0, NOTHING_SELECTED) else search(options.minutes, seed, arguments)


if __name__ == "__main__":
    sys.exit(main())
