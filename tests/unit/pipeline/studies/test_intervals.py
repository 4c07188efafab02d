import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from astrocyte.pipeline.studies.intervals import bootstrap_means, mean_interval, percentile_interval, share_interval
from astrocyte.pipeline.studies.shipped.critical_transition import area_under_curve
from astrocyte.pipeline.studies.shipped.mutation_rate import optimum


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(1).normal(3, 2, 9)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx((values.mean(), low, high))


def test_the_interval_of_a_mean_holds_it_as_often_as_stated():
    drawn = np.random.default_rng(2).normal(1.0, 3.0, (2_000, 5))
    found = np.array([mean_interval(each) for each in drawn])
    assert 0.935 < ((found[:, 1] <= 1.0) & (found[:, 2] >= 1.0)).mean() < 0.965


def test_two_worlds_have_no_interval():
    mean, low, high = mean_interval(np.array([1.0, 3.0]))
    assert mean == 2.0
    assert np.isnan([low, high]).all()


BOUNDS = [(0.0, math.inf), (-math.inf, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.0, 256.0)]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(BOUNDS), st.lists(st.floats(0.0, 1.0), min_size=3, max_size=9))
def test_the_interval_of_a_bounded_quantity_stays_within_its_bounds_and_holds_the_mean(bounds, shares):
    low, high = bounds
    start, end = max(low, -4.0), min(high, 4.0)
    values = np.array([start + (end - start) * share for share in shares])
    mean, least, most = mean_interval(values, low=low, high=high)
    slack = 1e-9 * (end - start)
    assert low - slack <= least <= mean + slack
    assert mean - slack <= most <= high + slack


def test_the_interval_of_few_worlds_beside_a_bound_is_possible():
    # Plain Student: -11.7 to 395.7 of 256, -8.9 to 20.9 seconds.
    mean, low, high = mean_interval(np.array([256.0, 256.0, 256.0, 0.0]), low=0.0, high=256.0)
    assert mean == 192.0
    assert (low, high) == pytest.approx((10.6, 254.8), abs=0.2)
    mean, low, high = mean_interval(np.array([0.0, 6.0, 12.0]), low=0.0, high=20.0)
    assert 0.0 < low < mean < high < 20.0


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (-math.inf, 400.0), (0.0, 400.0)])
def test_the_interval_far_from_its_bounds_is_students(low, high):
    values = np.random.default_rng(5).normal(200, 2, 20)
    assert mean_interval(values, low=low, high=high) == pytest.approx(mean_interval(values), rel=1e-4)


def test_values_that_all_lie_at_a_bound_have_an_interval_without_width():
    assert mean_interval(np.full(4, 256.0), low=0.0, high=256.0) == (256.0, 256.0, 256.0)


@pytest.mark.parametrize("size", [4, 8, 20])
def test_the_interval_of_a_bounded_mean_holds_it_hardly_less_often_than_students(size):
    rng = np.random.default_rng(6)
    for drawn, bounds in (
        (rng.gamma(1.0, 1.0, (3_000, size)), {"low": 0.0}),
        (rng.beta(2.0, 1.0, (3_000, size)), {"low": 0.0, "high": 1.0}),
    ):
        truth = 1.0 if "high" not in bounds else 2 / 3
        held = {
            name: np.mean([low <= truth <= high for _, low, high in (mean_interval(each, **of) for each in drawn)])
            for name, of in (("bounded", bounds), ("plain", {}))
        }
        assert held["bounded"] > held["plain"] - 0.01


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (55, 200)])
def test_the_interval_of_a_share_is_wilsons(count, total):
    expected = stats.binomtest(count, total).proportion_ci(method="wilson")
    assert share_interval(count, total) == pytest.approx((count / total, expected.low, expected.high), abs=1e-6)


def test_a_bootstrap_keeps_the_values_of_a_world_together():
    values = np.arange(12.0).reshape(6, 2) * [1, 10]
    means = bootstrap_means(np.random.default_rng(3), values, 500)
    assert means.shape == (500, 2)
    np.testing.assert_allclose(means[:, 1], 10 * means[:, 0] + 10)
    low, high = percentile_interval(means[:, 0])
    assert low < values[:, 0].mean() < high


@pytest.mark.parametrize("best", [0.02, 0.1, 0.4])
def test_the_optimum_of_a_curve_is_found(best):
    rates = np.array([0.005, 0.01, 0.03, 0.1, 0.3, 1.0])
    found, value = optimum(rates, 0.7 - 0.1 * np.log(rates / best) ** 2)
    assert found == pytest.approx(best, rel=0.02)
    assert value == pytest.approx(0.7, abs=1e-3)


def test_an_optimum_beyond_the_range_is_at_its_end():
    rates = np.array([0.1, 0.2, 0.4, 0.8, 1.0])
    assert optimum(rates, rates)[0] == pytest.approx(1.0)


def test_a_curve_that_levels_off_does_not_move_the_optimum():
    rates = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 1.0])
    load = np.exp(-0.2 / 0.06) / 0.06
    found, _ = optimum(rates, 1.0 - np.exp(-rates / 0.06) - load * rates)
    assert found == pytest.approx(0.2, rel=0.15)


def test_an_interval_of_few_worlds_is_as_wide_as_students():
    rng = np.random.default_rng(6)
    held, plain = 0, 0
    for _ in range(300):
        values = rng.normal(0.0, 1.0, 6)
        means = bootstrap_means(rng, values, 600)
        (low, high), (near, far) = percentile_interval(means, worlds=6), percentile_interval(means)
        held += low <= 0.0 <= high
        plain += near <= 0.0 <= far
    assert held > plain
    assert held / 300 > 0.91


def test_the_area_under_the_curve_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(4)
    positive, negative = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 40).astype(float)
    expected = stats.mannwhitneyu(positive, negative).statistic / (30 * 40)
    assert area_under_curve(positive, negative) == pytest.approx(expected)
