"""Early warnings: against scipy, false alarms at the stated level, and a planted transition that is seen."""

import numpy as np
import pytest
from scipy import ndimage, stats

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.series import block_samples, detrended, kendall_tau, stationary_like
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.early_warning import EarlyWarning, rolling_indicators
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame


def ar1(rng, n, phi, burn=50):
    """An autoregressive series; ``phi`` a number, or its course over the n values."""
    course = np.r_[np.full(burn, np.broadcast_to(phi, n)[0]), np.broadcast_to(phi, n)]
    values = np.zeros(n + burn)
    noise = rng.normal(size=n + burn)
    for index in range(1, n + burn):
        values[index] = course[index] * values[index - 1] + noise[index]
    return values[burn:]


def frame(values, run="r"):
    n = len(values)
    return Frame.from_columns("population_metrics", run, {"timestamp": np.arange(n), "key": [run] * n, "x": values})


def signals(values, run="r", **settings):
    operator = InsightOperator(EarlyWarning(windows=Windows(len(values)), fields=("x",), **settings))
    operator.add(frame(values, run))
    (row,) = operator.advance(len(values)).rows()
    return row


def test_rolling_indicators_are_the_variance_and_pearsons_correlation_of_each_part():
    values = ar1(np.random.default_rng(1), 50, 0.5)
    variance, correlation = rolling_indicators(values, 20)
    for index in range(31):
        piece = values[index : index + 20]
        assert variance[index] == pytest.approx(piece.var(ddof=1), rel=1e-9)
        assert correlation[index] == pytest.approx(stats.pearsonr(piece[:-1], piece[1:]).statistic, rel=1e-9)


def test_kendalls_tau_is_that_of_scipy_with_ties():
    rng = np.random.default_rng(2)
    many = np.stack([rng.normal(size=30), rng.integers(0, 4, 30).astype(float), np.arange(30.0)])
    expected = [stats.kendalltau(np.arange(30), values).statistic for values in many]
    assert kendall_tau(many) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(kendall_tau(np.ones(5)))


def test_the_trend_is_a_gaussian_smooth():
    values = np.random.default_rng(3).normal(size=200)
    smooth = values - detrended(values, 0.02)
    assert smooth[30:-30] == pytest.approx(ndimage.gaussian_filter1d(values, 4.0, truncate=7)[30:-30], abs=1e-6)


def test_blocks_keep_their_order_inside():
    places = block_samples(np.random.default_rng(4), 10, 4, (3, 11))
    assert places.shape == (3, 11)
    for row in places:
        for start in (0, 4, 8):
            piece = row[start : start + 4]
            assert (np.diff(piece) % 10 == 1).all()


def test_the_null_has_the_variance_and_autocorrelation_of_the_series_and_no_trend():
    values = ar1(np.random.default_rng(5), 400, 0.6) * 3 + np.linspace(0, 50, 400)
    made = stationary_like(np.random.default_rng(6), values, 300)
    assert made.std() == pytest.approx(3 / np.sqrt(1 - 0.36), rel=0.15)
    found = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in made]
    assert np.mean(found) == pytest.approx(0.6, abs=0.1)
    assert abs(made[:, -50:].mean() - made[:, :50].mean()) < 1.0


@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_false_alarms_come_at_the_stated_level(phi):
    rng = np.random.default_rng(7)
    alarms = np.zeros(3)
    for number in range(160):
        row = signals(ar1(rng, 50, phi), run=f"r{number}", resamples=59, level=0.1)
        alarms += [row["variance_p"] <= 0.1, row["autocorrelation_p"] <= 0.1, row["warning"]]
    low, high = stats.binom.ppf([0.005, 0.995], 160, 0.1)
    assert ((alarms >= low) & (alarms <= high)).all(), alarms


def test_a_planted_slowing_down_is_seen_more_often_than_chance():
    rng = np.random.default_rng(8)
    seen = sum(
        signals(ar1(rng, 120, np.linspace(0.0, 0.97, 120)), run=f"r{number}", resamples=59, level=0.1)["warning"]
        for number in range(30)
    )
    assert seen >= 12  # by chance 3


def test_random_numbers_are_a_function_of_run_and_window():
    values = ar1(np.random.default_rng(9), 60, 0.3)
    assert signals(values) == signals(values)
    assert (
        signals(values)["p"] != signals(values, run="other")["p"]
        or signals(values)["variance_p"] != signals(values, run="other")["variance_p"]
    )


def test_short_or_constant_series_give_no_signal():
    for values in (np.arange(10.0), np.full(60, 3.0)):
        row = signals(values)
        assert (row["p"], row["warning"], row["samples"]) == (None, False, len(values))


def test_a_level_that_the_resamples_cannot_show_is_refused():
    with pytest.raises(InvalidSettings, match="take 99 or more"):
        EarlyWarning(windows=Windows(10), resamples=19, level=0.01)
    with pytest.raises(InvalidSettings, match="part 2"):
        EarlyWarning(windows=Windows(10), part=2)
