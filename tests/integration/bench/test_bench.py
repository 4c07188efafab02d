"""Every benchmark runs to its end: in the quick form, whose figures mean nothing."""

from __future__ import annotations

import pytest

from astrocyte.pipeline.bench import BENCHMARKS, figures


@pytest.mark.soak
@pytest.mark.time_limit(300, "the benchmarks of the engine compile operators and fill large states")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_gives_figures(name):
    given = list(figures([name], quick=True))
    assert given
    for each in given:
        assert any(isinstance(value, int | float) and value > 0 for value in each.values()), each["bench"]
