"""Trends: against scipy, false alarms at the stated level, and planted directions."""

import numpy as np
import pytest
from scipy import stats

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.trends import (
    Trends,
    cross_correlations,
    mann_kendall,
    theil_sen,
    transfer_entropy,
)
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

SECOND = 1_000_000


def ar1(rng, n, phi, driver=None, strength=0.0):
    values = np.zeros(n + 50)
    noise = rng.normal(size=n + 50)
    push = np.r_[np.zeros(50), driver] if driver is not None else np.zeros(n + 50)
    for index in range(1, n + 50):
        values[index] = phi * values[index - 1] + noise[index] + strength * push[index - 1]
    return values[50:]


def trends(run="r", per_interval=1, **columns):
    n = len(next(iter(columns.values())))
    t = np.arange(n) * SECOND
    fields = {name: np.repeat(values, per_interval) for name, values in columns.items()}
    fields |= {"timestamp": np.repeat(t, per_interval), "key": [run] * n * per_interval}
    settings = {"series": tuple(("s", name) for name in columns), "resamples": 59}
    operator = InsightOperator(Trends(windows=Windows(n * SECOND), every_us=SECOND, **settings))
    operator.add(Frame.from_columns("s", run, fields))
    rows = operator.flush().rows()
    return {(row["series"], row["other"]): row for row in rows}


def test_slopes_are_those_of_scipy():
    rng = np.random.default_rng(1)
    t = np.cumsum(rng.uniform(0.5, 2, 40))
    x = 0.3 * t + rng.normal(size=40)
    expected = stats.theilslopes(x, t, 0.95)
    assert theil_sen(t, x, 0.05) == pytest.approx((expected.slope, expected.low_slope, expected.high_slope))
    assert mann_kendall(x) == pytest.approx(stats.kendalltau(t, x, method="asymptotic").pvalue, rel=1e-6)
    tied = rng.integers(0, 5, 60).astype(float)
    assert mann_kendall(tied) == pytest.approx(
        stats.kendalltau(np.arange(60), tied, method="asymptotic").pvalue, rel=1e-2
    )


def test_correlations_at_lags_are_those_of_their_definition():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50))
    found = cross_correlations(x, y, 3)
    for lag in range(4):
        covariance = np.mean(np.r_[(x - x.mean())[: 50 - lag] * (y - y.mean())[lag:], np.zeros(lag)])
        assert found[lag] == pytest.approx(covariance / x.std() / y.std())


def test_the_transfer_entropy_is_a_difference_of_conditional_entropies():
    rng = np.random.default_rng(3)
    x = rng.normal(size=300)
    y = np.r_[0, x[:-1]] + 0.5 * rng.normal(size=300)

    def classes(values):
        return (stats.rankdata(values, method="ordinal") - 1).astype(int) * 3 // len(values)

    a, b = classes(x), classes(y)

    def entropy(*columns):
        return stats.entropy(np.unique(np.column_stack(columns), axis=0, return_counts=True)[1])

    y1, y0, x0 = b[1:], b[:-1], a[:-1]
    expected = (entropy(y1, y0) - entropy(y0)) - (entropy(y1, y0, x0) - entropy(y0, x0))
    assert float(transfer_entropy(x, y, 3)) == pytest.approx(expected, rel=1e-9)
    assert transfer_entropy(np.stack([x, y]), y, 3)[0] == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_slope_covers_the_planted_one():
    rng, inside = np.random.default_rng(4), 0
    for _ in range(600):
        _, low, high = theil_sen(np.arange(40.0), 0.02 * np.arange(40) + rng.standard_t(3, 40), 0.05)
        inside += low <= 0.02 <= high
    assert 0.93 <= inside / 600 <= 0.97


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_trends_and_directions_are_not_found_where_there_are_none(phi):
    rng = np.random.default_rng(5)
    alarms = np.zeros(4)
    for number in range(120):
        rows = trends(f"r{number}", x=ar1(rng, 60, phi), y=ar1(rng, 60, phi))
        both = [rows["x", "y"], rows["y", "x"]]
        alarms += [
            rows["x", None]["trend_p"] <= 0.1,
            min(row["correlation_p"] for row in both) <= 0.1,
            min(row["transfer_entropy_p"] for row in both) <= 0.1,
            rows["x", None]["mann_kendall_p"] <= 0.1,
        ]
    most = stats.binom.ppf(0.998, 120, 0.1)
    assert (alarms[:3] <= most).all(), alarms
    assert alarms[0] >= stats.binom.ppf(0.002, 120, 0.1)
    assert (alarms[3] > most) == (phi > 0)  # the classical test takes values as independent


def test_the_planted_direction_is_found_and_not_its_reverse():
    rng = np.random.default_rng(6)
    forward = backward = 0
    for number in range(20):
        x = ar1(rng, 150, 0.3)
        rows = trends(f"r{number}", x=x, y=ar1(rng, 150, 0.3, x, 1.0))
        forward += rows["x", "y"]["transfer_entropy_p"] <= 0.05
        backward += rows["y", "x"]["transfer_entropy_p"] <= 0.05
        assert rows["x", "y"]["lag"] == 1
        assert rows["x", "y"]["correlation"] > 0.4
    assert forward >= 18
    assert backward <= 4


def test_a_planted_trend_is_found_with_its_slope():
    rng = np.random.default_rng(7)
    rows = trends(x=0.1 * np.arange(80) + rng.normal(size=80), per_interval=3)
    row = rows["x", None]
    assert row["slope_low"] < 0.1 < row["slope_high"]
    assert row["trend_p"] <= 0.05
    assert row["samples"] == 80


def test_series_of_different_streams_meet_where_both_have_values():
    rng = np.random.default_rng(8)
    operator = InsightOperator(
        Trends(windows=Windows(60 * SECOND), every_us=SECOND, series=(("a", "x"), ("b", "y")), resamples=19)
    )
    for stream, name, places in (("a", "x", np.arange(0, 60)), ("b", "y", np.arange(20, 60))):
        columns = {"timestamp": places * SECOND + 7, "key": ["k"] * len(places), name: rng.normal(size=len(places))}
        operator.add(Frame.from_columns(stream, "r", columns))
    samples = {(row["series"], row["other"]): row["samples"] for row in operator.flush().rows()}
    assert samples == {("x", None): 60, ("y", None): 40, ("x", "y"): 40, ("y", "x"): 40}


def test_short_or_constant_series_have_no_trend():
    rows = trends(x=np.ones(40), y=np.random.default_rng(9).normal(size=40))
    assert rows["x", None]["slope"] is None
    assert rows["x", "y"]["correlation_p"] is None
    assert rows["y", None]["slope"] is not None


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InvalidSettings, match="at least 30 intervals"):
        Trends(windows=Windows(10 * SECOND), every_us=SECOND)
    with pytest.raises(InvalidSettings, match="names that differ"):
        Trends(windows=Windows(100 * SECOND), every_us=SECOND, series=(("a", "x"), ("b", "x")))
