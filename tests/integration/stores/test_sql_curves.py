"""Curves and history in SQL: deaths of cells, the population, spikes, windows, and every state of a kernel."""

from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.ingest.dicts import frames_of
from astrocyte.agents.insight.operator import InsightOperator
from astrocyte.agents.loading import load_rules
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.stores.experiment import ExperimentDatabase
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.frames import Frame
from tests.integration.stores.test_sql_streams import START_US, frame_of, rows_of, sourced, written


def vitals(tick, energy, *, alive=True):
    return frame_of(
        "cell_vitals", 1, cell_id=[7], generation=np.array([3], np.int32), lineage=[2],
        energy=np.array([energy], np.float32), mass=np.array([1.0], np.float32),
        age_ticks=np.array([tick], np.int32), alive=[alive], timestamp=[START_US + tick],
    )  # fmt: skip


def death(cell, tick):
    return frame_of(
        "evolutionary_events", 1, type=["death"], event_type=["death"], cell_id=[cell], timestamp=[START_US + tick],
        generation=np.array([3], np.int32), age_ticks=np.array([tick], np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("order", list(permutations(range(4))))
async def test_a_dead_cell_is_dead_in_whatever_order_its_events_are_read(tmp_path, order):
    database = f"sqlite:///{tmp_path}/cells.db"
    events = [vitals(10, 5.0), vitals(20, 6.0), death(7, 25), death(8, 26)]
    await written(database, *([sourced(events[number], number)] for number in order))
    rows = {row["cell_id"]: row for row in rows_of(database, "cells")}
    assert (rows[7]["alive"], rows[7]["died_at"], rows[7]["energy"]) == (False, START_US + 25, 6.0)
    assert (rows[7]["timestamp"], rows[7]["age_ticks"], rows[7]["lineage"]) == (START_US + 20, 20, 2)
    never_sampled = {"alive": False, "died_at": START_US + 26, "generation": 3, "timestamp": 0, "energy": None}
    assert {name: rows[8][name] for name in never_sampled} == never_sampled


async def test_deaths_and_vitals_of_one_batch_are_merged_on_every_database(database):
    living = frame_of("cell_vitals", 3, cell_id=[1, 2, 3], alive=[True] * 3)
    batch = [sourced(living), sourced(death(2, 9), 1), sourced(vitals(8, 1.0, alive=False), 2)]
    assert await written(database, batch, batch) == []
    alive = {row["cell_id"]: row["alive"] for row in rows_of(database, "cells")}
    assert alive == {1: True, 2: False, 3: True, 7: False}


async def test_every_state_of_a_kernel_is_kept_and_the_newest_is_its_geometry(database):
    frames = [
        frame_of(
            "kernel_geometry", 3, type=["spawned", "updated", "updated"], kernel_id=[5, 5, 6],
            phi=np.array([0.1, 0.2, 0.3]) + batch, timestamp=START_US + 10 * batch + np.arange(3),
        )
        for batch in range(2)
    ]  # fmt: skip
    frames[1] = Frame("kernel_geometry", "run-1", frames[1].batch, first_seq=3)
    batches = [[sourced(frame, number)] for number, frame in enumerate(frames)]
    assert await written(database, *batches, batches[0]) == []
    history = sorted(rows_of(database, "kernel_history"), key=lambda row: row["id"])
    assert [(row["kernel_id"], row["status"], round(row["phi"], 1)) for row in history] == [
        ("5", "spawned", 0.1), ("5", "updated", 0.2), ("6", "updated", 0.3),
        ("5", "spawned", 1.1), ("5", "updated", 1.2), ("6", "updated", 1.3),
    ]  # fmt: skip
    newest = {row["kernel_id"]: row["phi"] for row in rows_of(database, "kernel_geometry")}
    assert newest == pytest.approx({"5": 1.2, "6": 1.3})
    assert all(len(row["basin_coordinates"]) == 8 for row in history)


async def test_a_curve_of_a_window_is_one_query(database):
    engine = Engine(read_rule_files(["cells"]), validated=True)
    events = [
        {"stream": "population_metrics", "timestamp": START_US + tick * 100_000, "key": "sim", "type": "snapshot",
         "simulation_id": "sim", "tick": tick, "total_population": 100 + tick, "avg_accuracy": 0.5,
         "genome_diversity": 2.0, "avg_generation": 1.0, "energy_efficiency": 1.0, "births": 1, "deaths": 1,
         "avg_energy": 3.0}
        for tick in range(40)
    ]  # fmt: skip
    for frame in frames_of(events, sorted(engine.streams)):
        engine.push(frame)
    results = [frame for frame in engine.flush().frames if frame.stream in ("population_second", "progress")]
    batch = [SourcedFrame(frame, f"metrics.{frame.stream}", 0, number) for number, frame in enumerate(results)]
    assert await written(database, batch, batch) == []
    rows = rows_of(database, "window_results")
    curve = sorted(
        (row["window_end"], row["value"])
        for row in rows
        if (row["window_name"], row["field"], row["event_key"]) == ("population_second", "population", "sim")
    )
    expected = [
        (row["window_end"], row["population"])
        for frame in results
        if frame.stream == "population_second"
        for row in frame.rows()
    ]
    assert curve == sorted(expected)
    assert len(curve) == 4
    assert {row["field"] for row in rows if row["window_name"] == "progress"} == {
        "accuracy_slope", "best_accuracy", "generations",
    }  # fmt: skip
    assert {row["simulation_id"] for row in rows} == {"sim"}
    with ExperimentDatabase(database) as opened:
        outputs = opened.open_simulation("sim").outputs
        assert [(each.window_end, each.value) for each in outputs.window("population_second", "population")] == curve
        assert {each.field for each in outputs.window("progress", key="sim")} == {
            "accuracy_slope", "best_accuracy", "generations",
        }  # fmt: skip
        assert list(outputs.window("progress", key="other")) == list(outputs.window("nothing")) == []


async def test_window_results_that_are_no_numbers_are_text_and_a_later_revision_replaces_an_earlier_one(tmp_path):
    database = f"sqlite:///{tmp_path}/windows.db"

    def result(first, revision):
        return Frame.from_columns(
            "mine", "run-1",
            {"timestamp": [20], "key": pa.array([None], pa.utf8()), "type": ["mine"], "first": [first],
             "mean": [float("nan")], "window_start": [10], "window_end": [20], "revision": [revision], "final": [True]},
        )  # fmt: skip

    for number, value in enumerate(("early", "late")):
        await written(database, [SourcedFrame(result(value, number), "metrics.mine", 0, number)])
    rows = {row["field"]: row for row in rows_of(database, "window_results")}
    assert (rows["first"]["text"], rows["first"]["value"], rows["first"]["event_key"]) == ("late", None, "")
    assert (rows["mean"]["text"], rows["mean"]["value"]) == ("NaN", None)
    assert len(rows) == 2


async def test_a_value_that_is_the_same_as_the_key_is_a_row_as_any_other(tmp_path):
    database = f"sqlite:///{tmp_path}/windows.db"
    for number, births in enumerate((0, 3)):
        result = Frame.from_columns(
            "mine", "run-1",
            {"timestamp": [20 + number], "key": ["0"], "type": ["mine"], "island": [0], "births": [births],
             "window_start": [10], "window_end": [20 + number], "revision": [0], "final": [True]},
        )  # fmt: skip
        await written(database, [SourcedFrame(result, "metrics.mine", 0, number)])
    rows = rows_of(database, "window_results")
    births = sorted((row["window_end"], row["value"]) for row in rows if row["field"] == "births")
    assert births == [(20, 0.0), (21, 3.0)]


async def test_spikes_and_the_population_are_rows(database):
    frames = [frame_of("axon_1", 3), frame_of("axon_2", 2), frame_of("population_metrics", 4)]
    batch = [sourced(frame, number) for number, frame in enumerate(frames)]
    assert await written(database, batch, batch) == []
    spikes = sorted((row["axon"], row["id"], row["domain"], row["value"]) for row in rows_of(database, "spikes"))
    assert spikes == [
        ("axon_1", 0, "k", 0.1), ("axon_1", 1, "k", 1.1), ("axon_1", 2, "k", 2.1),
        ("axon_2", 0, "k", 0.1), ("axon_2", 1, "k", 1.1),
    ]  # fmt: skip
    population = rows_of(database, "population_metrics")
    assert [row["tick"] for row in population] == [1, 2, 3, 4]


async def test_results_of_a_statistic_are_rows_by_what_they_are_about(database):
    (spec,) = load_rules(
        "insight: [{name: outlook, statistic: forecast, size: 1s, horizons: [1s, 2s], min_samples: 4}]"
    ).insight
    operator = InsightOperator(spec.built)
    times = np.arange(0, 1_000_000, 50_000)
    levels = np.float32(10.0) + times.astype(np.float32) / 1e6
    columns = {"total_population": np.arange(100, 120), "avg_accuracy": levels / 20, "avg_energy": levels}
    operator.add(
        Frame.from_columns("population_metrics", "run-1", {"timestamp": times, "key": ["run-1"] * 20, **columns})
    )
    results = operator.flush()
    batch = [SourcedFrame(results, "metrics.outlook", 0, 0)]
    assert await written(database, batch, batch) == []
    rows = [row for row in rows_of(database, "window_results") if row["field"] == "value"]
    assert {(row["simulation_id"], row["event_key"], row["value"]) for row in rows} == {
        ("run-1", f"{each['target']}/{each['horizon_us']}", each["value"]) for each in results.rows()
    }
    assert len(rows) == 6
