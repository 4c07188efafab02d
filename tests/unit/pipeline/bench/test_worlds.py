"""Long runs: every world with all of its anomalies keeps its ledgers and its memory, and compiles nothing late."""

from __future__ import annotations

import pytest

from astrocyte.pipeline.bench.worlds import SIZES, long_run
from tests.support.bursts import BURSTS


def test_a_long_run_with_bursts_at_random_ticks_is_right_and_waits_for_no_compilation() -> None:
    found = long_run(BURSTS, None, ticks=3_000)
    assert (found["ticks"], found["plants"], found["wrong"]) == (3_000, 16, [])


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("name", ["axons", "cells", "ecology", "kernels", "dna"])
def test_every_world_runs_long_with_all_of_its_anomalies(name: str, size: int) -> None:
    found = long_run(name, size if name != "kernels" else min(size, 4_096), ticks=20_000, seconds=3_600)
    assert (found["ticks"], found["wrong"], found["late_compilations"]) == (20_000, [], 0)
    assert found["growth_mb"] < 0.1 * found["resident_mb"]
