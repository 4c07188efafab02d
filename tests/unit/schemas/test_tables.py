"""The tables have the documented names and columns, on every database."""

import numpy as np
import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable

from astrocyte.schemas.errors import InvalidEvent
from astrocyte.schemas.tables import (
    AgentModel,
    AgentStateModel,
    Base,
    KernelGeometry,
    ResourceModel,
    Simulation,
    Vector,
    resource_state_id,
)

SEED_001 = {
    "agents": "agent_id birth_time death_time agent_type position_x position_y initial_resources starting_health "
    "starvation_threshold genome_id generation",
    "agent_states": "id step_number agent_id position_x position_y position_z resource_level current_health "
    "is_defending total_reward age",
    "resource_states": "id step_number resource_id amount position_x position_y",
    "simulation_steps": "step_number total_agents system_agents independent_agents control_agents total_resources "
    "average_agent_resources births deaths current_max_generation resource_efficiency resource_distribution_entropy "
    "average_agent_health average_agent_age average_reward combat_encounters successful_attacks resources_shared "
    "genetic_diversity dominant_genome_ratio resources_consumed",
    "agent_actions": "action_id step_number agent_id action_type action_target_id state_before_id state_after_id "
    "resources_before resources_after reward details",
    "learning_experiences": "experience_id step_number agent_id module_type module_id action_taken "
    "action_taken_mapped reward",
    "health_incidents": "incident_id step_number agent_id health_before health_after cause details",
    "simulation_config": "config_id timestamp config_data",
    "simulations": "simulation_id start_time end_time status parameters results_summary simulation_db_path",
    "experiments": "experiment_id name description hypothesis status variables results_summary",
}
OURS = "kernel_geometry war_history cells cell_genomes problem_results evolutionary_events dna_snapshots dna_mutations "
OURS += "karma_scores multi_events multi_event_sources alerts audit_log dead_letters"
LENGTHS = {
    ("agents", "agent_id"): 64,
    ("agents", "agent_type"): 50,
    ("agents", "genome_id"): 64,
    ("agent_states", "id"): 128,
    ("agent_actions", "action_type"): 20,
    ("agent_actions", "state_before_id"): 128,
    ("agent_actions", "details"): 1024,
    ("learning_experiences", "module_type"): 50,
    ("learning_experiences", "module_id"): 64,
    ("learning_experiences", "action_taken_mapped"): 20,
    ("health_incidents", "cause"): 50,
    ("health_incidents", "details"): 512,
    (
        "simulation_config",
        "config_data",
    ): None,  # documented with 4096; one with many plants is longer, and is kept whole
    ("simulations", "status"): 50,
    ("simulations", "simulation_db_path"): 255,
    ("kernel_geometry", "domain"): 128,
}
INDEXES = {
    "agents": ("agent_type", "birth_time", "death_time"),
    "agent_states": ("agent_id", "step_number"),
    "resource_states": ("step_number", "resource_id"),
    "agent_actions": ("step_number", "agent_id", "action_type"),
    "learning_experiences": ("step_number", "agent_id", "module_type"),
    "health_incidents": ("step_number", "agent_id"),
}
REFERENCES = {
    ("agent_states", "agent_id", "agents"),
    ("agent_actions", "agent_id", "agents"),
    ("agent_actions", "action_target_id", "agents"),
    ("agent_actions", "state_before_id", "agent_states"),
    ("agent_actions", "state_after_id", "agent_states"),
    ("health_incidents", "agent_id", "agents"),
    ("learning_experiences", "agent_id", "agents"),
    ("simulations", "experiment_id", "experiments"),
}


def test_every_documented_table_and_column_exists():
    for table, columns in SEED_001.items():
        assert set(columns.split()) <= set(Base.metadata.tables[table].c.keys()), table
    assert set(OURS.split()) <= set(Base.metadata.tables)


def test_every_data_table_has_its_simulation():
    without = {name for name, table in Base.metadata.tables.items() if "simulation_id" not in table.c}
    assert without == {"experiments", "sink_positions"}


@pytest.mark.parametrize(("place", "length"), LENGTHS.items())
def test_strings_have_the_documented_lengths(place, length):
    table, column = place
    assert Base.metadata.tables[table].c[column].type.length == length


@pytest.mark.parametrize(("table", "columns"), INDEXES.items())
def test_the_documented_indexes_exist(table, columns):
    # In addition to the simulation, which every query names.
    found = Base.metadata.tables[table].indexes
    indexed = {next(column.name for column in index.columns if column.name != "simulation_id") for index in found}
    assert set(columns) <= indexed


def test_the_documented_references_are_foreign_keys():
    found = {
        (table.name, constraint.column_keys[0], constraint.referred_table.name)
        for table in Base.metadata.tables.values()
        for constraint in table.foreign_key_constraints
    }
    assert found >= REFERENCES


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect(), mysql.dialect()], ids=lambda d: d.name)
def test_the_ddl_compiles(dialect):
    for table in Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
    kernel = str(CreateTable(KernelGeometry.__table__).compile(dialect=dialect))
    assert ("VECTOR(8)" in kernel) == (dialect.name == "postgresql")


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    Base.metadata.create_all(engine)
    with Session(engine) as made:
        yield made
    engine.dispose()


def test_ids_that_follow_from_other_columns_may_be_left_out(session):
    session.add(Simulation(simulation_id="s"))
    session.flush()
    session.add(AgentModel(simulation_id="s", agent_id="a"))
    session.flush()
    state = AgentStateModel(simulation_id="s", agent_id="a", step_number=3)
    resource = ResourceModel(simulation_id="s", step_number=3, resource_id=9, amount=1.0)
    session.add_all([state, resource])
    session.commit()
    assert state.id == "a-3"
    assert resource.id == resource_state_id(3, 9) == (3 << 31) + 9


def test_vectors_and_lists_of_strings_round_trip(session):
    session.add(Simulation(simulation_id="s"))
    session.flush()
    basin = np.arange(8) / 8
    kernel = KernelGeometry(
        simulation_id="s", kernel_id="k", basin_coordinates=basin, parent_kernels=["a", 'b"'], god_name="Zeus"
    )
    session.add(kernel)
    session.commit()
    session.expire_all()
    found = session.get(KernelGeometry, ("k", "s"))
    assert found.basin_coordinates.tolist() == basin.astype(np.float32).tolist()
    assert found.parent_kernels == ["a", 'b"']
    assert (found.generation, found.success_count, found.failure_count) == (0, 0, 0)
    assert found.spawned_at is not None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0] * 7, r"expected a vector of 8 numbers, got one of shape \(7,\)"),
        ([1.0] * 7 + [float("nan")], "holds nan"),
        ([[1.0] * 8], "shape"),
    ],
)
def test_a_vector_of_another_size_or_not_finite_is_refused(value, reason):
    with pytest.raises(InvalidEvent, match=reason):
        Vector(8).as_array(value)
