import itertools
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.stores.experiment import ExperimentDatabase
from astrocyte.agents.stores.repositories import DataRetriever, KernelRepository, StateRepository
from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.frames import Frame

START_US = 1_735_689_600_000_000


@pytest.fixture
def simulation(database):
    """Two generations: a and b are founders, c to e their children, f is a's grandchild; c died at 5."""
    db = ExperimentDatabase(database, "exp_001", now_us=lambda: START_US)
    context = db.create_simulation_context("sim_001")
    log = context.logger
    for agent, parent, birth, kind in (
        ("a", None, 0, "system"),
        ("b", None, 0, "control"),
        ("c", "a", 2, "system"),
        ("d", "a", 3, "system"),
        ("e", "b", 3, "control"),
        ("f", "c", 4, "system"),
    ):
        log.log_agent(agent, birth, kind, (0.0, 0.0), parent_id=parent, generation=0 if parent is None else 1)
    log.log_agent_death("c", 5)
    for step in range(4):
        for agent in "ab":
            log.log_agent_state(step, agent, current_health=step / 10, resource_level=1.0, total_reward=0.0, age=step)
            log.log_agent_action(step, agent, "move" if step % 2 else "gather", reward=float(step))
        log.log_step(step, metrics={"total_agents": 2 + step, "births": step, "deaths": 0, "average_agent_health": 0.5})
        log.log_learning_experience(step * 60, "a", "dqn", "m1", reward=float(step))
    log.log_agent_action(9, "b", "attack", "a", details={"damage": 2})
    log.log_health_incident(9, "a", 1.0, 0.5, "attack")
    log.flush()
    yield context
    db.close()


def test_agents(simulation):
    agents = simulation.agents
    assert agents.get("c").death_time == 5
    assert agents.get("c").birth_time == 2
    assert agents.get("zz") is None
    assert [agent.agent_id for agent in agents.all(agent_type="control")] == ["b", "e"]
    assert sorted(agent.agent_id for agent in agents.alive_at(4)) == list("abcdef")
    assert sorted(agent.agent_id for agent in agents.alive_at(5)) == list("abdef")
    assert agents.count_by_type() == {"control": 2, "system": 4}
    assert [agent.agent_id for agent in agents.children("a")] == ["c", "d"]
    assert [(incident.cause, incident.health_after) for incident in agents.incidents("a")] == [("attack", 0.5)]


def test_lineages(simulation):
    lineages = simulation.lineages
    assert [(item.agent_id, item.distance) for item in lineages.ancestors("f")] == [("c", 1), ("a", 2)]
    assert [(item.agent_id, item.distance) for item in lineages.descendants("a")] == [("c", 1), ("d", 1), ("f", 2)]
    assert [item.agent_id for item in lineages.descendants("a", within=1)] == ["c", "d"]
    assert [agent.agent_id for agent in lineages.founders()] == ["a", "b"]


def test_actions_and_learning(simulation):
    assert [action.action_type for action in simulation.actions.of_agent("b")] == [
        *("gather", "move", "gather", "move"),
        "attack",
    ]
    (attack,) = simulation.actions.between(9, 10)
    assert (attack.action_target_id, attack.details) == ("a", '{"damage": 2}')
    assert [(row.action_type, row.count, row.mean_reward) for row in simulation.actions.summary(agent_id="a")] in (
        [("gather", 2, 1.0), ("move", 2, 2.0)],
        [("move", 2, 2.0), ("gather", 2, 1.0)],
    )
    progress = simulation.learning.progress(every=100)
    assert [(row.first_step, row.count, row.mean_reward) for row in progress] == [(0, 2, 0.5), (100, 2, 2.5)]
    assert [experience.reward for experience in simulation.learning.of_agent("a")] == [0.0, 1.0, 2.0, 3.0]


def test_states(simulation):
    states = simulation.states
    assert [state.step_number for state in states.history("a")] == [0, 1, 2, 3]
    assert states.latest("a").id == "a-3"
    assert states.latest("zz") is None
    assert {state.agent_id for state in states.at_step(2)} == {"a", "b"}
    means = states.means(1, 3)
    assert [(row.step_number, row.agents) for row in means] == [(1, 2), (2, 2)]
    assert means[0].current_health == pytest.approx(0.1)
    table = states.arrow(0, 4).read_all()
    assert table.num_rows == 8
    assert table.schema.field("step_number").type == pa.int64()


def test_populations(simulation):
    populations = simulation.populations
    assert [step.total_agents for step in populations.steps(1, 3)] == [3, 4]
    assert populations.latest().step_number == populations.largest().step_number == 3
    assert populations.at(7) is None


def test_statistics_across_simulations_are_arrow_or_pandas(simulation):
    database = simulation._database
    with database.create_simulation_context("sim_002") as other:
        other.logger.log_step(0, metrics={"total_agents": 100, "births": 1})
    table = database.retriever.population_statistics()
    assert table.column("simulation_id").to_pylist() == ["sim_001", "sim_002"]
    assert table.column("mean_agents").to_pylist() == [3.5, 100.0]
    assert table.column("births").to_pylist() == [6, 1]
    frame = database.retriever.population_statistics(["sim_002"], form="pandas")
    assert frame["max_agents"].tolist() == [100]
    assert DataRetriever(database.engine, "another").population_statistics().num_rows == 0
    over_time = database.retriever.population_over_time()
    assert over_time.read_all().column("total_agents").to_pylist() == [2, 3, 4, 5, 100]


async def kernels(database, basins, run="run-1"):
    columns = {
        "timestamp": np.full(len(basins), START_US),
        "key": [run] * len(basins),
        "kernel_id": np.arange(len(basins)),
        "god_name": ["Zeus"] * len(basins),
        "basin_coordinates": pa.array(basins, pa.list_(pa.float32())),
        "phi": np.arange(len(basins)) / 10,
    }
    wars = {
        "timestamp": [START_US + 5],
        "key": [run],
        "war_id": [1],
        "attacker_id": [1],
        "defender_id": [2],
        "winner_id": pa.array([None], pa.int64()),
        "rounds": pa.array([3], pa.int32()),
    }
    sink = SqlSink(database, now_us=lambda: 1)
    await sink.open()
    batch = [
        SourcedFrame(Frame.from_columns("kernel_geometry", run, columns), "mono.kernel_geometry", 0, 0),
        SourcedFrame(Frame.from_columns("war_history", run, wars), "mono.war_history", 0, 0),
    ]
    assert await sink.write(batch) == []
    await sink.close()


def cosine(basins, query):
    with np.errstate(invalid="ignore"):
        return 1 - basins @ query / (np.linalg.norm(basins, axis=1) * np.linalg.norm(query))


async def test_the_nearest_basins_are_the_same_on_every_database(database):
    random = np.random.default_rng(5)
    basins = random.normal(size=(500, 8)).astype(np.float32)
    basins[7] = basins[3] * 2  # the same direction: a tie
    basins[9] = 0  # no direction at all
    await kernels(database, [*basins[:499].tolist(), None])
    with ExperimentDatabase(database, "exp") as db:
        for query in random.normal(size=(5, 8)):
            expected = [str(row) for row in np.argsort(cosine(basins[:499].astype(float), query)) if row != 9][:10]
            found = db.find_similar_basins(query)
            assert [item.kernel_id for item in found] == expected
            assert found[0].distance == pytest.approx(np.nanmin(cosine(basins[:499].astype(float), query)), abs=1e-6)
        tied = db.find_similar_basins(basins[3], 2)
        assert [item.kernel_id for item in tied] == ["3", "7"]
        assert db.find_similar_basins(basins[3], 1)[0].god_name == "Zeus"


async def test_the_index_finds_the_nearest_basins_of_many(postgres, monkeypatch):
    monkeypatch.setattr("astrocyte.agents.stores.repositories.kernels._EXACT_ROWS", -2)
    random = np.random.default_rng(5)
    basins = random.normal(size=(3000, 8)).astype(np.float32)
    await kernels(postgres, basins.tolist())
    with ExperimentDatabase(postgres, "exp") as db:
        query = random.normal(size=8)
        expected = np.argsort(cosine(basins.astype(float), query))[:10]
        assert [int(item.kernel_id) for item in db.find_similar_basins(query)] == expected.tolist()


async def test_kernels_and_wars(database):
    await kernels(database, np.eye(8, dtype=np.float32).tolist())
    with ExperimentDatabase(database, "exp") as db:
        repository = KernelRepository(db.engine, "run-1")
        assert repository.get("2").basin_coordinates.tolist() == np.eye(8)[2].tolist()
        assert [kernel.kernel_id for kernel in repository.best(2)] == ["7", "6"]
        assert [(war.attacker_id, war.defender_id, war.winner_id) for war in repository.wars("2")] == [("1", "2", None)]
        assert list(repository.wars("5")) == []
        assert KernelRepository(db.engine, "run-2").find_similar_basins(np.ones(8)) == []


@pytest.mark.parametrize(
    ("query", "reason"), [(np.zeros(8), "a basin of zeros"), (np.ones(7), "expected a vector of 8 numbers")]
)
def test_a_basin_that_cannot_be_compared_is_refused(tmp_path, query, reason):
    with (
        ExperimentDatabase(tmp_path / "data.db", "exp") as db,
        pytest.raises(InvalidEvent, match=reason),
    ):
        db.find_similar_basins(query)


async def test_a_long_query_streams(tmp_path):
    rows, agents = 100_000, 1_000
    index = np.arange(rows)
    columns = {
        "timestamp": index,
        "key": pa.array(["r"] * rows),
        "step_number": index // agents,
        "agent_id": index % agents,
        "current_health": np.ones(rows, np.float32),
    }
    sink = SqlSink(str(tmp_path / "data.db"), now_us=lambda: 1)
    await sink.open()
    frame = Frame.from_columns("agent_states", "run-1", columns)
    assert await sink.write([SourcedFrame(frame, "mono.agent_states", 0, 0)]) == []
    await sink.close()
    del frame, columns
    with ExperimentDatabase(tmp_path / "data.db", "exp") as db:
        states = StateRepository(db.engine, "run-1")
        list(itertools.islice(states.at_step(0), 1))
        tracemalloc.start()
        count = sum(batch.num_rows for batch in states.arrow(0, 200))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == rows
    assert peak < 15e6, "a quarter of the rows at once would take more"


def test_an_agents_history_is_read_by_its_index_and_never_by_reading_all(tmp_path):
    with ExperimentDatabase(tmp_path / "data.db", "exp") as db, db.engine.connect() as connection:
        for table in ("agent_states", "agent_actions", "learning_experiences", "health_incidents"):
            query = f"SELECT * FROM {table} WHERE agent_id = '1' AND simulation_id = 's' ORDER BY step_number"
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
            assert f"ix_{table}_agent_id_simulation_id_step_number" in plan
            assert "TEMP B-TREE" not in plan
