"""What holds for every statistic: results do not depend on frames, order of arrival or restarts, and repeat exactly."""

import numpy as np
import pytest

from astrocyte.agents.insight import (
    Diversity,
    EarlyWarning,
    Forecast,
    InsightOperator,
    Mutations,
    Price,
    Selection,
    Trends,
    Windows,
)
from astrocyte.pipeline.state.snapshots import pack_state, unpack_state
from tests.support.evolution import TRAITS, evolution_log, frames_of

LATENESS = 70
STATISTICS = [
    Selection(windows=Windows(400), traits=TRAITS),
    Price(windows=Windows(200)),
    Diversity(windows=Windows(300), traits=TRAITS),
    Mutations(windows=Windows(400), traits=TRAITS),
    EarlyWarning(windows=Windows(600, 300), fields=("total_population",), resamples=19),
    Forecast(windows=Windows(400, 100), horizons_us=(50, 100)),
    Trends(
        windows=Windows(600, 300),
        every_us=10,
        series=(("genome_data", "metabolism"), ("population_metrics", "avg_energy")),
        resamples=19,
    ),
]

LOG = evolution_log()


def at_once(statistic, rows=LOG):
    operator = InsightOperator(statistic)
    for frame in frames_of(sorted(rows, key=lambda row: row[:2])):
        operator.add(frame)
    return operator.flush().rows()


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_results_do_not_depend_on_frames_order_of_arrival_or_restarts(statistic):
    rng = np.random.default_rng(7)
    rows = [row for row in LOG if row[1] in InsightOperator(statistic).streams]
    arrival = np.argsort([row[2]["timestamp"] + rng.integers(0, LATENESS) for row in rows], kind="stable")
    operator, found, newest = InsightOperator(statistic), [], 0
    for chunk in np.array_split(arrival, 25):
        part = [rows[index] for index in chunk]
        for frame in frames_of(sorted(part, key=lambda row: row[:2])):
            assert len(operator.add(frame)) == 0
        newest = max(newest, *(row[2]["timestamp"] for row in part))
        frame = operator.advance(newest - LATENESS)
        found += [] if frame is None else frame.rows()
        saved = unpack_state(pack_state(operator.snapshot()))
        operator = InsightOperator(statistic)
        operator.restore(saved)
    assert found
    found += operator.flush().rows()
    assert found == at_once(statistic)


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_ids_are_unique_and_results_are_of_the_declared_types(statistic):
    rows = at_once(statistic)
    assert len({row["event_id"] for row in rows}) == len(rows)
    operator = InsightOperator(statistic)
    for frame in frames_of(sorted(LOG, key=lambda row: row[:2])):
        operator.add(frame)
    result = operator.flush()
    for field in statistic.result.arrow_schema():
        assert result.batch.schema.field(field.name).type == field.type, field.name
    for name, about in statistic.result.about.items():
        values = [row[name] for row in rows]
        assert about.null or None not in values, name
        known = [value for value in values if value is not None]
        assert not about.values or set(known) <= set(about.values)
        if about.low is not None:
            assert all(value >= about.low for value in known), name
        if about.high is not None:
            assert all(value <= about.high + 1e-9 for value in known), name


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda each: each.result.stream)
def test_a_run_has_the_same_results_alone_and_beside_another(statistic):
    alone = at_once(statistic, [row for row in LOG if row[0] == "b"])
    assert alone == [row for row in at_once(statistic) if row["key"] == "b"]
