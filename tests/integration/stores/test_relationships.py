"""Relationships of the ORM models, and the repositories of cells, dna and outputs; the services and analyzers."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from astrocyte import ExperimentDatabase
from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.stores.analysis import advantage, agent_profile, dominance, dominance_steps
from astrocyte.agents.stores.repositories import OutputRepository
from astrocyte.pipeline.embed.encoding import StreamEncoder, messages_of
from astrocyte.pipeline.embed.vocabularies import CellEvents, DnaEvents, KernelEvents
from astrocyte.schemas.json.reader import RawRecord, records_to_frame
from astrocyte.schemas.tables import ActionModel, AgentModel, ExperimentModel, Simulation

START_US = 1_735_689_600_000_000


@pytest.fixture
def experiment(database):
    """Two types of agents: a and b (system; b died at 4) with c as a's child, and d (control), which died at 2."""
    with ExperimentDatabase(database, "exp_001", now_us=lambda: START_US) as db:
        log = db.create_simulation_context("sim_001", config={"size": 4}).logger
        born = ("a", "system", 0, None), ("b", "system", 0, None), ("c", "system", 3, "a"), ("d", "control", 0, None)
        for agent, kind, birth, parent in born:
            log.log_agent(agent, birth, kind, parent_id=parent)
        log.log_agent_death("b", 4)
        log.log_agent_death("d", 2)
        populations = ((1, 2), (2, 2), (2, 1), (2, 1), (0, 0), (1, 3))
        for step, (system, control) in enumerate(populations):
            log.log_step(step, metrics={"system_agents": system, "control_agents": control, "independent_agents": 0})
            log.log_agent_state(step, "a", current_health=1.0 - step / 10)
        log.log_agent_action(1, "a", "gather", reward=2.0)
        log.log_agent_action(1, "d", "attack", "a", reward=-1.0)
        log.log_agent_action(2, "a", "move", reward=0.0)
        log.log_health_incident(1, "a", 1.0, 0.5, "attack")
        log.log_learning_experience(2, "a", "dqn", "m", reward=0.5)
        db.create_simulation_context("sim_002").logger.log_agent("a", 0, "control")
        db.flush()
        yield db


def test_relationships_lead_from_the_experiment_to_every_row_of_an_agent_and_back(experiment):
    with Session(experiment.engine) as session:
        found = session.get(ExperimentModel, "exp_001")
        assert [each.simulation_id for each in found.simulations] == ["sim_001", "sim_002"]
        first = found.simulations[0]
        assert first.experiment is found
        assert [agent.agent_id for agent in first.agents] == list("abcd")
        assert [step.control_agents for step in first.steps] == [2, 2, 1, 1, 0, 3]
        assert first.config[0].config_data == '{"size":4}'
        agent = first.agents[0]
        assert agent.simulation is first
        assert [state.step_number for state in agent.states] == list(range(6))
        assert agent.states[0].agent is agent
        assert [action.action_type for action in agent.actions] == ["gather", "move"]  # not the attack on it
        assert [each.cause for each in agent.health_incidents] == ["attack"]
        assert [each.reward for each in agent.learning_experiences] == [0.5]
        assert found.simulations[1].agents[0].actions == []  # the other simulation's agent a


def test_agents_are_selected_across_simulations_and_joined_along_relationships(experiment):
    with Session(experiment.engine) as session:
        wanted = AgentModel.simulation_id.in_(["sim_001", "sim_002"]), AgentModel.agent_type == "control"
        agents = session.scalars(select(AgentModel).where(*wanted).order_by(AgentModel.simulation_id)).all()
        assert [(agent.simulation_id, agent.agent_id) for agent in agents] == [("sim_001", "d"), ("sim_002", "a")]
        joined = select(AgentModel.agent_id).join(AgentModel.actions).where(ActionModel.reward > 1)
        assert session.scalars(joined).all() == ["a"]
        ended = select(Simulation).join(Simulation.experiment).where(ExperimentModel.experiment_id == "none")
        assert session.scalars(ended).all() == []


def test_the_profile_of_an_agent_is_what_its_tables_say(experiment):
    simulation = experiment.open_simulation("sim_001")
    profile = agent_profile(simulation, "c")
    assert (profile.agent.birth_time, profile.lifetime, profile.children) == (3, None, 0)
    assert [each.agent_id for each in profile.ancestors] == ["a"]
    profile = simulation.profile("a")
    assert (profile.latest.step_number, profile.children, len(profile.incidents)) == (5, 1, 1)
    assert {each.action_type: each.count for each in profile.actions} == {"gather": 1, "move": 1}
    assert agent_profile(simulation, "b").lifetime == 4
    assert agent_profile(simulation, "zz") is None


def test_dominance_is_the_type_with_most_agents_and_how_often_it_changed(experiment):
    simulation = experiment.open_simulation("sim_001")
    steps = [(step.dominant, step.share) for step in dominance_steps(simulation)]
    assert steps == [
        ("control", 2 / 3), (None, 0.5), ("system", 2 / 3), ("system", 2 / 3), (None, 0.0), ("control", 0.75)
    ]  # fmt: skip
    found = simulation.dominance()
    assert found.steps == {"system": 2, "independent": 0, "control": 2}
    assert found.mean_share["system"] == pytest.approx((1 / 3 + 1 / 2 + 2 / 3 + 2 / 3 + 1 / 4) / 5)
    assert (found.switches, found.final) == (2, "control")
    assert dominance(experiment.open_simulation("sim_002")).final is None


def test_advantage_is_the_difference_of_a_type_from_all_others(experiment):
    control, system = experiment.open_simulation("sim_001").advantage()
    assert (system.agent_type, system.agents, control.agents) == ("system", 3, 1)
    assert system.mean_lifetime == pytest.approx((5 + 4 + 2) / 3)
    assert control.mean_lifetime == 2.0
    assert system.lifetime_advantage == pytest.approx(-control.lifetime_advantage)
    assert (system.survival, control.survival) == (pytest.approx(2 / 3), 0.0)
    assert (system.children, control.children) == (pytest.approx(1 / 3), 0.0)
    assert (system.mean_reward, control.mean_reward, system.reward_advantage) == (1.0, -1.0, 2.0)
    (alone,) = advantage(experiment.open_simulation("sim_002"))
    assert (alone.agents, alone.mean_reward, alone.lifetime_advantage) == (1, None, None)


class Stored:
    """Takes events as a publisher does, and writes them into a database as the role sql does."""

    def __init__(self):
        self.frames = []

    def emit(self, stream, event, *, key=None):
        (message,) = messages_of([StreamEncoder(stream).encode(event, key, len(self.frames))], "run")
        offset = len(self.frames)
        record = RawRecord(offset, 0, message.key, message.value, message.headers)
        frame, _, refused = records_to_frame(message.topic, 0, stream, [record])
        assert refused == []
        self.frames.append(SourcedFrame(frame, message.topic, 0, offset, np.array([offset])))
        return True

    async def write(self, database):
        sink = SqlSink(database, now_us=lambda: START_US)
        await sink.open()
        assert await sink.write(self.frames) == []
        await sink.close()


async def test_published_cells_and_kernels_are_rows_of_their_simulation(database):
    out = Stored()
    cells = CellEvents(out, "sim_001", tick_us=1_000, start_us=START_US)
    for number in range(3):
        cells.stream_cell_state({"cell_id": number, "generation": number % 2, "energy": 1.0, "lineage": 0}, number)
        cells.stream_genome({"cell_id": number, "genome_type": "bio" if number else "ai", "metabolism": number / 2})
        cells.stream_problem_result(
            {"cell_id": number},
            {"problem_type": "xor", "difficulty": "easy"},
            {"accuracy": number / 2, "energy_reward": 1.0},
        )
    cells.stream_division_event({"cell_id": 0, "generation": 0}, {"cell_id": 1, "generation": 1})
    cells.stream_mutation_event({"cell_id": 1}, "point", 0.25)
    cells.stream_population_snapshot([{"energy": 1.0}] * 3, 3)
    kernels = KernelEvents(out, "sim_001")
    kernels.store_kernel(kernel_id=7, god_name="Athena", phi=0.5, basin_coordinates=[1.0] + [0.0] * 7)
    kernels.update_kernel_metrics(7, phi=0.75, training_steps=10)
    await out.write(database)
    with ExperimentDatabase(database) as db:
        found = db.open_simulation("sim_001")
        assert [cell.cell_id for cell in found.cells.all()] == [0, 1, 2]
        assert [cell.cell_id for cell in found.cells.all(generation=1)] == [1]
        assert [cell.cell_id for cell in found.cells.all(lineage=5)] == []
        assert found.cells.get(2).timestamp == START_US + 2_000
        assert found.cells.genome(0).genome_type == "ai"
        assert [(each.genome_type, each.count, each.metabolism) for each in found.cells.traits()] == [
            ("ai", 1, 0.0), ("bio", 2, 0.75)
        ]  # fmt: skip
        (summary,) = found.cells.problem_summary()
        assert (summary.count, summary.solved, summary.mean_accuracy, summary.mean_reward) == (3, 2, 0.5, 1.0)
        assert [each.solved for each in found.cells.problems(0)] == [False]
        assert found.cells.event_counts() == {"division": 1, "mutation": 1}
        (division,) = found.cells.events("division")
        assert (division.cell_id, division.parent_id, division.generation_gap) == (1, 0, 1)
        assert {each.mutation_magnitude for each in found.cells.events(cell_id=1)} == {None, 0.25}
        kernel = found.kernels.get("7")
        assert (kernel.god_name, kernel.phi, kernel.training_steps, kernel.status) == ("Athena", 0.75, 10, "updated")
        assert [each.kernel_id for each in found.kernels.find_similar_basins([1.0] + [0.0] * 7)] == ["7"]


async def test_the_family_of_a_cell_its_generations_and_the_curves_are_read_by_repositories(database):
    """Cell 0 has the daughters 1 and 2, of which 1 has 3; 9 belongs to another simulation."""
    out = Stored()
    cells = CellEvents(out, "sim_001", tick_us=1_000, start_us=START_US)
    for number, parent in ((1, 0), (2, 0), (3, 1)):
        before = {"cell_id": parent, "generation": min(parent, 1)}
        cells.stream_division_event(before, {"cell_id": number, "generation": min(parent, 1) + 1})
        cells.stream_mutation_event({"cell_id": number, "parent_id": parent}, "point", 0.25)
    for number, generation in enumerate((0, 1, 1, 2)):
        cells.stream_cell_state({"cell_id": number, "generation": generation}, number)
        for accuracy in (0.25, number / 4):
            result = {"accuracy": accuracy, "tpu_utilization": accuracy / 2}
            cells.stream_problem_result({"cell_id": number}, {"problem_type": "xor"}, result)
    for tick in (4, 8):
        cells.stream_population_snapshot({"total_population": 10 * tick, "births": tick}, tick)
    other = CellEvents(out, "sim_002", tick_us=1_000, start_us=START_US)
    other.stream_division_event({"cell_id": 1, "generation": 1}, {"cell_id": 9, "generation": 2})
    kernels = KernelEvents(out, "sim_001")
    kernels.store_kernel(kernel_id=7, phi=0.5, basin_coordinates=[1.0] + [0.0] * 7)
    kernels.update_kernel_metrics(7, phi=0.75, training_steps=10)
    kernels.store_kernel(kernel_id=8, phi=0.1)
    await out.write(database)
    with ExperimentDatabase(database) as db:
        found = db.open_simulation("sim_001")
        ancestors = [(each.cell_id, each.generation, each.distance) for each in found.cells.ancestors(3)]
        assert ancestors == [(1, 1, 1), (0, 0, 2)]
        assert [each.cell_id for each in found.cells.ancestors(3, most=1)] == [1]
        assert found.cells.ancestors(0) == found.cells.ancestors(77) == []
        tree = [(each.cell_id, each.parent_id, each.generation, each.distance) for each in found.cells.descendants(0)]
        assert tree == [(1, 0, 1, 1), (2, 0, 1, 1), (3, 1, 2, 2)]
        assert [each.cell_id for each in found.cells.descendants(0, within=1)] == [1, 2]
        generations = [
            (each.generation, each.cells, each.attempts, each.solved, each.mean_accuracy, each.mean_utilization)
            for each in found.cells.accuracy_by_generation()
        ]
        assert generations == [
            (0, 1, 2, 0, 0.125, 0.0625), (1, 2, 4, 1, 0.3125, 0.15625), (2, 1, 2, 1, 0.5, 0.25)
        ]  # fmt: skip
        assert found.cells.problem_summary()[0].mean_utilization == pytest.approx(0.3125 / 2)
        curve = [(each.tick, each.timestamp, each.total_population, each.births) for each in found.cells.population()]
        assert curve == [(4, START_US + 4_000, 40, 4), (8, START_US + 8_000, 80, 8)]
        assert [each.tick for each in found.cells.population(5)] == [8]
        assert [each.tick for each in found.cells.population(0, 8)] == [4]
        history = [(each.status, each.phi, each.training_steps) for each in found.kernels.history("7")]
        assert history == [("spawned", 0.5, None), ("updated", 0.75, 10)]


def test_a_program_without_a_broker_logs_kernels_and_wars(database):
    with ExperimentDatabase(database, "exp_001", now_us=lambda: START_US) as db:
        with db.create_simulation_context("sim_001") as context:
            log = context.logger
            basin = [1.0] + [0.0] * 7
            assert log.log_kernel(7, god_name="Athena", phi=0.5, basin_coordinates=basin, parent_kernels=["3"]) == 1
            assert log.log_kernel(7, "updated", timestamp=START_US + 5, phi=0.75, training_steps=10) == 2
            log.log_kernel(8, phi=0.25)
            assert log.log_war(7, 8, winner_id=7, rounds=3, outcome="attacker_won") == 1
            log.log_war(9, 7)
        kernels = db.open_simulation("sim_001").kernels
        kernel = kernels.get("7")
        assert (kernel.god_name, kernel.phi, kernel.training_steps, kernel.status) == ("Athena", 0.75, 10, "updated")
        assert kernel.basin_coordinates.tolist() == basin
        assert (kernel.parent_kernels, kernel.spawned_at.year) == (["3"], 2025)
        history = [(each.timestamp, each.status, each.phi) for each in kernels.history("7")]
        assert history == [(START_US, "spawned", 0.5), (START_US + 5, "updated", 0.75)]
        wars = [(each.attacker_id, each.defender_id, each.winner_id) for each in kernels.wars("7")]
        assert wars == [("7", "8", "7"), ("9", "7", None)]
        assert [each.kernel_id for each in db.find_similar_basins(basin)] == ["7"]
        with db.create_simulation_context("sim_001", resume=True) as context:
            assert context.logger.log_kernel(7, "retired") == 4
        assert db.open_simulation("sim_001").kernels.get("7").phi == 0.75


def test_two_processes_that_log_kernels_of_one_simulation_replace_nothing_of_each_other(database):
    both = [ExperimentDatabase(database, "exp_001", now_us=lambda at=START_US + each: at) for each in range(2)]
    loggers = [db.create_simulation_context("sim_001").logger for db in both]
    for kernel, logger in enumerate(loggers):
        logger.log_kernel(kernel, phi=0.5)
        logger.log_war(kernel, 7)
    for logger in loggers:
        logger.flush()
    kernels = both[0].open_simulation("sim_001").kernels
    assert [len(list(kernels.history(str(kernel)))) for kernel in range(2)] == [1, 1]
    assert [war.attacker_id for war in kernels.wars()] == ["0", "1"]
    for db in both:
        db.close()


async def test_published_dna_is_read_by_its_repository(database):
    out = Stored()
    dna = DnaEvents(out)
    dna.snapshot_created(
        snapshot_id=1, agent_id="x", version=1, source="manual", dna_size=3, traits_count=1, created_at=1.5e9
    )
    for number in (2, 3):
        dna.mutation_applied(
            snapshot_id=number,
            agent_id="x",
            version=number,
            parent_snapshot_id=number - 1,
            mutation_keys=["a"],
            traits_delta={"t": 0.5},
            created_at=1.5e9 + number,
        )
        dna.karma_updated(
            snapshot_id=number, agent_id="x", version=number, karma_score=0.25 * number, updated_at=1.5e9 + number + 1
        )
    await out.write(database)
    with ExperimentDatabase(database) as db:
        found = db.open_simulation("external").dna
        assert [(each.snapshot_id, each.source) for each in found.snapshots("x")] == [
            (1, "manual"), (2, "mutation"), (3, "mutation")
        ]  # fmt: skip
        assert list(found.snapshots("y")) == []
        assert [each.traits_delta for each in found.mutations("x")] == [{"t": 0.5}, {"t": 0.5}]
        assert [each.karma_score for each in found.best(1)] == [0.75]
        assert [each.snapshot_id for each in found.scores(agent_id="x")] == [2, 3]
        assert [each.karma_score for each in found.scores(2)] == [0.5]
        assert [each.snapshot_id for each in found.ancestors(3)] == [2, 1]
        assert found.ancestors(99) == []


async def test_outputs_are_read_with_their_sources(database):
    moment = "2025-01-01T00:00:00Z"
    multi = {
        "event_id": "m1", "timestamp": moment, "event_type": "MULTI_ORIGINATED", "source_events": ["s1", "s2"],
        "correlation_rule": "pair", "integrated_value": 2.0, "confidence": 0.5, "metadata": {"x": 1},
        "lineage": {
            "axon_1": {"event_id": "s1", "timestamp": moment, "topic": "mono.axon_1", "partition": 0, "offset": 4},
            "axon_2": {"event_id": "s2", "timestamp": moment, "topic": "mono.axon_2", "partition": 1, "offset": 5},
        },
    }  # fmt: skip
    alerts = [
        {"alert_id": f"a{n}", "timestamp": moment, "rule": "pair", "severity": kind, "message": "!",
         "multi_event_id": "m1"}
        for n, kind in enumerate(["critical", "info", "info"])
    ]  # fmt: skip
    letter = {"letter_id": "l1", "reason": "no JSON", "stage": "decode", "topic": "mono.x", "partition": 0, "offset": 9}
    sink = SqlSink(database, now_us=lambda: START_US)
    await sink.open()
    for kind, records in (("multi_events", [multi]), ("alerts", alerts), ("dead_letters", [letter])):
        assert await sink.write([SourcedRecords(kind, records, kind, 0, 0)]) == []
    await sink.close()
    with ExperimentDatabase(database) as db:
        found = OutputRepository(db.engine)
        assert found.alert_counts() == {("pair", "critical"): 1, ("pair", "info"): 2}
        (alert,) = found.alerts(severity="critical")
        event = found.multi_event(alert.multi_event_id)
        assert (event.integrated_value, event.confidence, event.details) == (2.0, 0.5, {"x": 1})
        assert [(each.source_topic, each.source_offset) for each in found.sources(event.event_id)] == [
            ("mono.axon_1", 4), ("mono.axon_2", 5)
        ]  # fmt: skip
        assert [each.event_id for each in found.multi_events("pair")] == ["m1"]
        assert list(found.multi_events("other")) == list(found.alerts(rule="other")) == []
        assert [(each.reason, each.source_offset) for each in found.dead_letters(stage="decode")] == [("no JSON", 9)]
