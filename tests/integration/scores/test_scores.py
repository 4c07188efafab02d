"""Every shipped alert rule finds what is planted for it in twenty worlds, and is quiet in twenty others.

Controllers steer some of them, as in a demo.
"""

from __future__ import annotations

import pytest

from astrocyte import load_rules
from astrocyte.pipeline.analysis.trials import run_trials
from astrocyte.pipeline.topology.rule_files import shipped_rules

SEEDS = range(20)
LENGTHS = {"axons": 20.0, "cells": 120.0, "dna": 120.0, "ecology": 120.0, "kernels": 120.0}
"""Simulated seconds: room for every kind of anomaly."""


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("scenario", "steered"), [*((name, False) for name in sorted(LENGTHS)), ("cells", True), ("dna", True)]
)
def test_alerts_find_what_is_planted_and_nothing_else(scenario: str, steered: bool) -> None:
    trials = run_trials(
        scenario,
        load_rules(shipped_rules()[scenario]),
        seeds=SEEDS,
        seconds=LENGTHS[scenario],
        steered=steered,
        slack_us=10_000_000,
    )
    assert not any("controller" in line for line in trials.unscored)
    for rule, score in trials.scores.items():
        assert score.planted, rule
        assert score.recall is not None
        assert score.precision is not None
        assert score.recall >= 0.95, (rule, score)
        assert score.precision >= 0.95, (rule, score)
        assert score.quiet_alerts <= 1, (rule, score)
