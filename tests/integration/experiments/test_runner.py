"""Sweeps in a database: what is stored, what a second call does, what a failure leaves; the command."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from astrocyte import CATALOG, ExperimentDatabase, ExperimentRunner, Sweep
from astrocyte.pipeline.cli.app import app
from astrocyte.pipeline.experiments.runner import results_of
from astrocyte.pipeline.recording.frames import frames_of
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.errors import InvalidSettings
from tests.support.small_worlds import SMALL_WORLDS


def growth(context, settings, seed):
    for step in range(3):
        context.logger.log_step(step, metrics={"total_agents": seed + round(settings["rate"] * step)})
    if settings["rate"] < 0:
        raise ValueError("a rate below 0")
    return {"agents": seed + settings["rate"] * 2}


@pytest.fixture
def sweep() -> Sweep:
    return Sweep(experiment="growth", seeds=(1, 2), vary={"rate": [1, 10]}, hypothesis="faster is more")


def dump(address: str) -> dict[str, list]:
    """Every row of every table that the runs write."""
    tables = ("experiments", "simulations", "simulation_steps", "simulation_config")
    with ExperimentDatabase(address) as database, database.engine.connect() as connection:
        return {table: sorted(map(str, connection.execute(text(f"SELECT * FROM {table}")))) for table in tables}


def test_every_run_is_a_simulation_with_its_settings_rows_and_results(database, sweep):
    seen = []
    runner = ExperimentRunner(database, sweep, growth)
    results = runner.run(progress=lambda done, total, result: seen.append((done, total, result.status)))
    assert seen == [(number, 4, "completed") for number in range(1, 5)]
    assert [result.results["agents"] for result in results] == [3, 4, 21, 22]
    with ExperimentDatabase(database, "growth") as opened:
        (experiment,) = opened.experiments()
        assert (experiment.status, experiment.simulations) == ("completed", 4)
        first = opened.simulations()[0]
        assert first.parameters["settings"] == first.parameters["varied"]
        assert first.results_summary == {
            "results": {"agents": first.parameters["seed"] + first.parameters["varied"]["rate"] * 2}
        }
        assert isinstance(first.end_time, datetime)
        for result in results:
            steps = [step.total_agents for step in opened.open_simulation(result.simulation_id).populations.steps()]
            assert steps == [result.seed + result.varied["rate"] * step for step in range(3)]
        with opened.engine.connect() as connection:
            summary = connection.execute(text("SELECT results_summary FROM experiments")).scalar()
    summary = json.loads(summary) if isinstance(summary, str) else summary
    assert (summary["runs"], summary["completed"], summary["failed"]) == (4, 4, 0)
    assert [row["results"]["agents"]["mean"] for row in summary["comparison"]] == [3.5, 21.5]


def test_reading_and_comparing_change_nothing(database, sweep):
    runner = ExperimentRunner(database, sweep, growth)
    runner.run()
    before = dump(database)
    assert [row.results["agents"].mean for row in runner.compare().rows] == [3.5, 21.5]
    with ExperimentDatabase(database, "growth") as opened:
        for result in results_of(opened):
            view = opened.open_simulation(result.simulation_id)
            assert view.populations.latest() is not None
        assert opened.retriever.population_statistics().num_rows == 4
    assert dump(database) == before


def test_a_second_call_runs_only_what_is_new(database, sweep):
    calls = []

    def counted(context, settings, seed):
        calls.append((settings["rate"], seed))
        return growth(context, settings, seed)

    ExperimentRunner(database, sweep, counted).run()
    wider = sweep.model_copy(update={"vary": {"rate": (1, 10, 5)}, "seeds": (1, 2, 3)})
    results = ExperimentRunner(database, wider, counted).run()
    assert len(results) == 9
    assert sum(result.skipped for result in results) == 4
    assert len(calls) == len(set(calls)) == 9


def test_a_run_that_raises_fails_alone_and_is_repeated_by_the_next_call(database, sweep):
    wrong = sweep.model_copy(update={"vary": {"rate": (-1, 1)}})
    results = ExperimentRunner(database, wrong, growth).run()
    assert [result.status for result in results] == ["failed", "failed", "completed", "completed"]
    assert results[0].error == "ValueError: a rate below 0"
    with ExperimentDatabase(database) as opened:
        assert opened.experiments()[0].status == "failed"
    repaired = ExperimentRunner(database, wrong, lambda context, settings, seed: {"agents": 1}).run()
    assert [(result.status, result.skipped) for result in repaired] == [
        ("completed", False), ("completed", False), ("completed", True), ("completed", True)
    ]  # fmt: skip
    with ExperimentDatabase(database, "growth") as opened:
        assert opened.experiments()[0].status == "completed"
        assert all(each.status == "completed" and each.end_time for each in opened.simulations())


def test_a_sweep_that_is_stopped_or_interrupted_continues_where_it_was(database, sweep):
    def interrupted(context, settings, seed):
        if (settings["rate"], seed) == (10, 1):
            raise KeyboardInterrupt
        return growth(context, settings, seed)

    with pytest.raises(KeyboardInterrupt):
        ExperimentRunner(database, sweep, interrupted).run()
    done = []
    ExperimentRunner(database, sweep, growth).run(
        progress=lambda _done, _total, result: done.append(result), stop=lambda: len(done) == 3
    )
    assert [result.skipped for result in done] == [True, True, False]
    with ExperimentDatabase(database) as opened:
        assert opened.experiments()[0].status == "stopped"
    assert [result.skipped for result in ExperimentRunner(database, sweep, growth).run()] == [True] * 3 + [False]


def test_a_runner_needs_a_scenario_or_a_function_and_checks_all_settings_first(tmp_path, sweep):
    with pytest.raises(InvalidSettings, match="no scenario and ticks"):
        ExperimentRunner(tmp_path / "x.db", sweep)
    wrong = Sweep(experiment="e", seeds=(0,), scenario="axons", ticks=5, vary={"domains": [4, -4]})
    with pytest.raises(InvalidSettings, match="domains"):
        ExperimentRunner(tmp_path / "x.db", wrong)
    assert not (tmp_path / "x.db").exists()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory of the commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments: str) -> Result:
    """The command in this process, which must succeed."""
    done = CliRunner().invoke(app, ["experiment", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def refused(*arguments: str) -> str:
    """What a command says on stderr that ends with the status of a refusal, in a process of its own."""
    code = "from astrocyte.pipeline.cli.app import main; main()"
    command = [sys.executable, "-c", code, "experiment", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def test_the_command_runs_lists_and_compares_a_sweep_of_a_scenario(folder):
    (folder / "sweep.yaml").write_text(
        "experiment: spikes\nscenario: axons\nseeds: [3, 4]\nticks: 100\nsettings: {domains: 8}\nlogs: logs\n"
        "measures: {count: count(axon_1), value: mean(axon_1.value)}\n"
    )
    done = command("run", "sweep.yaml", "--db", "e.db", "--json")
    printed = json.loads(done.stdout)
    assert "2/2 spikes-" in done.stderr
    for run in printed["runs"]:
        log = folder / "logs" / f"{run['simulation_id']}.jsonl.zst"
        values = [row["value"] for _, _, _, frame in frames_of(log) if frame.stream == "axon_1" for row in frame.rows()]
        assert run["results"]["count"] == len(values) > 0
        assert run["results"]["value"] == pytest.approx(sum(values) / len(values))
    assert "was completed before" in command("run", "sweep.yaml", "--db", "e.db").stderr
    listed = json.loads(command("ls", "--db", "e.db", "--json").stdout)
    assert [(each["experiment_id"], each["simulations"]) for each in listed["experiments"]] == [("spikes", 2)]
    assert command("ls", "spikes", "--db", "e.db").stdout.count("completed") == 2
    compared = json.loads(command("compare", "spikes", "--db", "e.db", "--result", "count", "--json").stdout)
    assert compared["comparison"][0]["results"]["count"]["count"] == 2
    wrong = refused("compare", "spikes", "--db", "e.db", "--result", "size")
    assert "no run has a result 'size'; there are count, value" in wrong


@pytest.mark.time_limit(60, "compiles two worlds")
@pytest.mark.parametrize("scenario", ["cells", "kernels"])
def test_results_without_measures_are_in_the_units_of_the_streams(folder, scenario):
    ticks, settings = SMALL_WORLDS[scenario]
    sweep = Sweep(experiment=scenario, seeds=(3,), scenario=scenario, ticks=ticks, settings=settings)
    (done,) = ExperimentRunner(folder / "e.db", sweep).run()
    sink = MemorySink()
    simulate(scenario, settings, seed=3, ticks=ticks, sink=sink)
    streams = {frame.stream for frame in sink.frames} - {"truth", "simulation_controls"}
    rows = {name: [row for frame in sink.of(name) for row in frame.rows()] for name in streams}
    assert {name: done.results[f"events.{name}"] for name in streams} == {name: len(rows[name]) for name in streams}
    if scenario == "cells":
        last = rows["population_metrics"][-1]
        for name in ("avg_accuracy", "avg_energy", "total_population", "energy_efficiency"):
            assert done.results[f"last.{name}"] == pytest.approx(last[name])
    else:
        phi = [row["phi"] for row in rows["kernel_geometry"]]
        assert done.results["mean.kernel_geometry.phi"] == pytest.approx(sum(phi) / len(phi))
        born, gone = (sum(row["type"] in kinds for row in rows["kernel_geometry"])
                      for kinds in (("spawned", "bred", "merged"), ("retired",)))  # fmt: skip
        assert done.results["last.alive"] == born - gone
    # Every number has a definition with a range, and lies in it.
    for name, value in done.results.items():
        function, _, field = name.partition(".")
        if function == "events" or name == "last.alive":
            continue
        stream, _, field = field.rpartition(".") if function == "mean" else ("population_metrics", "", field)
        about = CATALOG[stream].about.get(field)
        assert about is not None or function == "last"
        if about is not None:
            assert about.unit
            assert about.low is None or about.low <= value, name
            assert about.high is None or value <= about.high, name


def test_listing_a_database_that_is_not_there_creates_none(folder):
    assert "there is no database absent.db" in refused("ls", "--db", "absent.db")
    assert list(folder.iterdir()) == []
