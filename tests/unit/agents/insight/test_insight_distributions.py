"""Probabilities and corrections against scipy."""

import numpy as np
import pytest
from scipy import stats

from astrocyte.agents.insight.distributions import (
    benjamini_hochberg,
    holm,
    normal_p,
    normal_quantile,
    t_p,
    t_quantile,
)


@pytest.mark.parametrize("df", [1, 2.5, 7, 40, 4_000])
def test_students_t_is_that_of_scipy(df):
    for t in (0.0, 1e-6, 0.3, -1.7, 2.2, 9.0, 60.0):
        assert t_p(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9, abs=1e-300)
    for probability in (0.001, 0.025, 0.1, 0.5, 0.9, 0.975, 0.9999):
        assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-8, abs=1e-9)


def test_the_normal_distribution_is_that_of_scipy():
    for z in (0.0, -1.3, 2.0, 6.0):
        assert normal_p(z) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)
    assert normal_quantile(0.975) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)


def test_p_of_no_value_is_no_value():
    assert np.isnan(t_p(float("nan"), 5))
    assert t_p(float("inf"), 5) == 0.0


def test_the_false_discovery_rate_is_that_of_scipy_and_leaves_absent_values_out():
    p = np.random.default_rng(3).uniform(size=30) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    with_gaps = np.insert(p, [0, 7], np.nan)
    assert benjamini_hochberg(with_gaps)[~np.isnan(with_gaps)] == pytest.approx(stats.false_discovery_control(p))


def test_holm_multiplies_each_p_by_the_number_of_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
