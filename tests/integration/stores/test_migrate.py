import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.migrate import NewerDatabase, check, current, head, upgrade
from astrocyte.schemas.tables import Base


def execute(database, *statements):
    with engine_of(database).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def ask(database, query):
    with engine_of(database).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def only_here(element, name, kind, reflected, compared):
    # The vector index exists on PostgreSQL only, and its operator class is not reflected.
    return not (kind == "index" and name == "ix_kernel_geometry_basin")


def test_models_and_migrations_agree(database):
    upgrade(database)
    with engine_of(database).connect() as connection:
        options = {"include_object": only_here, "compare_type": True, "compare_server_default": False}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_foreign_keys_and_primary_keys_of_migrations_are_those_of_the_models(database):
    upgrade(database)
    with engine_of(database).connect() as connection:
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            assert set(found.get_pk_constraint(name)["constrained_columns"]) == set(table.primary_key.columns.keys())
            keys = {tuple(key["constrained_columns"]) for key in found.get_foreign_keys(name)}
            assert keys == {tuple(key.column_keys) for key in table.foreign_key_constraints}, name


def test_the_vector_index_is_hnsw_on_postgresql(postgres):
    upgrade(postgres)
    (definition,) = ask(postgres, "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_kernel_geometry_basin'")
    assert "USING hnsw (basin_coordinates vector_cosine_ops)" in definition[0]


@pytest.mark.parametrize("step", ["0001", "0002"])
def test_an_older_database_is_upgraded_without_loss(database, step):
    assert upgrade(database, step) == step
    execute(
        database,
        "INSERT INTO simulations (simulation_id, status, parameters) VALUES ('run-1', 'running', '{\"a\": 1}')",
        "INSERT INTO multi_events (event_id, simulation_id, timestamp, event_type, correlation_rule, confidence) "
        "VALUES ('m1', 'run-1', 5, 'MULTI_ORIGINATED', 'rule', 0.5)",
        "INSERT INTO multi_event_sources (event_id, position, source_event_id) VALUES ('m1', 0, 'a'), ('m1', 1, 'b')",
        "INSERT INTO sink_positions VALUES ('sql', 'multi.events', 0, 7, 1)",
    )
    before = {
        table: ask(database, f"SELECT count(*) FROM {table}") for table in ("multi_event_sources", "sink_positions")
    }
    assert upgrade(database) == head()
    assert current(database) == head()
    assert ask(database, "SELECT simulation_id, status, experiment_id FROM simulations") == [("run-1", "running", None)]
    assert ask(database, "SELECT event_id, timestamp, confidence FROM multi_events") == [("m1", 5, 0.5)]
    assert before == {table: ask(database, f"SELECT count(*) FROM {table}") for table in before}
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        execute(
            database, "INSERT INTO multi_event_sources (event_id, position, source_event_id) VALUES ('absent', 0, 'a')"
        )


def test_a_configuration_of_a_database_before_the_wider_column_is_kept_and_a_long_one_fits(database):
    upgrade(database, "0004")
    insert = "INSERT INTO simulation_config (simulation_id, config_id, config_data) VALUES ('run-1', {}, '{}')"
    execute(database, "INSERT INTO simulations (simulation_id) VALUES ('run-1')", insert.format(1, "x" * 4096))
    upgrade(database)
    execute(database, insert.format(2, "y" * 100_000))
    assert ask(database, "SELECT length(config_data) FROM simulation_config ORDER BY config_id") == [
        (4096,),
        (100_000,),
    ]


def test_upgrading_again_changes_nothing(database):
    assert upgrade(database) == upgrade(database) == head()
    check(database)


def test_an_empty_database_has_no_version(database):
    assert current(database) is None


def test_a_failed_upgrade_leaves_the_database_as_it_was(tmp_path):
    database = f"sqlite:///{tmp_path}/data.db"
    upgrade(database, "0001")
    execute(database, "CREATE TABLE agents (x INTEGER)")
    with pytest.raises(SinkError, match=r"could not be upgraded: .*data.db: table agents already exists"):
        upgrade(database)
    assert current(database) == "0001"
    with engine_of(database).connect() as connection:
        assert "experiments" not in inspect(connection).get_table_names()


def test_a_database_of_another_program_is_not_changed(database):
    execute(database, "CREATE TABLE alerts (x INTEGER)")
    with pytest.raises(SinkError, match="tables alerts that astrocyte did not create"):
        upgrade(database)


def test_a_newer_database_is_not_changed(database):
    upgrade(database)
    execute(database, "UPDATE alembic_version SET version_num = 'abcd'")
    for work in (upgrade, check):
        with pytest.raises(NewerDatabase, match=r"revision abcd, which this program does not know"):
            work(database)


def test_a_password_is_not_shown(tmp_path):
    with pytest.raises(SinkError) as caught:
        upgrade("postgresql://user:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)
    assert "could not be upgraded" in str(caught.value)
