import numpy as np
import pytest
from sqlalchemy import text

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.retention import DEFAULT_DAYS, apply_retention, retention_days
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.migrate import OlderDatabase, upgrade
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.testing import results
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

NOW_US = 1_735_689_600_000_000
DAY_US = 86_400_000_000
AGENTS = 10


def states(step: int) -> SourcedFrame:
    columns = {
        # Event time is in 1970: retention must not depend on it.
        "timestamp": np.full(AGENTS, step),
        "key": ["r"] * AGENTS,
        "step_number": np.full(AGENTS, step),
        "agent_id": np.arange(AGENTS),
        "current_health": np.arange(AGENTS, dtype=np.float32),
        "resource_level": np.full(AGENTS, 2.0, np.float32),
        "age": np.full(AGENTS, step, np.int32),
    }
    return SourcedFrame(Frame.from_columns("agent_states", "run-1", columns), "mono.agent_states", 0, step)


async def fill(database):
    """Steps 0 to 3 recorded 40, 35, 29 and 0 days ago, and problem results of 40 days ago."""
    age = [0]
    sink = SqlSink(database, now_us=lambda: NOW_US - age[0] * DAY_US)
    await sink.open()
    for step, days in enumerate((40, 35, 29, 0)):
        age[0] = days
        await sink.write([states(step)])
    age[0] = 40
    await sink.write([SourcedFrame(results(), "mono.problem_solving", 0, 0)])
    await sink.close()


def ask(database, query):
    with engine_of(database).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


async def test_states_older_than_thirty_days_are_deleted_in_small_transactions_and_leave_their_means(database):
    await fill(database)
    removed = list(apply_retention(database, now_us=NOW_US, batch_rows=4))
    assert [item.rows for item in removed] == [4, 4, 2] * 2
    assert ask(database, "SELECT DISTINCT step_number FROM agent_states ORDER BY 1") == [(2,), (3,)]
    columns = "step_number, total_agents, average_agent_health, average_agent_resources, average_agent_age"
    assert ask(database, f"SELECT {columns} FROM simulation_steps ORDER BY 1") == [
        (0, 10, 4.5, 2.0, 0),
        (1, 10, 4.5, 2.0, 1),
    ]
    assert ask(database, "SELECT count(*) FROM problem_results") == [(40,)]
    assert ask(database, "SELECT count(*) FROM agents") == [(10,)]
    assert list(apply_retention(database, now_us=NOW_US)) == []


async def test_the_simulations_own_row_of_a_step_is_kept(database):
    await fill(database)
    with engine_of(database).begin() as connection:
        connection.execute(
            text("INSERT INTO simulation_steps (simulation_id, step_number, total_agents) VALUES ('run-1', 0, 777)")
        )
    list(apply_retention(database, now_us=NOW_US))
    query = "SELECT total_agents, average_agent_health FROM simulation_steps WHERE step_number = 0"
    assert ask(database, query) == [(777, 4.5)]


async def test_an_action_is_kept_after_the_states_it_refers_to(database):
    await fill(database)
    with engine_of(database).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO agent_actions (simulation_id, action_id, agent_id, state_before_id, state_after_id) "
                "VALUES ('run-1', 1, '3', '3-0', '3-3')"
            )
        )
    list(apply_retention(database, now_us=NOW_US))
    assert ask(database, "SELECT state_before_id, state_after_id FROM agent_actions") == [(None, "3-3")]


async def test_other_tables_are_kept_unless_a_retention_is_set(database):
    await fill(database)
    removed = list(apply_retention(database, now_us=NOW_US, days={"agent_states": None, "problem_results": 39}))
    assert [(item.table, item.rows) for item in removed] == [("problem_results", 40)]


async def test_rows_without_a_date_are_kept(database):
    await fill(database)
    with engine_of(database).begin() as connection:
        connection.execute(text("UPDATE agent_states SET recorded_at = NULL WHERE step_number = 0"))
    list(apply_retention(database, now_us=NOW_US))
    assert ask(database, "SELECT DISTINCT step_number FROM agent_states ORDER BY 1") == [(0,), (2,), (3,)]


@pytest.mark.parametrize("days", [0, -1, 0.5, float("nan")])
def test_a_retention_below_a_day_is_refused(days):
    with pytest.raises(InvalidSettings, match="expected at least 1"):
        retention_days({"agent_states": days})


def test_an_unknown_table_is_refused():
    with pytest.raises(InvalidSettings, match="'agent_state'; expected one of agent_states"):
        retention_days({"agent_state": 3})
    assert retention_days() == dict(DEFAULT_DAYS)


def test_a_database_of_another_version_is_not_touched(tmp_path):
    path = tmp_path / "data.db"
    upgrade(path, "0001")
    with pytest.raises(OlderDatabase):
        list(apply_retention(path, now_us=NOW_US))
