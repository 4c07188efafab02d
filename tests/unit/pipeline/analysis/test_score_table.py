"""What `astrocyte score --seeds` prints: the head of the table, and one world as one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astrocyte.pipeline.analysis.trials import Trials
from astrocyte.pipeline.cli.correlation.score import _TRIAL_HEAD, _trial_lines

FIGURES = Path(__file__).parents[4] / "docs" / "figures.md"


@pytest.mark.parametrize(("seeds", "said"), [(1, "1 world of 30 s"), (20, "20 worlds of 30 s")])
def test_worlds_are_counted_in_words(seeds, said):
    assert _trial_lines(Trials("axons", 30.0, seeds=seeds), 0)[0].startswith(f"axons: {said} with anomalies")


def test_the_table_of_the_figures_names_the_delays_as_the_command_does():
    named = re.search(r"delay: [a-z]+, [a-z]+", _TRIAL_HEAD)
    assert named is not None
    assert f"| {named[0]} |" in FIGURES.read_text()
