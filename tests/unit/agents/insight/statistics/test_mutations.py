"""Effects of mutations: against scipy over the whole log, and against planted effects."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from astrocyte.agents.insight.distributions import wilson_interval
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.insight.statistic import Windows
from astrocyte.agents.insight.statistics.mutations import Mutations, contrast
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame


def world(rng, n=400, slope=0.0, mutated=0.5, burden=0.0):
    """Newborns of the first half of a window, whose offspring depends on the effect of their mutation.

    Returns the frame, and mutated, effect and fitness of each newborn.
    """
    has = rng.uniform(size=n) < mutated
    effect = np.where(has, rng.normal(-0.2, 1.0, n), 0.0)
    t = rng.integers(0, 500, n)
    offspring = rng.poisson(np.exp(slope * effect + burden * has))
    ids = np.arange(n) + 1_000
    parent = np.repeat(ids, offspring)
    born = np.repeat(t, offspring) + rng.integers(1, 501, offspring.sum())
    late = born >= 500  # children of the second half are not followed themselves; the others are newborns as well
    m = int(late.sum())
    columns = {
        "timestamp": np.r_[t, born[late]],
        "type": ["birth"] * (n + m),
        "key": ["0"] * (n + m),
        "cell_id": np.r_[ids, np.arange(m) + 100_000],
        "parent_id": np.r_[np.zeros(n, int), parent[late]],
        "mutation_magnitude": np.r_[np.where(has, 0.1, 0.0), np.zeros(m)],
        "fitness_delta": np.r_[effect, np.zeros(m)],
    }
    fitness = 1.0 + np.bincount(parent[late] - 1_000, minlength=n)
    return Frame.from_columns("evolutionary_events", "r", columns), has, effect, fitness


def result(frame, **settings):
    operator = InsightOperator(Mutations(windows=Windows(1_000), traits=(), **settings))
    operator.add(frame)
    (row,) = operator.flush().rows()
    return row


def test_the_distribution_of_effects_is_that_of_scipy():
    frame, has, effect, _ = world(np.random.default_rng(1))
    row = result(frame)
    values = effect[has]
    assert row["mutations"] == has.sum()
    assert row["births"] == frame.num_rows
    assert row["mean"] == pytest.approx(values.mean())
    assert row["mean_se"] == pytest.approx(stats.sem(values))
    assert [row["q05"], row["q50"], row["q95"]] == pytest.approx(np.quantile(values, [0.05, 0.5, 0.95]))
    assert row["beneficial"] == (values > 0).mean()
    interval = stats.binomtest(int((values > 0).sum()), len(values)).proportion_ci(0.95, method="wilson")
    assert (row["beneficial_low"], row["beneficial_high"]) == pytest.approx(tuple(interval))


def test_p_values_are_those_of_scipy_corrected_together():
    frame, has, effect, fitness = world(np.random.default_rng(2), slope=0.2)
    row = result(frame)
    mean_p = stats.ttest_1samp(effect[has], 0.0).pvalue
    cost_p = stats.ttest_ind(fitness[has], fitness[~has], equal_var=False).pvalue
    ordinary = stats.linregress(effect[has], fitness[has] / fitness[has].mean())
    assert row["beta"] == pytest.approx(ordinary.slope * effect[has].std(ddof=1), rel=1e-9)
    found = sorted([row["mean_p"], row["beta_p"], row["cost_p"]])
    assert found[-1] == pytest.approx(max(mean_p, cost_p), rel=1e-6)  # the largest is not changed
    assert row["cost"] == pytest.approx(fitness[has].mean() / fitness[~has].mean() - 1)


def test_the_share_that_is_beneficial_is_covered_by_its_interval():
    rng, truth = np.random.default_rng(3), 1 - stats.norm.cdf(0.2)
    inside = 0
    for _ in range(2_000):
        low, high = wilson_interval(int(rng.binomial(80, truth)), 80, 0.05)
        inside += low <= truth <= high
    assert 0.93 <= inside / 2_000 <= 0.97


def test_the_cost_of_mutations_is_covered_by_its_interval():
    rng, inside = np.random.default_rng(4), 0
    for _ in range(1_500):
        found = contrast(rng.poisson(0.8, 200).astype(float), rng.poisson(1.0, 300).astype(float))
        inside += abs(found.ratio + 0.2) <= 1.96 * found.se
    assert 0.93 <= inside / 1_500 <= 0.97


def test_false_discoveries_have_the_stated_rate_where_nothing_is_to_be_found():
    rng, found = np.random.default_rng(5), 0
    for _ in range(150):
        n = 150
        frame, *_ = world(rng, n=n)
        centred = frame.with_column("fitness_delta", pa.array(rng.normal(size=frame.num_rows)))
        row = result(centred)
        found += min(row["mean_p"], row["beta_p"], row["cost_p"]) < 0.05
    assert found / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_planted_effects_are_found():
    row = result(world(np.random.default_rng(6), n=2_000, slope=0.4, burden=-0.5)[0])
    assert row["beta"] > 0
    assert row["cost"] < 0
    assert max(row["beta_p"], row["cost_p"], row["mean_p"]) < 0.01


def test_effects_by_trait_are_those_of_mothers_and_daughters_that_were_both_observed():
    rng = np.random.default_rng(9)
    n = 1_200
    mothers, daughters = np.arange(n), np.arange(n) + 10_000
    wing, tail = rng.normal(5, 1, n), rng.normal(5, 1, n)
    has = rng.uniform(size=n) < 0.7
    step_wing, step_tail = (np.where(has, rng.normal(0, 0.5, n), 0.0) for _ in range(2))
    offspring = rng.poisson(np.exp(0.8 * step_wing))
    parent = np.repeat(daughters, offspring)
    m = len(parent)
    births = Frame.from_columns(
        "evolutionary_events",
        "r",
        {
            "timestamp": np.r_[np.full(n, 10), np.full(m, 500)],
            "key": ["0"] * (n + m),
            "type": ["birth"] * (n + m),
            "cell_id": np.r_[daughters, np.arange(m) + 50_000],
            "parent_id": np.r_[mothers, parent],
            "mutation_magnitude": np.r_[has * 0.1, np.zeros(m)],
            "fitness_delta": np.zeros(n + m),
        },
    )
    seen = rng.uniform(size=2 * n) < 0.8
    sample = Frame.from_columns(
        "genome_data",
        "r",
        {
            "timestamp": np.full(seen.sum(), 20),
            "key": ["0"] * seen.sum(),
            "cell_id": np.r_[mothers, daughters][seen],
            "wing": np.r_[wing, wing + step_wing][seen],
            "tail": np.r_[tail, tail + step_tail][seen],
        },
    )
    operator = InsightOperator(Mutations(windows=Windows(1_000), traits=("wing", "tail")))
    operator.add(sample)
    operator.add(births)
    found = {row["effect"]: row for row in operator.flush().rows()}
    both = has & seen[:n] & seen[n:]
    assert found["wing"]["mutations"] == both.sum()
    assert found["wing"]["mean"] == pytest.approx(step_wing[both].mean(), abs=1e-9)
    assert found["wing"]["sd"] == pytest.approx(step_wing[both].std(ddof=1), rel=1e-9)
    assert found["wing"]["beneficial"] is None
    assert found["fitness_delta"]["beneficial"] == 0.0
    # Relative fitness is (1 + offspring) / its mean: the planted slope is diluted by survival.
    fitness = (1.0 + offspring)[both]
    slope = stats.linregress(step_wing[both], fitness / fitness.mean()).slope * step_wing[both].std(ddof=1)
    assert found["wing"]["beta"] == pytest.approx(slope, rel=1e-9)
    assert found["wing"]["beta_p"] < 1e-6
    assert found["tail"]["beta_p"] > 0.05


def test_windows_without_mutations_or_births_say_so():
    frame, *_ = world(np.random.default_rng(7), mutated=0.0)
    row = result(frame)
    assert (row["mutations"], row["mean"], row["beneficial"], row["cost"]) == (0, None, None, None)
    deaths = Frame.from_columns(
        "evolutionary_events",
        "r",
        {
            "timestamp": [1],
            "key": ["0"],
            "type": ["death"],
            "cell_id": [1],
            "parent_id": [None],
            "mutation_magnitude": [None],
            "fitness_delta": [None],
        },
    )
    operator = InsightOperator(Mutations(windows=Windows(1_000), traits=()))
    operator.add(deaths)
    assert operator.flush() is None


def test_following_for_longer_than_a_window_is_refused():
    with pytest.raises(InvalidSettings, match="follow_us 2000"):
        Mutations(windows=Windows(1_000), follow_us=2_000)
