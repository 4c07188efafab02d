"""Forecasts: against scipy, coverage of intervals, and calibration of the probability of extinction."""

import numpy as np
import pytest
from scipy import stats

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.forecast import Forecast, Target, first_passage, fit_diffusion
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

SECOND = 1_000_000


def forecast(t_s, values, horizon_s=5, target=None, **settings):
    target = target or Target("x", "log", 1.0)
    t = (np.asarray(t_s) * SECOND).astype(np.int64)
    frame = Frame.from_columns("population_metrics", "r", {"timestamp": t, "key": ["r"] * len(t), "x": values})
    horizons = (horizon_s * SECOND,) if isinstance(horizon_s, int) else horizon_s
    windows = Windows(int(t[-1]) + 1)
    operator = InsightOperator(Forecast(windows=windows, horizons_us=horizons, targets=(target,), **settings))
    operator.add(frame)
    return operator.flush().rows()


def test_drift_and_variance_are_those_of_a_regression_on_the_steps():
    rng = np.random.default_rng(1)
    t = np.cumsum(rng.uniform(0.5, 2.0, 40))
    x = np.cumsum(rng.normal(0.1, 1.0, 40))
    found = fit_diffusion(t, x)
    dt, dx = np.diff(t), np.diff(x)  # Dennis et al. 1991: y = dx / sqrt(dt) on sqrt(dt), without intercept
    root = np.sqrt(dt)[:, None]
    slope, rest, *_ = np.linalg.lstsq(root, dx / root[:, 0], rcond=None)
    assert found.drift == pytest.approx(slope[0], rel=1e-9)
    assert found.variance == pytest.approx(rest[0] / (len(dt) - 1), rel=1e-9)


def test_the_first_passage_is_inverse_gaussian():
    for distance, drift, variance, horizon in ((2.0, -0.3, 0.5, 4.0), (5.0, -0.1, 0.04, 60.0), (0.5, -2.0, 1.0, 0.1)):
        mean, shape = distance / -drift, distance**2 / variance
        expected = stats.invgauss.cdf(horizon, mean / shape, scale=shape)
        assert first_passage(distance, drift, variance, horizon) == pytest.approx(expected, rel=1e-8)
    rising = first_passage(2.0, 0.3, 0.5, 1e9)  # ever: exp(-2 drift distance / variance)
    assert rising == pytest.approx(np.exp(-2 * 0.3 * 2.0 / 0.5), rel=1e-9)
    assert first_passage(50.0, 30.0, 1e-6, 5.0) == 0.0
    assert first_passage(1.0, -1e4, 1e-6, 5.0) == 1.0


def test_intervals_cover_the_future_of_a_random_walk_at_their_levels():
    rng = np.random.default_rng(2)
    inside = {50: 0, 80: 0, 95: 0}
    for _ in range(700):
        x = np.cumsum(rng.normal(-0.02, 0.1, 26))
        (row,) = forecast(np.arange(21), 100 * np.exp(x[:21]))
        future = 100 * np.exp(x[25])
        for level in inside:
            inside[level] += row[f"low_{level}"] <= future <= row[f"high_{level}"]
    assert 0.93 <= inside[95] / 700 <= 0.97
    for level in (50, 80):
        low, high = stats.binom.ppf([0.005, 0.995], 700, level / 100)
        assert low <= inside[level] <= high, inside


@pytest.mark.parametrize("theta", [-0.8, 0.7])
def test_intervals_hold_where_values_are_noisy_or_their_changes_go_on(theta):
    rng = np.random.default_rng(13)
    inside = {50: 0, 95: 0}
    for _ in range(300):
        e = rng.normal(size=51)
        x = np.cumsum(0.1 + e[1:] + theta * e[:-1])
        (row,) = forecast(np.arange(41), x[:41], 9, Target("x", "linear"))
        for level in inside:
            inside[level] += row[f"low_{level}"] <= x[49] <= row[f"high_{level}"]
    assert 0.91 <= inside[95] / 300 <= 0.98, inside
    assert 0.42 <= inside[50] / 300 <= 0.58, inside


def test_the_moving_average_is_that_of_the_least_squares_over_a_grid():
    rng = np.random.default_rng(14)
    e = rng.normal(size=401)
    dx = 0.2 + e[1:] - 0.6 * e[:-1]
    found = fit_diffusion(np.arange(401.0), np.r_[0, np.cumsum(dx)])
    assert found.theta == pytest.approx(-0.6, abs=0.1)
    assert found.step_variance == pytest.approx(1.0, rel=0.15)
    assert found.drift == pytest.approx(0.2, abs=0.1)

    def squares(theta, mu):
        total = before = 0.0
        for each in dx:
            before = each - mu - theta * before
            total += before * before
        return total

    best = squares(found.theta, found.drift)
    for theta in (found.theta - 0.05, found.theta, found.theta + 0.05):
        for mu in (found.drift - 0.01, found.drift + 0.01):
            assert squares(theta, mu) >= best * (1 - 1e-9)
    assert fit_diffusion(np.arange(40.0), np.cumsum(rng.normal(size=40))).theta == 0.0


def test_a_logit_scale_keeps_intervals_of_shares_between_0_and_1():
    x = np.cumsum(np.random.default_rng(3).normal(0.2, 0.5, 30))
    (row,) = forecast(np.arange(30), 1 / (1 + np.exp(-x)), 50, Target("x", "logit"))
    assert 0 <= row["low_95"] < row["low_50"] < row["median"] < row["high_50"] < row["high_95"] <= 1
    assert row["limit_probability"] is None


def worlds(rng, count):
    """Probability of extinction as forecast, and whether the population died out, of random worlds."""
    found, truth = [], []
    for _ in range(count):
        drift, sd = rng.normal(0.0, 0.3), rng.uniform(0.1, 0.5)
        start = rng.uniform(0.5, 6.0)
        past = start + np.r_[0, np.cumsum(rng.normal(drift, sd, 20))]
        past += start - past[-1]  # the past says how it moves; it lives now
        future = start + np.cumsum(rng.normal(drift / 20, sd / np.sqrt(20), 400))
        (row,) = forecast(np.arange(21), np.exp(past), 20)
        found.append(row["limit_probability"])
        truth.append(future.min() <= 0.0)
    return np.array(found), np.array(truth)


def test_the_probability_of_extinction_is_calibrated():
    found, truth = worlds(np.random.default_rng(4), 500)
    brier = np.mean((found - truth) ** 2)
    assert brier < 0.8 * truth.mean() * (1 - truth.mean())  # better than climatology
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        chosen = (found >= low) & (found < high)
        n = chosen.sum()
        error = 3 * np.sqrt(max(found[chosen].mean() * (1 - found[chosen].mean()), 0.01) / n)
        assert truth[chosen].mean() == pytest.approx(found[chosen].mean(), abs=error + 0.03), (low, n)


def test_depletion_comes_at_the_expected_time():
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        values = 50 + np.cumsum(rng.normal(-0.5, 0.4, 41))
        (row,) = forecast(np.arange(41), values, 10, Target("x", "linear", 0.0))
        truth = values[-1] / 0.5 * SECOND
        inside += row["limit_low_us"] <= truth <= row["limit_high_us"]
    assert 0.92 <= inside / 300 <= 0.98
    (row,) = forecast(np.arange(41), 50 + np.arange(41) + rng.normal(size=41), 10, Target("x", "linear", 0.0))
    assert row["limit_us"] is None
    assert row["limit_probability"] < 1e-6


@pytest.mark.parametrize("fall", [1e-9, 1e-12, 1e-15])
def test_a_limit_that_is_further_away_than_any_time_has_none(fall):
    changes, times = np.resize([1.0, -1.0], 40), np.arange(41) + np.resize([0.0, 0.1], 41)  # no moving average
    changes[-1] -= 40 * fall
    (row,) = forecast(times, 50 + np.r_[0.0, np.cumsum(changes)], 10, Target("x", "linear", 0.0))
    assert row["drift"] < 0
    assert row["limit_high_us"] is None
    assert (row["limit_us"] is None) == (fall < 1e-11)
    assert row["limit_probability"] is not None


def test_each_horizon_has_a_result_with_an_id_of_its_own():
    values = np.exp(np.cumsum(np.random.default_rng(6).normal(0, 0.1, 20)) + 5)
    rows = forecast(np.arange(20), values, (SECOND, 9 * SECOND))
    assert [row["horizon_us"] for row in rows] == [SECOND, 9 * SECOND]
    assert rows[0]["event_id"] != rows[1]["event_id"]
    assert rows[0]["high_95"] < rows[1]["high_95"]


def test_few_samples_or_a_population_of_none_give_no_forecast():
    (row,) = forecast(np.arange(5), np.arange(5) + 1.0)
    assert (row["samples"], row["median"], row["value"]) == (5, None, 5.0)
    (row,) = forecast(np.arange(20), np.r_[np.arange(19)[::-1] + 1.0, 0.0])
    assert (row["median"], row["value"]) == (None, 0.0)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InvalidSettings, match="horizons_us"):
        Forecast(windows=Windows(10), horizons_us=())
    with pytest.raises(InvalidSettings, match="limit 0"):
        Forecast(windows=Windows(10), horizons_us=(1,), targets=(Target("x", "log", 0.0),))
