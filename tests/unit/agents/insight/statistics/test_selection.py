"""Selection gradients: against plain computations over the whole log, and against planted truth."""

import numpy as np
import pytest
from scipy import stats

from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.selection import Selection, gradients
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

BETA = np.array([0.3, -0.15, 0.0])


def world(rng, n=300, beta=BETA):
    """Individuals whose expected fitness is log-linear in normal traits.

    The true gradients are then beta and beta^2, by Stein's lemma.
    """
    x = rng.normal(size=(n, len(beta)))
    return rng.poisson(2.0 * np.exp(x @ beta)).astype(float), 3.0 + x * np.array([2.0, 0.5, 1.0])


def test_gradients_are_the_least_squares_coefficients_of_relative_fitness_on_standardised_traits():
    fitness, z = world(np.random.default_rng(1))
    found = gradients(fitness, z)
    w = fitness / fitness.mean()
    x = (z - z.mean(0)) / z.std(0, ddof=1)
    linear = np.linalg.lstsq(np.column_stack([np.ones(len(w)), x]), w, rcond=None)[0]
    products = [x[:, i] * x[:, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    full = np.linalg.lstsq(np.column_stack([np.ones(len(w)), x, x**2, *products]), w, rcond=None)[0]
    assert found.beta == pytest.approx(linear[1:], rel=1e-9)
    assert found.gamma == pytest.approx(2 * full[4:7], rel=1e-9)
    assert found.differential == pytest.approx([np.cov(w, z[:, i])[0, 1] for i in range(3)], rel=1e-9)
    one = gradients(fitness, z[:, :1])
    assert one.beta[0] == pytest.approx(stats.linregress(x[:, 0], w).slope, rel=1e-9)


def test_standard_errors_are_those_of_the_jackknife():
    fitness, z = world(np.random.default_rng(2), n=250)
    found = gradients(fitness, z)
    for name in ("beta", "gamma", "differential", "coefficient"):
        left_out = np.array(
            [getattr(gradients(np.delete(fitness, i), np.delete(z, i, axis=0)), name) for i in range(len(fitness))]
        )
        n = len(fitness)
        jackknife = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
        if name == "coefficient":  # the jackknife of a median is not consistent
            continue
        assert getattr(found, f"{name}_se") == pytest.approx(jackknife, rel=0.05), name


def test_intervals_of_95_percent_cover_planted_gradients_in_93_to_97_percent():
    rng = np.random.default_rng(11)
    inside = {"beta": [], "gamma": [], "differential": []}
    truth = {"beta": BETA, "gamma": BETA**2, "differential": BETA * np.array([2.0, 0.5, 1.0])}
    for _ in range(500):
        found = gradients(*world(rng, n=300))
        for name, hits in inside.items():
            hits.append(np.abs(getattr(found, name) - truth[name]) <= 1.96 * getattr(found, f"{name}_se"))
    for name, hits in inside.items():
        assert 0.93 <= np.mean(hits) <= 0.97, (name, np.mean(hits))


def test_the_coefficient_covers_the_advantage_of_the_upper_half():
    rng = np.random.default_rng(12)
    upper, lower = stats.norm.cdf(0.3), stats.norm.cdf(-0.3)  # means of exp(b x) above and below 0, relative
    hits = []
    for _ in range(600):
        found = gradients(*world(rng, n=300, beta=np.array([0.3])))
        hits.append(abs(found.coefficient[0] - (upper / lower - 1)) <= 1.96 * found.coefficient_se[0])
    assert 0.93 <= np.mean(hits) <= 0.975


def test_too_few_individuals_or_a_trait_without_variation_give_no_gradient():
    few = gradients(np.ones(4), np.arange(12.0).reshape(4, 3))
    assert np.isnan(few.beta).all()
    fitness, z = world(np.random.default_rng(4))
    z[:, 1] = 7.0
    found = gradients(fitness, z)
    assert np.isnan(found.beta[1])
    assert np.isfinite(found.beta[[0, 2]]).all()
    same = gradients(fitness, np.column_stack([z[:, 0], 2 * z[:, 0]]))
    assert np.isnan(same.beta).all()


def log(seed=5, n=400, run="r", windows=3):
    """Frames of observations, births and deaths: fitness depends on ``size`` alone."""
    rng = np.random.default_rng(seed)
    frames, cohorts = [], []
    for number in range(windows):
        start = number * 1_000
        ids = np.arange(n) + number * 10_000
        t = start + rng.integers(0, 500, n)
        size, shape = rng.normal(10, 2, n), rng.normal(0, 1, n)
        births = rng.poisson(np.exp(0.4 * (size - 10) / 2))
        parents = np.repeat(ids, births)
        born = np.repeat(t, births) + rng.integers(1, 501, births.sum())
        dead = rng.uniform(size=n) < 0.2
        died = t[dead] + rng.integers(1, 501, dead.sum())
        frames.append(
            Frame.from_columns(
                "genome_data", run, {"timestamp": t, "key": ["0"] * n, "cell_id": ids, "size": size, "shape": shape}
            )
        )
        events = len(parents) + len(died)
        order = rng.permutation(events)
        columns = {
            "timestamp": np.r_[born, died],
            "cell_id": np.r_[np.arange(len(parents)) + 1_000_000 * (number + 1), ids[dead]],
            "parent_id": np.r_[parents, np.zeros(len(died), np.int64)],
        }
        columns = {name: values[order] for name, values in columns.items()}
        kinds = np.r_[["birth"] * len(parents), ["death"] * len(died)][order]
        frames.append(
            Frame.from_columns("evolutionary_events", run, {**columns, "key": ["0"] * events, "type": kinds.tolist()})
        )
        cohorts.append((births + ~dead, np.column_stack([size, shape])))
    return frames, cohorts


def statistic(**settings):
    return Selection(windows=Windows(1_000), traits=("size", "shape"), **settings)


def test_results_of_windows_are_the_gradients_of_the_individuals_that_were_observed():
    frames, cohorts = log()
    operator = InsightOperator(statistic())
    for frame in frames:
        assert len(operator.add(frame)) == 0
    result = operator.advance(3_000)
    rows = result.rows()
    assert [(row["window_end"], row["trait"]) for row in rows] == [
        (end, trait) for end in (1_000, 2_000, 3_000) for trait in ("size", "shape")
    ]
    for number, (fitness, traits) in enumerate(cohorts):
        found = gradients(fitness.astype(float), traits)
        for trait in range(2):
            row = rows[2 * number + trait]
            assert row["individuals"] == 400
            assert row["mean_fitness"] == pytest.approx(fitness.mean())
            assert row["beta"] == pytest.approx(found.beta[trait], rel=1e-9)
            assert row["gamma_se"] == pytest.approx(found.gamma_se[trait], rel=1e-9)
    assert {row["sign"] for row in rows if row["trait"] == "size"} == {"positive"}
    assert result.run == "r"
    assert result.stream == "selection"


def test_signs_of_unselected_traits_are_stated_at_the_level():
    rng = np.random.default_rng(8)
    false = 0
    for _ in range(400):
        fitness, z = world(rng, n=120, beta=np.zeros(3))
        p = gradients(fitness, z).beta_p
        false += bool((np.minimum(p * 3, 1) < 0.05).any())
    assert 0.02 <= false / 400 <= 0.08  # of all worlds: any of three traits


def test_births_before_the_observation_or_after_the_following_do_not_count():
    observed = Frame.from_columns(
        "genome_data", "r", {"timestamp": [100], "key": ["0"], "cell_id": [7], "size": [1.0], "shape": [0.0]}
    )
    times = [50, 100, 101, 600, 601]
    births = Frame.from_columns(
        "evolutionary_events",
        "r",
        {
            "timestamp": times,
            "key": ["0"] * 5,
            "type": ["birth"] * 5,
            "cell_id": [1, 2, 3, 4, 5],
            "parent_id": [7] * 5,
        },
    )
    operator = InsightOperator(statistic())
    operator.add(observed)
    operator.add(births)
    row = operator.flush().rows()[0]
    assert row["mean_fitness"] == 3.0  # those at 101 and 600, and survival
    assert row["beta"] is None


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InvalidSettings, match="follow_us 1000"):
        statistic(follow_us=1_000)
    with pytest.raises(InvalidSettings, match="level 5"):
        statistic(level=5)
    with pytest.raises(InvalidSettings, match="each once"):
        Selection(windows=Windows(10), traits=("size", "size"))
