"""``make simulate``: run seeds, and print of one that fails the line that repeats it with its smallest schedule.

python -m tests.support.simulation --seed 7
python -m tests.support.simulation --seeds 1000 [--first 0]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.support.simulation import patches

FIXED_HASHES = {"PYTHONHASHSEED": "0"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only, and print its schedule")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--faults", help="numbers of the faults that happen, separated by commas, or none; all by default"
    )
    parser.add_argument("--mutant", default="", help="a fault of the product that is put in: see mutants.py")
    parser.add_argument("--trace", type=Path, help="write everything that happens to a file")
    parser.add_argument("--verbose", action="store_true", help="print what the processes log")
    parser.add_argument("--no-shrinking", action="store_true", help="print a schedule that fails as it is")
    parser.add_argument("--all", action="store_true", help="go on after a seed that fails, and print every one")
    options = parser.parse_args(arguments)
    patches.install()

    from tests.support.simulation import search

    if options.seed is None:
        seeds = range(options.first, options.first + options.seeds)
        return search.many(seeds, options.mutant, all_of_them=options.all, shrink=not options.no_shrinking)
    keep = None
    if options.faults is not None:
        keep = [] if options.faults == "none" else [int(number) for number in options.faults.split(",")]
    settings = {"mutant": options.mutant, "trace": options.trace, "verbose": options.verbose}
    shrink = keep is None and not options.no_shrinking
    return search.one(options.seed, keep, partial(search.run, **settings), options.mutant, shrink=shrink)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings must be the same in every run.
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.support.simulation", *sys.argv[1:]], os.environ | FIXED_HASHES
        )
    sys.exit(main())
