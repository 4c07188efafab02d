"""The whole pipeline under schedules of faults, each given by one number: a few here, thousands with `make simulate`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS, SOAK_SEEDS = 12, 400


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.support.simulation``."""
    command = [sys.executable, "-m", "tests.support.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_nothing_is_lost_doubled_or_wrong_under_any_of_some_schedules():
    done = simulate("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
def test_nothing_is_lost_doubled_or_wrong_under_many_schedules(search_seed):
    done = simulate("--first", str(search_seed + SEEDS), "--seeds", str(SOAK_SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_seed_gives_the_same_run_each_time():
    runs = [simulate("--seed", "3").stdout for _ in range(2)]
    traces = [re.search(r"trace (\w+)", text) for text in runs]
    assert all(traces), runs
    assert len({each.group(1) for each in traces if each}) == 1, runs


@pytest.mark.parametrize(
    ("mutant", "first"), [("acknowledge before store", 0), ("acknowledge before sync", 0)], ids=lambda value: str(value)
)
def test_a_fault_that_is_put_into_the_product_is_found(mutant, first):
    done = simulate("--first", str(first), "--seeds", "30", "--mutant", mutant)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "to see it again: make simulate SEED=" in done.stdout
