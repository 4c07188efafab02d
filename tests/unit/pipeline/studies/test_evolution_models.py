"""Hunt's models: estimates against a plain second computation, and the right model found where the answer is known."""

import numpy as np
import pytest
from scipy.stats import norm

from astrocyte.pipeline.studies.evolution_models import (
    LEAST_PART,
    MODELS,
    SHIFT_PARAMETERS,
    fit_models,
    simulate_model,
)
from astrocyte.schemas.errors import InvalidSettings

COUNT, N = 1_500, 40


def plain(series):
    """Log-likelihoods and AICc of one series, one value after the other, over all places of the shift."""
    before, after = series[:-1], series[1:]
    n = len(after)
    steps = after - before
    found = [
        norm.logpdf(steps, steps.mean(), steps.std()).sum(),
        norm.logpdf(steps, 0.0, np.sqrt((steps**2).mean())).sum(),
        norm.logpdf(after, after.mean(), after.std()).sum(),
    ]
    shifted = []
    for place in range(LEAST_PART, n - LEAST_PART + 1):
        level = np.r_[np.full(place, after[:place].mean()), np.full(n - place, after[place:].mean())]
        spread = np.sqrt(((after - level) ** 2).mean())
        shifted.append(norm.logpdf(after, level, spread).sum())
    found.append(max(shifted))
    k = np.array([2, 1, 2, 3 + SHIFT_PARAMETERS])
    aicc = -2 * np.array(found) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    return np.array(found), aicc, LEAST_PART + int(np.argmax(shifted)) + 1


@pytest.mark.parametrize("model", MODELS)
def test_fits_equal_a_plain_computation(model):
    series = simulate_model(np.random.default_rng(3), model, 20, 25, effect=1.0)
    fits = fit_models(series)
    for place, one in enumerate(series):
        likelihood, aicc, shift = plain(one)
        np.testing.assert_allclose(fits.log_likelihood[place], likelihood, rtol=1e-9)
        np.testing.assert_allclose(fits.aicc[place], aicc, rtol=1e-9)
        assert fits.shift[place] == shift
    np.testing.assert_allclose(fits.weight.sum(axis=-1), 1.0)


@pytest.mark.parametrize(
    ("model", "effect", "least"),
    [
        ("directional", 0.5, 0.91),
        ("directional", 1.0, 0.99),
        ("random_walk", 0.0, 0.79),  # AIC takes 16 % of walks for directional: the chance that chi2 exceeds 2
        ("stasis", 0.0, 0.96),
        ("punctuated", 2.0, 0.97),
        ("punctuated", 4.0, 0.98),
    ],
)
def test_the_true_model_is_chosen(model, effect, least):
    series = simulate_model(np.random.default_rng(7), model, COUNT, N, effect=effect)
    assert (fit_models(series).best == MODELS.index(model)).mean() >= least


@pytest.mark.parametrize("model", ["directional", "random_walk", "stasis"])
def test_a_shift_is_seldom_chosen_where_there_is_none(model):
    series = simulate_model(np.random.default_rng(8), model, COUNT, N, effect=0.5)
    assert (fit_models(series).best == MODELS.index("punctuated")).mean() < 0.03


def test_a_large_shift_is_found_where_it_is():
    rng = np.random.default_rng(9)
    series = rng.standard_normal((200, N)) * 0.5 + 4.0 * (np.arange(N) >= 22)
    assert (np.abs(fit_models(series).shift - 22) <= 0).mean() > 0.95


def test_the_choice_does_not_depend_on_unit_or_origin():
    series = simulate_model(np.random.default_rng(10), "directional", 30, N)
    assert (fit_models(series).best == fit_models(1e-4 * series + 0.3).best).all()


def test_short_series_are_refused():
    with pytest.raises(InvalidSettings, match="series of 13 values; expected 14 or more"):
        fit_models(np.zeros(13))
    assert fit_models(np.arange(14.0) ** 1.5).best < len(MODELS)
