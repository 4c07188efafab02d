"""The whole pipeline under schedules of faults, each given by one number: a few here, more with `make simulate`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS, SOAK_SEEDS = 8, 400


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.support.simulation``."""
    command = [sys.executable, "-m", "tests.support.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def some_seeds() -> subprocess.CompletedProcess[str]:
    """Runs of the first seeds, with a line for each."""
    return simulate("--seeds", str(SEEDS), "--all")


def traces_of(done: subprocess.CompletedProcess[str]) -> dict[int, str]:
    """By seed: the hash of everything that happened in its run."""
    return {int(seed): trace for seed, trace in re.findall(r"^seed (\d+): .*trace (\w+)$", done.stdout, re.MULTILINE)}


def test_nothing_is_lost_doubled_or_wrong_under_any_of_some_schedules(some_seeds):
    assert some_seeds.returncode == 0, some_seeds.stdout + some_seeds.stderr
    assert len(set(traces_of(some_seeds).values())) == SEEDS, some_seeds.stdout


@pytest.mark.soak
def test_nothing_is_lost_doubled_or_wrong_under_many_schedules(search_seed):
    done = simulate("--first", str(search_seed + SEEDS), "--seeds", str(SOAK_SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr


FOUND = {"a rebalance ends in the same generation while a fetch is handed out": ("179", "0,1")}
"""Schedules that once showed a fault of the product: seed and faults."""


@pytest.mark.parametrize("fault", FOUND)
def test_what_a_schedule_once_found_is_mended(fault):
    seed, faults = FOUND[fault]
    done = simulate("--seed", seed, "--faults", faults)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_seed_gives_the_same_run_in_another_process(some_seeds):
    again = traces_of(simulate("--seed", "3"))
    assert again == {3: traces_of(some_seeds)[3]}


@pytest.mark.parametrize(("mutant", "first"), [("acknowledge before sync", 0), ("acknowledge on receipt", 10)])
def test_a_fault_that_is_put_into_the_product_is_found(mutant, first):
    done = simulate("--first", str(first), "--seeds", "30", "--mutant", mutant, "--no-shrinking")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "to see it again: make simulate SEED=" in done.stdout
