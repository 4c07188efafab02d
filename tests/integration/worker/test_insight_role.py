"""The role insight: its results are those of `match`, also when it is killed, and those of an operator over the log."""

from __future__ import annotations

import pytest

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.loading import load_rules
from astrocyte.schemas.frames import decode_frame
from tests.support.brokers import own_embedded, read_all  # noqa: F401  fixture
from tests.support.live_cases import Case, check_case, world_frames

RULES = """
insight:
  - {statistic: selection, size: 400ms, traits: [metabolism, growth_rate, division_size]}
  - {statistic: price, size: 200ms}
  - {statistic: diversity, size: 300ms, traits: [metabolism]}
  - {statistic: mutations, size: 400ms, traits: [metabolism]}
  - {name: outlook, statistic: forecast, size: 400ms, every: 100ms, horizons: [100ms], min_samples: 4}
rules:
  - name: lineages
    by: simulation_id
    any: [{as: d, stream: diversity, where: "subject == 'lineage'"}]
    emit: {alive: "d.individuals"}
    alert: {severity: info, message: "{d.individuals} alive"}
  - name: metabolised
    by: trait
    any: [{as: s, stream: selection, where: "trait == 'metabolism'"}]
"""


@pytest.mark.parametrize(
    "case",
    [
        Case("restarted", "short", 3, "frames", scenarios=("cells",)),
        pytest.param(Case("after", "short", 2, "json", scenarios=("cells",)), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_live_is_offline_and_what_an_operator_makes_of_the_whole_log(case, own_embedded, tmp_path, record_property):  # noqa: F811
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    found = check_case(case, own_embedded.address, tmp_path, (rules,))
    record_property("experiment", {"case": str(case)} | found)
    assert found["windows"] > 0
    assert found["alerts"] > 0
    for spec in load_rules(RULES).insight:
        operator = InsightOperator(spec.built)
        for frame in world_frames("cells"):
            operator.add(frame)
        expected = operator.flush()
        parts = read_all(own_embedded.address, f"metrics.{spec.name}").values()
        made = [decode_frame(each.value) for part in parts for each in part]
        # After kill -9 a topic may hold a result again, which then is the same.
        rows = list({order(row): row for frame in made for row in frame.rows()}.values())
        assert all(row in rows for frame in made for row in frame.rows()), "one id, two results"
        assert len(rows) == expected.num_rows, "a result is missing"
        if case.form == "frames":  # JSON records of cells do not name their run
            assert sorted(rows, key=order) == sorted(expected.rows(), key=order)


def order(row):
    return row["event_id"]
