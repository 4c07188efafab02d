"""Sweeps, measures and comparisons: which runs there are, what they measure, how they are compared."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrocyte import Frame, Sweep
from astrocyte.pipeline.experiments.comparison import RunResult, compare
from astrocyte.pipeline.experiments.measures import Measured, parse_measure
from astrocyte.pipeline.experiments.sweep import load_sweep
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

GOOD = """
experiment: rates
scenario: cells
ticks: 50
seeds: 3
settings: {size: 1024}
vary: {division_energy: [8.0, 12.0], ageing: [0.1, 0.2]}
measures: {population: mean(population_metrics.total_population), births: count(evolutionary_events)}
"""


def test_a_sweep_has_a_run_for_each_combination_and_seed(tmp_path):
    (tmp_path / "sweep.yaml").write_text(GOOD)
    sweep = load_sweep(tmp_path / "sweep.yaml")
    runs = list(sweep.runs())
    assert len(runs) == sweep.count == 12
    assert len({run.simulation_id for run in runs}) == 12
    assert [run.seed for run in runs[:4]] == [0, 1, 2, 0]
    assert runs[3].varied == {"division_energy": 8.0, "ageing": 0.2}
    assert runs[3].settings == {"size": 1024, "division_energy": 8.0, "ageing": 0.2}


def test_the_id_of_a_run_depends_on_its_settings_and_seed_alone():
    first = Sweep(experiment="e", seeds=(1,), vary={"a": [1, 2]}, settings={"b": 3})
    second = Sweep(experiment="e", seeds=(5, 1), vary={"b": [3], "a": [2, 1]})
    ids = {run.simulation_id for run in first.runs()}
    assert ids < {run.simulation_id for run in second.runs()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seeds: 3|seeds: 0", "expected 1 to 10,000 seeds"),
        ("seeds: 3|seeds: [1, 1]", "each once"),
        ("ageing: [0.1, 0.2]|ageing: 0.1", "ageing: expected a list of values, got 0.1"),
        ("ageing: [0.1, 0.2]|size: [1, 2]", "'size' is in settings and in vary"),
        ("ageing: [0.1, 0.2]|ageing: [0.1, 0.1]", "ageing has a value twice"),
        ("scenario: cells|scenari: cells", "known: experiment, seeds"),
        ("experiment: rates|experiment: the rates", "experiment"),
        ("mean(pop|mode(pop", "expected FUNCTION(STREAM.FIELD) with one of count, first"),
        ("total_population)|population)", "has no field 'population'"),
        ("mean(population_metrics.total_population)|mean(genome_data.genome_type)", "is string; expected a number"),
        ("count(evolutionary_events)|count(evolutionary_events.cell_id)", "expected count(STREAM)"),
        ("seeds: 3|seeds: 3\nseeds: 4", "seeds"),
        ("ticks: 50|ticks: 0", "ticks"),
    ],
)
def test_a_wrong_sweep_is_refused_with_the_member(tmp_path, change, message):
    before, _, after = change.partition("|")
    assert before in GOOD
    (tmp_path / "sweep.yaml").write_text(GOOD.replace(before, after))
    with pytest.raises(AstrocyteError) as caught:
        load_sweep(tmp_path / "sweep.yaml")
    assert message in str(caught.value)
    assert "sweep.yaml" in str(caught.value)


def test_a_sweep_that_is_no_mapping_or_not_there_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text("- 1")
    with pytest.raises(InvalidSettings, match="expected a mapping"):
        load_sweep(tmp_path / "sweep.yaml")
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_sweep(tmp_path / "absent.yaml")


def frame(stream, values):
    columns = {"timestamp": np.arange(len(values)), "key": ["k"] * len(values), "type": ["t"] * len(values)}
    return Frame.from_columns(stream, "run", {**columns, "value": values})


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=5), max_size=6))
def test_measures_are_those_of_all_values_however_they_are_divided_into_frames(chunks):
    names = ("mean", "sum", "std", "min", "max", "first", "last")
    measured = Measured(
        [*(parse_measure(name, f"{name}(own.value)") for name in names), parse_measure("n", "count(own)")]
    )
    for chunk in chunks:
        measured.add(frame("own", chunk))
        measured.add(frame("other", [1e9]))
    values = [value for chunk in chunks for value in chunk if value is not None]
    results = measured.results()
    assert results["n"] == sum(map(len, chunks))
    if not values:
        assert [results[name] for name in names] == [None] * 7
        return
    close = {"rel": 1e-9, "abs": 1e-6}
    assert results["mean"] == pytest.approx(statistics.fmean(values), **close)
    assert results["sum"] == pytest.approx(sum(values), **close)
    assert results["std"] == (None if len(values) < 2 else pytest.approx(statistics.stdev(values), **close))
    assert [results[name] for name in ("min", "max", "first", "last")] == [
        min(values), max(values), values[0], values[-1]
    ]  # fmt: skip


def test_runs_are_compared_by_settings_over_their_seeds():
    results = [
        RunResult("1", {"rate": 0.1}, 0, "completed", {"size": 10, "note": "x"}),
        RunResult("2", {"rate": 0.1}, 1, "completed", {"size": 20, "dead": True}),
        RunResult("3", {"rate": 0.2}, 0, "completed", {"size": 5}),
        RunResult("4", {"rate": 0.2}, 1, "failed", {}, "no"),
    ]
    comparison = compare(results)
    first, second = comparison.rows
    assert (first.runs, first.failed, first.results["size"].mean, first.results["size"].count) == (2, 0, 15, 2)
    assert first.results["size"].std == pytest.approx(statistics.stdev([10, 20]))
    assert set(first.results) == {"size"}
    assert (second.runs, second.failed, second.results["size"].std) == (2, 1, None)
    assert str(comparison).splitlines() == [
        "rate          runs      size",
        " 0.1             2  15 ± 7.1",
        " 0.2  2 (1 failed)         5",
    ]
