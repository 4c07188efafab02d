import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.stores.experiment import ExperimentDatabase
from astrocyte.agents.stores.logger import FlushFailed
from astrocyte.schemas.errors import InvalidEvent

SECOND = 1_000_000


class Clock:
    def __init__(self):
        self.now = 1_735_689_600_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def db(database, clock):
    made = ExperimentDatabase(database, "exp_001", now_us=clock)
    yield made
    made.close()


def count(path, table, where="1=1"):
    connection = sqlite3.connect(path)
    found = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]
    connection.close()
    return found


def rows(db, query, *parameters):
    return db._store.query(query, parameters)


def test_two_simulations_in_one_database_never_mix(db):
    for name, health in (("sim_001", 1.0), ("sim_002", 2.0)):
        with db.create_simulation_context(name) as context:
            context.logger.log_agent("agent_1", 0, "control", (1.0, 2.0), generation=0)
            for step in range(3):
                context.logger.log_agent_state(step, "agent_1", current_health=health)
                context.logger.log_agent_action(step, "agent_1", "move", reward=health)
    first, second = db.open_simulation("sim_001"), db.open_simulation("sim_002")
    assert [state.current_health for state in first.states.history("agent_1")] == [1.0] * 3
    assert [state.current_health for state in second.states.history("agent_1")] == [2.0] * 3
    assert [action.action_id for action in second.actions.of_agent("agent_1")] == [1, 2, 3]
    assert db.simulation_ids == ["sim_001", "sim_002"]
    assert rows(db, "SELECT status FROM simulations ORDER BY simulation_id") == [("completed",)] * 2


def test_rows_are_written_at_a_thousand(tmp_path, clock):
    path = tmp_path / "experiment.db"
    db = ExperimentDatabase(str(path), "exp_001", now_us=clock)
    logger = db.create_simulation_context("sim_001").logger
    for step in range(999):
        logger.log_agent_state(step, "a")
    assert count(path, "agent_states") == 0
    logger.log_agent_state(999, "a")
    assert count(path, "agent_states") == 1000
    assert logger.waiting == 0
    db.close()


def test_rows_are_written_after_thirty_seconds(tmp_path, clock):
    path = tmp_path / "experiment.db"
    db = ExperimentDatabase(str(path), "exp_001", now_us=clock)
    logger = db.create_simulation_context("sim_001").logger
    logger.log_agent_state(0, "a")
    clock.now += 29 * SECOND
    logger.flush_if_due()
    assert count(path, "agent_states") == 0
    clock.now += SECOND
    logger.log_agent_state(1, "a")
    assert count(path, "agent_states") == 2
    logger.log_agent_state(2, "a")
    clock.now += 30 * SECOND
    logger.flush_if_due()
    assert count(path, "agent_states") == 3
    db.close()


def test_an_error_in_the_simulation_flushes_the_logged_rows(tmp_path, clock):
    path = tmp_path / "experiment.db"
    db = ExperimentDatabase(str(path), "exp_001", now_us=clock)

    def simulate():
        with db.create_simulation_context("sim_001") as context:
            context.logger.log_agent_state(0, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        simulate()
    assert count(path, "agent_states") == 1
    assert count(path, "simulations", "status = 'failed'") == 1
    db.close()


def test_a_program_that_ends_without_closing_has_its_rows_written(tmp_path):
    path = tmp_path / "experiment.db"
    code = "from astrocyte.agents.stores.experiment import ExperimentDatabase\n"
    code += f"db = ExperimentDatabase({str(path)!r}, 'exp_001')\n"
    code += "db.create_simulation_context('sim_001').logger.log_agent_state(0, 'a')\n"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert count(path, "agent_states") == 1


def test_a_flush_is_all_or_nothing_and_failed_rows_are_kept(tmp_path, clock):
    path = tmp_path / "experiment.db"
    db = ExperimentDatabase(str(path), "exp_001", now_us=clock)
    logger = db.create_simulation_context("sim_001").logger
    for step in range(5):
        logger.log_agent_state(step, "a")
        logger.log_health_incident(step, "a", 1.0, 0.5, "attack")
    upsert = db._store.upsert

    def full(made):
        upsert(made)
        if made.target.table.name == "agent_states":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    db._store.upsert = full
    with pytest.raises(FlushFailed, match=r"10 rows of simulation 'sim_001' .* the disk is full"):
        logger.flush()
    assert (count(path, "agent_states"), count(path, "agents"), logger.waiting) == (0, 0, 10)
    db._store.upsert = upsert
    logger.flush()
    assert (count(path, "agent_states"), count(path, "health_incidents")) == (5, 5)
    db.close()


def test_a_row_that_cannot_be_stored_goes_to_dead_letters_alone(db):
    logger = db.create_simulation_context("sim_001").logger
    logger.log_agent_state(0, "a", current_health=float("nan"))
    logger.log_agent_state(1, "a", current_health=0.5)
    logger.log_agent_action(1, "a", "x" * 21)
    logger.flush()
    assert rows(db, "SELECT id FROM agent_states") == [("a-1",)]
    letters = rows(db, "SELECT source_topic, reason FROM dead_letters ORDER BY source_topic")
    assert [topic for topic, _ in letters] == ["logger.agent_actions", "logger.agent_states"]
    assert "more than 20 characters" in letters[0][1]
    assert logger.refused == 2


def test_an_unknown_column_or_table_is_an_error_at_once(db):
    logger = db.create_simulation_context("sim_001").logger
    with pytest.raises(InvalidEvent, match="no column 'helth'; it has id, simulation_id"):
        logger.log_agent_state(0, "a", helth=1)
    with pytest.raises(InvalidEvent, match="one of agents, agent_states"):
        logger.log("agent", {})


def test_a_reopened_context_continues_the_numbers(database, clock):
    for _ in range(2):
        db = ExperimentDatabase(database, "exp_001", now_us=clock)
        with db, db.create_simulation_context("s", resume=True) as context:
            context.logger.log_agent_action(0, "a", "move")
            context.logger.log_learning_experience(0, "a", "dqn", "m1", reward=0.5)
    with ExperimentDatabase(database, "exp_001", now_us=clock) as db:
        assert rows(db, "SELECT action_id FROM agent_actions ORDER BY 1") == [(1,), (2,)]
        assert rows(db, "SELECT count(*) FROM simulations") == [(1,)]


def test_two_processes_that_log_to_one_simulation_replace_nothing_of_each_other(database, caplog):
    clocks = [Clock(), Clock()]
    clocks[1].now += 1
    both = [ExperimentDatabase(database, "exp_001", now_us=each) for each in clocks]
    loggers = [db.create_simulation_context("s").logger for db in both]
    for _ in range(2):
        for agent, logger in zip("ab", loggers, strict=True):
            for step in range(3):
                logger.log_agent_action(step, agent, "move")
        for logger in loggers:
            logger.flush()
    found = rows(both[0], "SELECT agent_id, count(*) FROM agent_actions GROUP BY agent_id ORDER BY agent_id")
    assert found == [("a", 6), ("b", 6)]
    assert "another process logs to it, too" in caplog.text
    for db in both:
        db.close()


def test_a_flush_whose_end_was_not_known_is_repeated_without_new_ids(db):
    logger = db.create_simulation_context("s").logger
    logger.log_agent_action(0, "a", "move")
    buffered = [dict(row) for row in logger._buffers["agent_actions"]]
    stored = dict(logger._stored_ids)
    logger.flush()
    # The connection was lost at the commit: the rows are in the database, and in the buffer.
    logger._buffers["agent_actions"], logger._waiting, logger._stored_ids = buffered, 1, stored
    logger.flush()
    assert rows(db, "SELECT action_id FROM agent_actions") == [(1,)]


def test_a_database_in_memory_is_persisted_to_its_file_and_read_again(tmp_path, clock):
    path = tmp_path / "experiment.db"
    db = ExperimentDatabase(path, "exp_001", in_memory=True, now_us=clock)
    context = db.create_simulation_context("sim_001")
    context.logger.log_agent_state(0, "a")
    context.logger.flush()
    assert not path.exists()
    unfinished = context.states.history("a")
    next(unfinished)
    context.logger.log_agent_state(1, "a")
    assert db.persist() == path
    assert count(path, "agent_states") == 2
    context.logger.log_agent_state(2, "a")
    unfinished.close()
    db.close()
    assert count(path, "agent_states") == 3
    with ExperimentDatabase(path, "exp_001", in_memory=True, now_us=clock) as again:
        assert len(list(again.open_simulation("sim_001").states.history("a"))) == 3


def test_a_database_only_in_memory_is_persisted_to_the_given_path(tmp_path, clock):
    with ExperimentDatabase(":memory:", "exp_001", now_us=clock) as db:
        db.create_simulation_context("sim_001").logger.log_agent_state(0, "a")
        with pytest.raises(SinkError, match="pass a path"):
            db.persist()
        db.persist(tmp_path / "copy.db")
    assert count(tmp_path / "copy.db", "agent_states") == 1


def test_experiment_and_configuration_are_stored(db):
    db.update_experiment(hypothesis="cooperation pays", results_summary={"winner": "control"})
    db.create_simulation_context("sim_001", parameters={"size": 10}, config={"seed": 7})
    assert rows(db, "SELECT experiment_id, name, hypothesis FROM experiments") == [
        ("exp_001", "exp_001", "cooperation pays")
    ]
    assert rows(db, "SELECT config_data, timestamp FROM simulation_config") == [('{"seed":7}', None)]


def test_a_whole_step_is_logged_at_once(db):
    with db.create_simulation_context("sim_001") as context:
        context.logger.log_step(
            4,
            agent_states=[{"agent_id": "a", "age": 1}, {"agent_id": "b", "age": 3}],
            resource_states=[{"resource_id": 1, "amount": 2.5, "position": (0.0, 1.0)}],
            metrics={"total_agents": 2, "births": 0},
        )
    assert [(state.agent_id, state.age) for state in context.states.at_step(4)] == [("a", 1), ("b", 3)]
    assert [resource.amount for resource in context.states.resources_at_step(4)] == [2.5]
    assert context.populations.at(4).total_agents == 2


def test_basins_of_an_experiment_are_found_by_direction(db):
    assert db.find_similar_basins(np.ones(8)) == []


def stored(db):
    names = [row[0] for row in rows(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return {name: rows(db, f"SELECT * FROM {name}") for name in names}


@pytest.fixture
def finished(tmp_path, clock):
    """A file with a run that has ended, closed."""
    path = tmp_path / "experiment.db"
    with ExperimentDatabase(path, "exp_001", now_us=clock) as db, db.create_simulation_context("sim_001") as context:
        context.logger.log_agent_state(0, "a", current_health=0.5)
    return path


def test_reading_a_finished_run_changes_no_byte_of_the_database(finished, clock):
    before = finished.read_bytes()
    clock.now += 3600 * SECOND
    with ExperimentDatabase(finished, "exp_001", now_us=clock) as db:
        held = stored(db)
        run = db.open_simulation("sim_001")
        assert [state.current_health for state in run.states.history("a")] == [0.5]
        assert [(each.simulation_id, each.status) for each in db.simulations()] == [("sim_001", "completed")]
        assert [(each.experiment_id, each.simulations) for each in db.experiments()] == [("exp_001", 1)]
        assert db.retriever.population_statistics().num_rows == 0
        assert stored(db) == held
    with ExperimentDatabase(finished) as db:
        assert db.open_simulation("sim_001").simulation_id == "sim_001"
        assert db.simulation_ids == ["sim_001"]
    assert finished.read_bytes() == before


def test_a_finished_run_continues_only_on_request(finished, clock):
    clock.now += 3600 * SECOND
    with ExperimentDatabase(finished, "exp_001", now_us=clock) as db:
        held = stored(db)
        with pytest.raises(
            SinkError, match=r"'sim_001' has ended \(status 'completed', 2025-01-01 00:00:00 UTC\); use open_simulation"
        ):
            db.create_simulation_context("sim_001")
        assert stored(db) == held
        context = db.create_simulation_context("sim_001", resume=True)
        assert [(each.status, each.end_time) for each in db.simulations()] == [("running", None)]
        assert db.create_simulation_context("sim_001") is context
        context.finish()
        assert [(each.status, each.end_time.hour) for each in db.simulations()] == [("completed", 1)]


def test_a_run_of_another_experiment_is_neither_continued_nor_read(finished, clock):
    with ExperimentDatabase(finished, "exp_002", now_us=clock) as db:
        held = stored(db)
        for use in (db.create_simulation_context, db.open_simulation, db.update_simulation):
            with pytest.raises(SinkError, match=r"'sim_001' belongs to experiment 'exp_001'; .* opened for 'exp_002'"):
                use("sim_001")
        assert stored(db) == held


def test_an_unknown_experiment_is_an_error_when_reading_and_is_not_created(finished, clock):
    with ExperimentDatabase(finished, "exp_01", now_us=clock) as db:
        for read in (db.simulations, lambda: db.simulation_ids, lambda: db.retriever, lambda: db.open_simulation("x")):
            with pytest.raises(SinkError, match="there is no experiment 'exp_01' yet; the database has 'exp_001'"):
                read()
        assert [each.experiment_id for each in db.experiments()] == ["exp_001"]
    with ExperimentDatabase(finished, "exp_001", now_us=clock) as db:
        with pytest.raises(SinkError, match="there is no simulation 'sim_01'; experiment 'exp_001' has 'sim_001'"):
            db.open_simulation("sim_01")
        with pytest.raises(SinkError, match="there is no simulation 'sim_01'; create_simulation_context"):
            db.update_simulation("sim_01", status="failed")


def test_a_database_opened_without_an_experiment_is_not_written_to(finished):
    with ExperimentDatabase(finished) as db:
        for write in (db.update_experiment, lambda: db.create_simulation_context("sim_002")):
            with pytest.raises(SinkError, match="opened without an experiment id"):
                write()
