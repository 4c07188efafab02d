"""The statistics over the scenario cells: against what the simulator counts itself, and against what it plants.

All of these run a world; the other files of this folder have the short forms, over frames that they make.
"""

import numpy as np
import pytest

from astrocyte.agents.insight import Diversity, InsightOperator, Price, Selection, Windows
from astrocyte.simulator.emission.emitter import MemorySink
from astrocyte.simulator.run import simulate

TICK_US = 10_000
pytestmark = pytest.mark.soak


def world(ticks, seed, **settings):
    kept = MemorySink()
    simulate("cells", {"size": 1024, "routine_share": 1.0, **settings}, seed=seed, ticks=ticks, sink=kept)
    return [frame for frame in kept.frames if frame.num_rows]


def results(frames, statistic):
    operator = InsightOperator(statistic)
    for frame in frames:
        operator.add(frame)
    result = operator.flush()
    return [] if result is None else result.rows()


def metrics(frames):
    return {row["tick"]: row for frame in frames if frame.stream == "population_metrics" for row in frame.rows()}


@pytest.mark.time_limit(300, "compiles a world and steps it for 1,500 ticks")
def test_the_living_and_their_diversity_are_those_that_the_simulator_counts():
    frames = world(1_500, 4)
    start_us = min(int(frame.timestamps().min()) for frame in frames)
    counted = metrics(frames)
    price = [row for row in results(frames, Price(windows=Windows(10 * TICK_US))) if row["trait"] == "generation_gap"]
    assert all(abs(row["change"] - row["selection"] - row["transmission"]) < 1e-9 for row in price if row["after"])
    # A window [t - 9, t] of ticks ends with the row of tick t: the offset puts the ends after it.
    windows = Windows(10 * TICK_US, offset_us=start_us % (10 * TICK_US) + TICK_US)
    lived = {
        row["window_end"]: row for row in results(frames, Price(windows=windows)) if row["trait"] == "generation_gap"
    }
    diversity = {
        (row["window_end"], row["subject"]): row
        for row in results(frames, Diversity(windows=windows, traits=("metabolism", "tpu_cores")))
    }
    last_ticks = [tick for tick in counted if tick > 1_000]
    assert len(last_ticks) > 40
    for tick in last_ticks:
        end_us = start_us + (tick + 1) * TICK_US
        row, truth = lived[end_us], counted[tick]
        assert row["after"] == truth["total_population"]
        assert row["mean_after"] == pytest.approx(truth["avg_generation"], rel=1e-9)
        entropies = [diversity[end_us, trait]["shannon"] for trait in ("metabolism", "tpu_cores")]
        assert np.mean(entropies) == pytest.approx(truth["genome_diversity"], abs=0.02)  # newborns are not sampled


@pytest.mark.time_limit(600, "steps 200 worlds")
def test_a_neutral_trait_has_no_gradient_and_efficiency_a_positive_one():
    # Nothing mutates, so that mutation_rate does nothing; among founders it is independent of all other genes.
    inside, found = 0, 0
    worlds = 200
    for seed in range(worlds):
        frames = world(100, seed, evolves=[])
        statistic = Selection(windows=Windows(100 * TICK_US), follow_us=90 * TICK_US)
        rows = {row["trait"]: row for row in results(frames, statistic)}
        assert rows["mutation_rate"]["individuals"] > 300
        inside += abs(rows["mutation_rate"]["beta"]) <= 1.96 * rows["mutation_rate"]["beta_se"]
        found += rows["division_size"]["sign"] == "negative"
    assert 0.92 <= inside / worlds <= 0.98
    assert found >= 0.9 * worlds  # smaller cells divide sooner
