"""Every stream of the catalog that has a table, on every database: values are stored unchanged."""

from datetime import datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, inspect, select, text

from astrocyte.agents.sinks.base import SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.sql.targets import STREAM_TARGETS
from astrocyte.agents.sinks.testing import alert, multi_event
from astrocyte.agents.stores.repositories.outputs import OutputRepository
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.frames import Frame
from astrocyte.schemas.tables import AgentModel, Base, KernelGeometry, Simulation
from astrocyte.schemas.topics import metrics_topic

START_US = 1_735_689_600_000_000
TABLE_OF = {
    "cell_vitals": "cells",
    "genome_data": "cell_genomes",
    "problem_solving": "problem_results",
    "dna.snapshot_created": "dna_snapshots",
    "dna.mutation_applied": "dna_mutations",
    "dna.karma_updated": "karma_scores",
    "axon_1": "spikes",
    "axon_2": "spikes",
    "axon_3": "spikes",
}


def values_of(kind: str, name: str, rows: int):
    index = np.arange(rows)
    match kind:
        case "int64":
            return index + 1
        case "int32":
            return (index + 1).astype(np.int32)
        case "float64":
            return index + 0.1
        case "float32":
            return (index + 0.1).astype(np.float32)
        case "bool":
            return index % 2 == 0
        case "string":
            return ["run-1"] * rows if name == "simulation_id" else [f"{name[:8]}-{number}" for number in index]
        case "json":
            return pa.array(['["7", "8"]'] * rows, pa.utf8())
        case "list<float32>":
            return pa.array(np.eye(8, dtype=np.float32)[index % 8].tolist(), pa.list_(pa.float32()))
    raise AssertionError(kind)


def frame_of(stream: str, rows: int = 5, run: str = "run-1", **given) -> Frame:
    event_type = CATALOG[stream]
    columns = {name: values_of(kind, name, rows) for name, kind in event_type.fields.items()}
    columns |= {"timestamp": START_US + np.arange(rows), "key": ["k"] * rows, "type": [event_type.types[0]] * rows}
    return Frame.from_columns(stream, run, columns | given)


def sourced(frame: Frame, offset: int = 0) -> SourcedFrame:
    return SourcedFrame(frame, f"mono.{frame.stream}", 0, offset)


async def written(database: str, *batches):
    sink = SqlSink(database, now_us=lambda: 1_000)
    await sink.open()
    rejected = [row for batch in batches for row in await sink.write(batch)]
    await sink.close()
    return rejected


def rows_of(database: str, table: str):
    engine = engine_of(database)
    with engine.connect() as connection:
        found = connection.execute(select(Base.metadata.tables[table])).mappings().all()
    return [dict(row) for row in found]


def broken_keys(database: str):
    """Rows that refer to missing rows, found with the declared foreign keys."""
    engine = engine_of(database)
    broken = []
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        for table in inspect(connection).get_table_names():
            for key in inspect(connection).get_foreign_keys(table):
                on = " AND ".join(
                    f"c.{child} = p.{parent}"
                    for child, parent in zip(key["constrained_columns"], key["referred_columns"], strict=True)
                )
                set_ = " AND ".join(f"c.{child} IS NOT NULL" for child in key["constrained_columns"])
                found = f"SELECT 1 FROM {key['referred_table']} p WHERE {on}"
                query = f"SELECT count(*) FROM {table} c WHERE {set_} AND NOT EXISTS ({found})"
                if connection.scalar(text(query)):
                    broken.append((table, key))
    return broken


async def test_every_stream_with_a_table_is_stored_with_all_its_fields(database):
    batch = [sourced(frame_of(stream)) for stream in STREAM_TARGETS]
    assert await written(database, batch, batch) == []
    for stream in STREAM_TARGETS:
        table = TABLE_OF.get(stream, stream)
        rows = rows_of(database, table)
        fields = [name for name in CATALOG[stream].fields if name in Base.metadata.tables[table].c]
        assert set(fields) == set(CATALOG[stream].fields), f"{table} lacks a field of {stream}"
        if table == "spikes":
            rows = [row for row in rows if row["axon"] == stream]
        full = [row for row in rows if all(row[name] is not None for name in fields)]
        assert len(full) == 5, stream
        assert all(row["simulation_id"] == "run-1" for row in rows)
    assert broken_keys(database) == []


async def test_values_arrive_unchanged(database):
    basins = [[0.5, 0.25, 0, 0, 0, 0, 0, 1], None]
    kernels = frame_of(
        "kernel_geometry",
        2,
        basin_coordinates=pa.array(basins, pa.list_(pa.float32())),
        parent_kernels=pa.array(['["1","2"]', None], pa.utf8()),
        spawned_at=[START_US, None],
        god_name=['Ze"us, \\ the\nfirst', "Ἀθηνᾶ"],
    )
    states = frame_of("agent_states", 2, total_reward=pa.array([0.1, None], pa.float32()), agent_id=[17, 18])
    mutations = frame_of("dna.mutation_applied", 1, traits_delta=pa.array(['{"creativity":0.1}'], pa.utf8()))
    assert await written(database, [sourced(kernels), sourced(states), sourced(mutations)]) == []
    first, second = sorted(rows_of(database, "kernel_geometry"), key=lambda row: row["kernel_id"])
    assert (first["kernel_id"], first["god_name"]) == ("1", 'Ze"us, \\ the\nfirst')
    assert first["basin_coordinates"].tolist() == basins[0]
    assert first["parent_kernels"] == ["1", "2"]
    assert first["spawned_at"] == datetime(2025, 1, 1)
    assert (second["god_name"], second["basin_coordinates"], second["parent_kernels"]) == ("Ἀθηνᾶ", None, None)
    state = rows_of(database, "agent_states")[0]
    assert (state["id"], state["agent_id"], state["step_number"]) == ("17-1", "17", 1)
    assert state["total_reward"] == pytest.approx(float(np.float32(0.1)), abs=0)
    assert rows_of(database, "agent_states")[1]["total_reward"] is None
    assert rows_of(database, "dna_mutations")[0]["traits_delta"] == {"creativity": 0.1}
    assert rows_of(database, "dna_snapshots")[0]["source"] == "mutation"


async def test_a_state_before_its_agents_birth_makes_a_placeholder_that_the_birth_fills(database):
    states, births = frame_of("agent_states"), frame_of("agents", death_time=pa.nulls(5, pa.int64()))
    deaths = frame_of("agents", birth_time=pa.nulls(5, pa.int64()), death_time=np.full(5, 99), type=["died"] * 5)
    assert await written(database, [sourced(deaths)], [sourced(states)], [sourced(births)]) == []
    engine = engine_of(database)
    with engine.connect() as connection:
        found = connection.execute(select(AgentModel.birth_time, AgentModel.death_time)).all()
    assert sorted(found) == [(birth, 99) for birth in range(1, 6)]
    assert broken_keys(database) == []


async def test_a_kernel_that_is_known_from_a_war_alone_has_no_date_of_birth_until_its_own_event(database):
    wars, kernels = frame_of("war_history"), frame_of("kernel_geometry", spawned_at=np.full(5, START_US))
    assert await written(database, [sourced(wars)]) == []
    found = rows_of(database, "kernel_geometry")
    assert {row["spawned_at"] for row in found} == {None}
    assert await written(database, [sourced(kernels)]) == []
    born = {row["spawned_at"] for row in rows_of(database, "kernel_geometry") if row["status"] is not None}
    assert born == {datetime(2025, 1, 1)}


async def test_birth_and_death_in_one_batch_are_one_agent(database):
    births = frame_of("agents", death_time=pa.nulls(5, pa.int64()))
    deaths = frame_of("agents", death_time=np.full(5, 99), type=["died"] * 5)
    assert await written(database, [sourced(births), sourced(deaths, 1)]) == []
    assert {row["death_time"] for row in rows_of(database, "agents")} == {99}


async def test_two_simulations_in_one_database_never_mix(database):
    batch = [
        sourced(frame_of(stream, run=run))
        for run in ("run-1", "run-2")
        for stream in STREAM_TARGETS
        if stream not in ("simulation_steps", "population_metrics")
    ]
    assert await written(database, batch) == []
    for stream in STREAM_TARGETS:
        if stream not in ("simulation_steps", "population_metrics"):
            rows = rows_of(database, TABLE_OF.get(stream, stream))
            counts = {run: sum(row["simulation_id"] == run for row in rows) for run in ("run-1", "run-2")}
            assert counts["run-1"] == counts["run-2"] >= 5, stream


async def test_an_older_vital_sign_does_not_replace_a_newer_one(database):
    newer = frame_of("cell_vitals", 1, timestamp=[START_US + 10], energy=np.array([2.0], np.float32))
    older = frame_of("cell_vitals", 1, timestamp=[START_US], energy=np.array([1.0], np.float32))
    assert await written(database, [sourced(newer)], [sourced(older)]) == []
    assert [row["energy"] for row in rows_of(database, "cells")] == [2.0]


async def test_a_run_has_a_row_from_its_first_event_and_an_end(database):
    first = frame_of("agent_states", 2)
    last = Frame("agent_states", "run-1", first.batch.slice(0, 0), end=True, watermark_us=START_US + 500)
    sink = SqlSink(database, now_us=lambda: 1_000, experiment_id="exp-1")
    await sink.open()
    await sink.write([sourced(first)])
    engine = engine_of(database)
    with engine.connect() as connection:
        begun = connection.execute(select(Simulation.status, Simulation.start_time, Simulation.experiment_id)).one()
    assert begun == ("running", datetime(2025, 1, 1), "exp-1")
    await sink.write([sourced(last, 1)])
    await sink.close()
    assert await written(database, [sourced(first)]) == [], "reading the start again does not reopen the run"
    with engine.connect() as connection:
        ended = connection.execute(select(Simulation.status, Simulation.end_time)).one()
    assert ended == ("completed", datetime(2025, 1, 1, 0, 0, 0, 500))


async def test_the_end_of_a_run_does_not_depend_on_what_is_read_with_it(database):
    rows = frame_of("agent_states", 2)
    last = Frame("agent_states", "run-1", rows.batch.slice(0, 0), end=True, watermark_us=START_US + 500)
    later = START_US + 50_000_000
    window = Frame.from_columns("w", "run-1", {"timestamp": [later], "key": ["k"], "type": ["w"], "n": [1.0],
                                               "window_start": [START_US], "window_end": [later]})  # fmt: skip
    assert await written(database, [sourced(last), SourcedFrame(window, metrics_topic("w"), 0, 0)]) == []
    with engine_of(database).connect() as connection:
        assert connection.execute(select(Simulation.end_time)).scalar() == datetime(2025, 1, 1, 0, 0, 0, 500)


async def test_a_described_run_keeps_its_experiment_parameters_and_configuration(database):
    record = {
        "simulation_id": "run-1",
        "experiment_id": "exp-9",
        "parameters": {"size": 100},
        "config": {"seed": 7},
    }
    described = [
        SourcedRecords("simulations", [record], "runs", 0, 0),
        SourcedRecords("experiments", [{"experiment_id": "exp-9", "hypothesis": "h"}], "runs", 0, 1),
    ]
    assert await written(database, described, [sourced(frame_of("agent_states"))], described) == []
    (run,) = rows_of(database, "simulations")
    assert (run["experiment_id"], run["parameters"], run["status"]) == ("exp-9", {"size": 100}, "running")
    (config,) = rows_of(database, "simulation_config")
    assert (config["config_id"], config["timestamp"], config["config_data"]) == (1, None, '{"seed":7}')


async def test_a_run_may_be_described_before_its_experiment(database):
    record = {"simulation_id": "run-1", "experiment_id": "exp-9", "config": {"seed": 7}, "timestamp": START_US + 5}
    named = {"experiment_id": "exp-9", "name": "ninth", "hypothesis": "h"}
    described = [SourcedRecords("simulations", [record], "runs", 0, 0)]
    assert await written(database, described, [SourcedRecords("experiments", [named], "runs", 0, 1)]) == []
    assert [run["experiment_id"] for run in rows_of(database, "simulations")] == ["exp-9"]
    assert [row["timestamp"] for row in rows_of(database, "simulation_config")] == [START_US + 5]
    (experiment,) = rows_of(database, "experiments")
    assert (experiment["name"], experiment["hypothesis"]) == ("ninth", "h")


async def test_json_records_without_a_run_belong_to_the_external_simulation(database):
    frame = frame_of("problem_solving", 3, run="", event_id=pa.array(["x", "y", "z"]))
    assert await written(database, [sourced(frame)], [sourced(frame)]) == []
    rows = rows_of(database, "problem_results")
    assert len(rows) == 3
    assert {row["simulation_id"] for row in rows} == {"external"}


@pytest.mark.parametrize("together", [True, False])
async def test_a_correction_updates_the_match_and_its_alert_and_repositories_leave_out_what_is_retracted(
    database, together
):
    states = (("provisional", 1), ("provisional", 2), ("confirmed", 1), ("retracted", 2), (None, 3))
    batches = []
    for offset, (status, number) in enumerate(states):
        more = {} if status is None else {"status": status, "provisional": str(status == "provisional").lower()}
        batches.append(
            [
                SourcedRecords("multi_events", [multi_event(number) | more], "multi.events", 0, offset),
                SourcedRecords("alerts", [alert(number) | more], "alerts", 0, offset),
            ]
        )
    assert await written(database, *([list(chain(*batches))] if together else batches)) == []
    wanted = ["confirmed", "retracted", "final"]
    found = sorted(rows_of(database, "multi_events"), key=lambda row: row["event_id"])
    assert [(row["status"], row["provisional"]) for row in found] == [(each, False) for each in wanted]
    found = sorted(rows_of(database, "alerts"), key=lambda row: row["alert_id"])
    assert [row["status"] for row in found] == wanted
    outputs = OutputRepository(engine_of(database))
    assert [each.status for each in outputs.multi_events()] == ["confirmed", "final"]
    assert [each.status for each in outputs.alerts()] == ["confirmed", "final"]
    assert sum(outputs.alert_counts().values()) == 2


async def test_a_replay_of_everything_changes_no_row_count(database):
    batch = [sourced(frame_of(stream)) for stream in STREAM_TARGETS]

    async def counts():
        engine = engine_of(database)
        with engine.connect() as connection:
            return {
                table: connection.scalar(select(func.count()).select_from(Base.metadata.tables[table]))
                for table in Base.metadata.tables
            }

    await written(database, batch)
    before = await counts()
    await written(database, *[[item] for item in reversed(batch)], batch, batch + batch)
    assert await counts() == before


def test_kernel_table_has_every_documented_column():
    seed = "kernel_id god_name domain primitive_root basin_coordinates parent_kernels phi kappa regime generation "
    seed += (
        "success_count failure_count element_group ecological_niche target_function valence breeding_target spawned_at"
    )
    assert set(seed.split()) <= set(KernelGeometry.__table__.c.keys())
