"""Selection pressure, landscape and advantage: the planted truth is found, and numbers are those of the statistics."""

import numpy as np
import pytest

from astrocyte.agents.stores.analysis import dominance_of
from astrocyte.insight import InsightOperator, Selection, Windows
from astrocyte.pipeline.analysis.evolution import NotEnoughData
from astrocyte.pipeline.analysis.evolution.landscape import fitness_distance
from astrocyte.schemas.errors import InvalidSettings
from tests.support.evolving import TICK_US, analysis_of, evolving_frames


@pytest.fixture(scope="module")
def frames():
    return evolving_frames(slopes={"metabolism": -0.6})


@pytest.fixture(scope="module")
def run(frames):
    return analysis_of(frames)


def test_the_trait_that_is_selected_is_named_with_its_sign(run):
    found = run.calculate_selection_pressure(time_window="5m")
    assert (found.positive, found.negative) == ((), ("metabolism",))
    assert found.of("metabolism").beta < -5 * found.of("metabolism").beta_se
    assert found.time_window_us == run.history.end_us - run.history.begin_us, "a window is at most as long as the run"


def test_results_are_those_of_the_stream_over_the_same_windows(run, frames):
    found = run.calculate_selection_pressure("2s")
    operator = InsightOperator(Selection(windows=Windows(2_000_000, offset_us=run.history.end_us % 2_000_000)))
    for frame in frames.values():
        operator.add(frame)
    expected = operator.flush().rows()
    length_us = run.history.end_us - run.history.begin_us
    assert len(found.windows) == length_us // 2_000_000 * 7
    kept = [row for row in expected if row["window_start"] >= run.history.begin_us]
    assert [(each.trait, each.window_end, each.beta, each.beta_p) for each in found.windows] == [
        (row["trait"], row["window_end"], row["beta"], row["beta_p"]) for row in kept
    ]
    assert found.traits == found.windows[-7:]
    assert found.traits[0].window_end == run.history.end_us


def test_a_table_has_a_row_for_each_trait_and_window_and_typed_columns_without_rows(run):
    table = run.calculate_selection_pressure("2s").table()
    assert table.num_rows == 2 * 7
    assert [str(table.schema.field(name).type) for name in ("trait", "window_end", "beta")] == [
        "string", "int64", "double",
    ]  # fmt: skip
    assert run.detect_evolutionary_bottlenecks().table().schema.field("lineages_after").type == "int64"


@pytest.mark.parametrize(
    ("window", "problem"), [("5", "write a number and a unit"), (0, "above 0"), ("x", "units: us")]
)
def test_a_window_that_makes_no_sense_is_refused(run, window, problem):
    with pytest.raises(InvalidSettings, match=problem):
        run.calculate_selection_pressure(window)


def test_a_run_without_births_has_no_selection_and_says_what_it_has():
    run = analysis_of(evolving_frames(ticks=5, births=False))
    with pytest.raises(
        NotEnoughData, match=r"no events of evolutionary_events; it has genome_data [\d,]+, problem_solv"
    ):
        run.calculate_selection_pressure()


def test_events_of_one_instant_are_no_run():
    run = analysis_of(evolving_frames(ticks=1, births=False))
    with pytest.raises(NotEnoughData, match="are of one instant, 2023-11-14T"):
        run.history.require("genome_data")


def plain_fitness(frames, type_of, *, follow_us):
    """Births and survival of each cell while it is followed, one by one, as a plain program counts them."""
    genomes = frames["genome_data"].rows()
    events = frames["evolutionary_events"].rows()
    end_us = max(int(frame.timestamps().max()) for frame in frames.values()) + 1
    first = {}
    for row in sorted(genomes, key=lambda row: row["timestamp"]):
        if row["timestamp"] < end_us - follow_us:
            first.setdefault(row["cell_id"], row)
    fitness, kinds = [], []
    for cell, row in first.items():
        since, until = row["timestamp"], row["timestamp"] + follow_us
        own = [each for each in events if since < each["timestamp"] <= until]
        births = sum(each["type"] == "birth" and each["parent_id"] == cell for each in own)
        died = any(each["type"] == "death" and each["cell_id"] == cell for each in own)
        fitness.append(births + (not died))
        kinds.append(row["genome_type"] == type_of)
    return np.array(fitness, float), np.array(kinds)


def test_the_advantage_of_a_type_is_the_difference_of_mean_relative_fitness():
    frames = evolving_frames(ticks=20, size=60)
    run = analysis_of(frames)
    length_us = run.history.end_us - run.history.begin_us
    for each in run.advantage():
        fitness, kinds = plain_fitness(frames, each.genome_type, follow_us=length_us // 2)
        relative = fitness / fitness.mean()
        assert each.individuals == len(fitness)
        assert each.share == pytest.approx(kinds.mean())
        assert each.advantage == pytest.approx(relative[kinds].mean() - relative[~kinds].mean())


def test_dominance_counts_each_cell_once_a_window_as_it_was_seen_last(run, frames):
    found = run.dominance("1s")
    end_us = run.history.end_us
    newest = {}
    for row in frames["genome_data"].rows():
        if end_us - 1_000_000 <= row["timestamp"]:
            newest[row["cell_id"]] = row["genome_type"]
    last = {each.genome_type: each.individuals for each in found.shares if each.window_end == end_us}
    assert last == {name: list(newest.values()).count(name) for name in ("ai", "bio", "tpu")}
    assert sum(found.overall.steps.values()) == 5
    assert found.table().num_rows == 15


def test_dominance_over_steps_leaves_ties_and_empty_steps_out():
    steps = [{"a": 0.6, "b": 0.4}, {"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 0.0}, {"a": 0.1, "b": 0.9}]
    found = dominance_of(steps, ("a", "b"))
    assert (found.steps, found.switches, found.final) == ({"a": 1, "b": 1}, 1, "b")
    assert found.mean_share == pytest.approx({"a": 0.4, "b": 0.6})


def test_fitness_falls_with_the_distance_from_a_planted_peak():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 3))
    fitness = rng.poisson(3 * np.exp(-0.5 * ((x - 0.5) ** 2).sum(axis=1)))
    _, correlation, low, high = fitness_distance(x, fitness.astype(float))
    assert low < correlation < high < -0.3


def test_where_fitness_has_no_peak_the_interval_holds_0_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        _, _, low, high = fitness_distance(rng.normal(size=(100, 3)), rng.poisson(1.0, 100).astype(float))
        held += low <= 0 <= high
    assert 180 <= held <= 198, "the fittest are near a peak that is made of them, unless others are compared with it"


def test_the_landscape_is_of_individuals_and_its_surface_high_where_they_are_fit(run):
    found = run.fitness_landscape("2s")
    assert found.table().num_rows == len(found.fitness) == len(found.places)
    assert found.fitness.mean() == pytest.approx(1.0)
    assert found.loadings.T @ found.loadings == pytest.approx(np.eye(2), abs=1e-9)
    heaviest = np.abs(found.loadings).argmax(axis=0)
    assert (found.loadings[heaviest, [0, 1]] > 0).all()
    # At the place of those with the least metabolism fitness is above the mean, at the other end below it.
    metabolism = found.loadings[found.traits.index("metabolism")]
    x, y = np.meshgrid(*found.axes)
    along = x * metabolism[0] + y * metabolism[1]
    known = np.isfinite(found.surface)
    assert np.corrcoef(along[known], found.surface[known])[0, 1] < -0.3
    assert found.surface_table().num_rows == found.surface.size
    assert found.loadings_table().column("trait").to_pylist() == list(found.traits)


def test_a_landscape_of_few_says_how_many_it_needs():
    with pytest.raises(NotEnoughData, match="needs 30 individuals or more"):
        analysis_of(evolving_frames(ticks=3, size=20)).fitness_landscape()


def test_ticks_are_those_of_the_tests(run):
    assert run.history.spacing_us("population_metrics") == TICK_US
