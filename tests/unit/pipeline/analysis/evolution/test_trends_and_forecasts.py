"""Trends of a run, and forecasts with what came of them: against plain computations over the same rows."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.insight import Forecast
from astrocyte.pipeline.analysis.evolution import NotEnoughData
from astrocyte.pipeline.analysis.evolution.evolutionary_trends import (
    interval_means,
    population_trends,
    trends_statistic,
)
from tests.support.evolving import TICK_US, analysis_of, evolving_frames


def with_population(metrics, values):
    """The snapshots with other numbers of the living."""
    place = metrics.batch.schema.get_field_index("total_population")
    batch = metrics.batch.set_column(place, "total_population", pa.array(values, pa.int64()))
    return dataclasses.replace(metrics, batch=batch)


@pytest.fixture(scope="module")
def run():
    return analysis_of(evolving_frames(slopes={"metabolism": -0.6}, collapse_at=40))


def test_what_is_selected_against_falls_over_the_run_and_mutations_are_counted(run):
    found = run.analyze_evolutionary_trends()
    assert "metabolism" in found.falling
    assert found.intervals == 60
    assert found.every_us == TICK_US
    effect = found.mutations[0]
    births = [row for row in run.history.frames["evolutionary_events"].rows() if row["type"] == "birth"]
    mutants = [row["fitness_delta"] for row in births if row["mutation_magnitude"] > 0]
    assert (effect.births, effect.mutations) == (len(births), len(mutants))
    assert effect.mean == pytest.approx(np.mean(mutants))
    assert found.relations_table().num_rows == 5 * 4
    assert found.table().column("series").to_pylist()[0] == "metabolism"
    assert found.mutations_table().num_rows == 8


def test_the_means_that_are_drawn_are_those_whose_trend_is_taken(run):
    times, means = interval_means(run.history, trends_statistic(run.history))
    rows = run.history.frames["problem_solving"].rows()
    own = [row["accuracy"] for row in rows if abs(row["timestamp"] - times[7]) <= TICK_US // 2]
    assert means["accuracy"][7] == pytest.approx(np.mean(own))


def test_a_population_that_grows_has_a_trend():
    frames = evolving_frames(ticks=40, size=200)
    metrics = frames["population_metrics"]
    frames["population_metrics"] = with_population(metrics, range(100, 140))
    rows = {each.series: each for each in population_trends(analysis_of(frames).history)}
    assert rows["total_population"].slope == pytest.approx(10.0)
    assert rows["total_population"].trend_p < 0.05


def test_few_samples_have_no_trends_and_the_error_says_how_many_are_needed():
    with pytest.raises(NotEnoughData, match=r"at 30 times or more; run 'run-1' has them at 20"):
        analysis_of(evolving_frames(ticks=20)).analyze_evolutionary_trends()


def test_past_forecasts_are_those_of_the_stream_and_are_compared_with_what_came(run):
    found = run.predict_population_dynamics(time_window="2s", horizon="500ms")
    assert (found.window_us, found.horizon_us) == (2_000_000, 500_000)
    windows = run.history.windows(2_000_000, 500_000)
    rows = run.history.results(Forecast(windows=windows, horizons_us=(500_000,))).to_pylist()
    series = {row["timestamp"]: row["avg_energy"] for row in run.history.frames["population_metrics"].rows()}
    expected = []
    for row in rows:
        made = max(time for time in series if time < row["window_end"])
        if row["target"] == "avg_energy" and row["median"] is not None and made + 500_000 in series:
            expected.append((made, row["median"], row["low_80"], series[made + 500_000]))
    past = [each for each in found.past if each.target == "avg_energy"]
    assert [(each.made_us, each.median, each.low_80, each.came) for each in past] == expected
    assert len(expected) >= 7
    (skill,) = [each for each in found.skill if each.target == "avg_energy"]
    assert skill.forecasts == len(expected)
    assert skill.held_80 == np.mean([each.low_80 <= each.came <= each.high_80 for each in past])
    assert skill.held_80_low <= skill.held_80 <= skill.held_80_high
    assert skill.error == pytest.approx(np.mean([abs(each.median - each.came) for each in past]))
    assert skill.skill == pytest.approx(1 - skill.error / skill.no_change_error)


def test_the_forecast_ahead_is_that_of_the_last_window_and_reaches_twice_the_horizon(run):
    found = run.predict_population_dynamics(time_window="2s", horizon="500ms")
    energy = [each for each in found.ahead if each.target == "avg_energy"]
    assert [each.horizon_us for each in energy][-1] == 1_000_000
    assert found.at("avg_energy").horizon_us == 500_000
    widths = [each.high_95 - each.low_95 for each in energy]
    assert widths == sorted(widths)
    assert found.table().num_rows == len(found.ahead)
    assert found.past_table().num_rows == len(found.past)


def test_a_population_that_dies_out_is_a_risk_with_its_evidence():
    frames = evolving_frames(ticks=60, size=200)
    metrics = frames["population_metrics"]
    rng = np.random.default_rng(1)
    dying = np.maximum(300 * np.exp(-0.08 * np.arange(60) + rng.normal(0.0, 0.05, 60)), 1).astype(np.int64)
    frames["population_metrics"] = with_population(metrics, dying.tolist())
    found = analysis_of(frames).predict_population_dynamics(horizon="2s", time_window="3s")
    assert found.extinction_probability > 0.05
    risks = {each.factor: each for each in found.risks}
    assert "extinction" in risks
    assert "decline" in risks
    assert "within 2 s" in risks["extinction"].evidence
    assert found.risks_table().num_rows == len(found.risks)


def test_a_run_of_few_snapshots_has_no_forecast():
    with pytest.raises(NotEnoughData, match="needs 10 rows of population_metrics or more; run 'run-1' has 5"):
        analysis_of(evolving_frames(ticks=5)).predict_population_dynamics()
