"""Runs as sources tell of them: logs, files of records, databases; and what cannot be analysed."""

import numpy as np
import pytest

from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.analysis.evolution import NotEnoughData, read_run
from astrocyte.pipeline.analysis.evolution.alerts import with_alerts_of
from astrocyte.pipeline.analysis.evolution.dashboard import alerts_of, planted_in
from astrocyte.pipeline.analysis.offline import run_rules
from astrocyte.pipeline.kafka.record import ConsumedRecord
from astrocyte.pipeline.recording.reader import read_log
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.frames import Frame
from tests.support.evolving import analysis_of, evolving_frames, evolving_log
from tests.support.logs import T0_US, write_log
from tests.support.stored import store_in_sql

STREAMS = ("evolutionary_events", "genome_data", "problem_solving", "population_metrics")


@pytest.fixture(scope="module")
def frames():
    return evolving_frames(ticks=25, size=60, collapse_at=15)


@pytest.fixture(scope="module")
def log(frames, tmp_path_factory):
    return evolving_log(tmp_path_factory.mktemp("log") / "run.jsonl.zst", frames)


def answers(run):
    return (
        run.calculate_selection_pressure("1s").table(),
        run.detect_evolutionary_bottlenecks().table(),
        run.predict_population_dynamics().table(),
        run.generate_live_dashboard().lineages,
    )


def test_a_log_of_frames_and_one_of_records_give_the_same_answers_as_the_frames(frames, log, tmp_path):
    expected = answers(analysis_of(frames))
    assert answers(read_run(log)) == expected
    assert answers(read_run(evolving_log(tmp_path / "json.jsonl.zst", frames, json=True))) == expected
    assert read_run(log).history.source == "run.jsonl.zst"


def test_a_database_has_all_but_the_older_genomes_of_a_cell(frames, log, tmp_path):
    path = tmp_path / "astrocyte.db"
    store_in_sql(f"sqlite:///{path}", RuleSet(), read_log(log))
    found, expected = read_run(path).history, analysis_of(frames).history
    for stream in ("evolutionary_events", "problem_solving", "population_metrics"):
        assert found.count(stream) == expected.count(stream)
    newest = {row["cell_id"]: row["metabolism"] for row in expected.frames["genome_data"].rows()}
    assert {row["cell_id"]: row["metabolism"] for row in found.frames["genome_data"].rows()} == newest
    assert "newest genome of each cell" in found.notes[0]
    mine, logged = read_run(f"sqlite:///{path}"), analysis_of(frames)
    assert mine.detect_evolutionary_bottlenecks().table() == logged.detect_evolutionary_bottlenecks().table()
    assert mine.predict_population_dynamics().table() == logged.predict_population_dynamics().table()


def test_of_several_runs_one_is_chosen_by_name(frames, tmp_path):
    other = evolving_frames(ticks=4, size=30, seed=2, run="run-2")
    log = evolving_log(tmp_path / "two.jsonl.zst", frames, other)
    with pytest.raises(InvalidSettings, match="holds 2 runs; choose one with --run: 'run-1', 'run-2'"):
        read_run(log)
    with pytest.raises(InvalidSettings, match=r"has no run 'run-3'; did you mean 'run-[12]'"):
        read_run(log, run="run-3")
    assert read_run(log, run="run-2").history.count("population_metrics") == 4
    database = tmp_path / "two.db"
    store_in_sql(f"sqlite:///{database}", RuleSet(), read_log(log))
    with pytest.raises(InvalidSettings, match="holds 2 runs; choose one with --run: 'run-1', 'run-2'"):
        read_run(database)
    assert read_run(database, run="run-2").history.count("population_metrics") == 4


def test_a_source_without_such_events_says_which_are_read(tmp_path):
    with pytest.raises(NotEnoughData, match="holds no events of evolutionary_events, genome_data"):
        read_run(evolving_log(tmp_path / "empty.jsonl.zst"))
    database = tmp_path / "empty.db"
    store_in_sql(f"sqlite:///{database}", RuleSet(), [])
    with pytest.raises(NotEnoughData, match="holds no events of evolutionary_events"):
        read_run(database)
    with pytest.raises(AstrocyteError, match="missing"):
        read_run(tmp_path / "missing.jsonl.zst")
    with pytest.raises(InvalidSettings, match=r"holds neither events\.jsonl\.zst nor astrocyte\.db"):
        read_run(tmp_path)


def truth(frames):
    return frames | {
        "truth": Frame.from_columns(
            "truth", "run-1",
            {"timestamp": np.array([T0_US]), "key": ["run-1"], "kind": ["collapse"], "until": np.array([T0_US + 5])},
        ),
    }  # fmt: skip


def test_alerts_are_found_by_rules_over_the_log_and_planted_anomalies_are_read(tmp_path):
    frames = evolving_frames(ticks=60, size=200, collapse_at=30)
    log = evolving_log(tmp_path / "run.jsonl.zst", truth(frames))
    history = read_run(log).history
    assert alerts_of(history).num_rows == 0
    assert planted_in(history).to_pylist() == [{"timestamp": T0_US, "kind": "collapse", "until": T0_US + 5}]
    with_alerts = with_alerts_of(history, read_rule_files(["cells"]), log, lateness_us=1_000_000)
    rows = alerts_of(with_alerts).to_pylist()
    assert "population_collapse" in {row["rule"] for row in rows}
    (collapse,) = [row for row in rows if row["rule"] == "population_collapse"]
    assert collapse["timestamp"] == T0_US + 3_000_000
    assert collapse["severity"] == "critical"


def test_alerts_of_a_recorded_log_are_those_that_workers_raised(tmp_path):
    frames = evolving_frames(ticks=60, size=200, collapse_at=30)
    log = evolving_log(tmp_path / "run.jsonl.zst", frames)
    expected = with_alerts_of(read_run(log).history, read_rule_files(["cells"]), log, lateness_us=1_000_000)
    _, outputs = run_rules(read_rule_files(["cells"]), [log], lateness_us=1_000_000)
    raised = [
        ConsumedRecord("alerts", 0, number, 0, each.key, each.value, tuple(each.headers))
        for number, each in enumerate(each for output in outputs for each in output.alerts)
    ]
    recorded = write_log(tmp_path / "recorded.jsonl.zst", [*read_log(log), *raised], partitions=1)
    found = alerts_of(read_run(recorded).history)
    assert found.num_rows
    assert found == alerts_of(expected)


def test_rules_do_not_run_over_a_database(log, tmp_path):
    database = tmp_path / "run.db"
    store_in_sql(f"sqlite:///{database}", RuleSet(), read_log(log))
    with pytest.raises(InvalidSettings, match="is a database, which has the alerts of its workers' rules"):
        with_alerts_of(read_run(database).history, RuleSet(), database, lateness_us=0)


def test_a_dashboard_has_a_table_for_everything_that_it_shows(frames):
    found = analysis_of(frames).generate_live_dashboard("500ms").tables()
    assert list(found) == ["population", "genomes", "hardware", "accuracy", "lineages", "family_tree", "alerts"]
    rows = frames["problem_solving"].rows()
    last = [row for row in found["accuracy"].to_pylist() if row["window_end"] == analysis_of(frames).history.end_us]
    for row in last:
        own = [
            each["accuracy"] for each in rows
            if each["problem_type"] == row["problem_type"] and each["timestamp"] >= row["window_end"] - 500_000
        ]  # fmt: skip
        assert (row["attempts"], row["accuracy"]) == (len(own), pytest.approx(np.mean(own)))
    genomes = [row for row in found["genomes"].to_pylist() if row["trait"] == "tpu_cores"]
    times = frames["genome_data"].timestamps()
    assert sum(row["individuals"] for row in genomes) == (times >= analysis_of(frames).history.end_us - 2_000_000).sum()


def test_a_dashboard_of_a_run_with_snapshots_alone_has_empty_tables():
    frames = evolving_frames(ticks=6)
    run = analysis_of({"population_metrics": frames["population_metrics"]})
    found = run.generate_live_dashboard("200ms").tables()
    assert found["population"].num_rows == 6
    assert {name for name, table in found.items() if table.num_rows} == {"population"}
    with pytest.raises(NotEnoughData, match="has no births"):
        run.phylogeny()
