"""A role that stands still between the streams and the rules makes nothing late: its readers wait for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.plan import make_plan
from tests.support.live_cases import Case, check_case

OVER_STATISTICS = """
insight:
  - {statistic: diversity, size: 300ms, traits: [metabolism]}
  - {name: outlook, statistic: forecast, size: 400ms, every: 100ms, horizons: [100ms], min_samples: 4}
rules:
  - name: lineages
    by: simulation_id
    any: [{as: d, stream: diversity, where: "subject == 'lineage'"}]
    emit: {alive: "d.individuals"}
  - name: rising
    by: key
    within: 1s
    seq: [{as: one, stream: outlook}, {as: other, stream: outlook}]
"""
BY_NULL = """
rules:
  - name: pair
    by: null
    within: 200ms
    all: [{as: a, stream: axon_1, where: "type == 'A'"}, {as: b, stream: axon_2, where: "type == 'B'"}]
"""


def test_results_of_statistics_are_waited_for(own_embedded, tmp_path):
    assert {*make_plan(load_rules(OVER_STATISTICS)).timed} == {"metrics.diversity", "metrics.outlook"}
    case = Case("frozen", "short", 2, "frames", scenarios=("cells",), frozen="insight")
    check(case, OVER_STATISTICS, own_embedded.address, tmp_path)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_copies_are_waited_for(own_embedded, tmp_path, workers):
    case = Case("frozen", "short", 3, "json", workers, scenarios=("axons",), frozen="repartition")
    check(case, BY_NULL, own_embedded.address, tmp_path)


def check(case: Case, rules: str, address: str, folder: Path) -> None:
    path = folder / "rules.yaml"
    path.write_text(rules)
    found = check_case(case, address, folder, [path])
    assert found["multi"] > 10
    assert found["late"] == found["dead"] == 0
