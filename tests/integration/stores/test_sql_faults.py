"""Faults of SQL databases: a clear message, nothing lost, nothing stored twice."""

import asyncio
import shutil
import sqlite3

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from astrocyte.agents.sinks.base import SinkError, SinkStopped, SourcedFrame, SourcedRecords
from astrocyte.agents.sinks.retry import RetryPolicy
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.migrate import NewerDatabase, OlderDatabase, upgrade
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.sql.url import open_store
from astrocyte.agents.sinks.testing import alert, multi_event, results
from astrocyte.schemas.frames import Frame


class RetryNotices(list):
    """Records retry notices, and repairs the cause at the given attempt instead of waiting."""

    def __init__(self, mend=lambda: None, at: int = 1):
        self.mend, self.at = mend, at

    def retry(self) -> RetryPolicy:
        return RetryPolicy("sql", on_retry=self.append, sleep=self.sleep)

    async def sleep(self, wait_s: float):
        if self[-1].attempt == self.at:
            await asyncio.to_thread(self.mend)
        assert len(self) < 10, self


def sink_on(url, retry=None):
    return SqlSink(str(url), now_us=lambda: 1, retry=retry)


def count(url: str, table: str = "problem_results") -> int:
    engine = engine_of(url)
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()


def run(url: str, statement: str):
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text(statement))


def the_batch(**columns):
    frame = results(rows=20)
    for name, values in columns.items():
        index = frame.batch.schema.get_field_index(name)
        batch = frame.batch.set_column(index, name, values)
        frame = Frame(frame.stream, frame.run, batch)
    return [SourcedFrame(frame, "mono.problem_solving", 0, 5)]


async def test_a_locked_database_is_waited_for(tmp_path):
    path = tmp_path / "data.db"
    upgrade(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    notices = RetryNotices(lambda: other.execute("ROLLBACK"), at=2)
    sink = sink_on(path, notices.retry())
    await sink.open()
    other.execute("BEGIN IMMEDIATE")
    assert await sink.write(the_batch()) == []
    await sink.close()
    other.close()
    assert count(str(path)) == 20
    assert [notice.attempt for notice in notices] == [1, 2, 0]
    assert "locked by another writer" in notices[0].reason
    assert str(path) in notices[0].reason


async def test_a_full_disk_is_waited_for_and_nothing_of_the_batch_stays(tmp_path):
    path = tmp_path / "data.db"
    notices = RetryNotices(lambda: seen.append(count(str(path))))
    seen = []
    sink = sink_on(path, notices.retry())
    await sink.open()
    await sink.write(the_batch())
    pages = sink.store.query("PRAGMA page_count")[0][0]
    sink.store.query(f"PRAGMA max_page_count={pages}")
    many = [SourcedFrame(results(rows=5_000, first_seq=100), "mono.problem_solving", 0, 6)]
    assert await sink.write(many) == []
    await sink.close()
    assert seen == [20]
    assert count(str(path)) == 5_020
    assert "the disk is full" in notices[0].reason


async def test_a_server_restarted_in_a_batch_loses_and_doubles_nothing(own_postgres):
    notices = RetryNotices(own_postgres.start, at=2)
    sink = sink_on(own_postgres.url, notices.retry())
    await sink.open()
    await sink.write(the_batch())
    upsert, calls = sink.store.upsert, []

    def upsert_then_stop(rows):
        upsert(rows)
        calls.append(rows.target.table.name)
        if len(calls) == 2:
            own_postgres.stop("immediate")

    sink.store.upsert = upsert_then_stop
    batch = [SourcedFrame(results("run-2", rows=500), "mono.problem_solving", 0, 6)]
    assert await sink.write(batch) == []
    await sink.close()
    assert len(calls) > 3, "the server was stopped in the middle"
    assert [notice.attempt for notice in notices] == [1, 2, 0]
    assert count(own_postgres.url) == 520
    assert count(own_postgres.url, "simulations") == 2


async def test_a_server_that_is_unavailable_at_the_start_is_waited_for(own_postgres):
    own_postgres.stop()
    notices = RetryNotices(own_postgres.start)
    sink = sink_on(own_postgres.url, notices.retry())
    await sink.open()
    assert await sink.write(the_batch()) == []
    await sink.close()
    assert f"127.0.0.1:{own_postgres.port}" in notices[0].reason


async def test_a_standby_is_waited_for_until_it_is_promoted(postgres):
    database = postgres.rpartition("/")[2]
    sessions = f"ALTER DATABASE {database} SET default_transaction_read_only"
    notices = RetryNotices(lambda: run(f"{postgres}?options=-cdefault_transaction_read_only=off", f"{sessions} = off"))
    upgrade(postgres)
    run(postgres, f"{sessions} = on")
    sink = sink_on(postgres, notices.retry())
    await sink.open()
    assert await sink.write(the_batch()) == []
    await sink.close()
    assert count(postgres) == 20
    assert "read-only transaction" in notices[0].reason


async def test_a_stopped_sink_ends_and_reports_that_nothing_was_confirmed(tmp_path):
    path = tmp_path / "data.db"
    retry = RetryPolicy("sql", on_retry=lambda notice: retry.stop.set())
    sink = sink_on(path, retry)
    await sink.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SinkStopped, match="nothing of the batch was confirmed") as caught:
        await sink.write(the_batch())
    assert caught.value.retriable
    other.close()
    await sink.close()
    assert count(str(path)) == 0


async def test_a_row_that_breaks_a_constraint_is_rejected_alone(database):
    upgrade(database)
    if database.startswith("sqlite"):
        run(
            database,
            "CREATE TRIGGER no_thirteen BEFORE INSERT ON problem_results WHEN NEW.id = 13 "
            "BEGIN SELECT RAISE(ABORT, 'thirteen is not allowed'); END",
        )
    else:
        run(database, "ALTER TABLE problem_results ADD CONSTRAINT no_thirteen CHECK (id <> 13)")
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write(the_batch())
    again = await sink.write(the_batch())
    await sink.close()
    assert rejected == again
    (row,) = rejected
    assert (row.stream, row.topic, row.partition, row.offset, row.row) == (
        "problem_solving",
        "mono.problem_solving",
        0,
        5,
        13,
    )
    assert "thirteen" in row.reason
    assert b'"cell_id":6' in row.payload
    assert row.key == b"island-1"
    assert count(database) == 19


def with_value(name: str, kind: pa.DataType, values: list, row: int, bad):
    return {name: pa.array([bad if index == row else value for index, value in enumerate(values)], kind)}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (with_value("accuracy", pa.float32(), [0.5] * 20, 3, float("nan")), "'accuracy' holds NaN"),
        (with_value("accuracy", pa.float32(), [0.5] * 20, 3, float("-inf")), "'accuracy' holds NaN or an infinity"),
        (with_value("problem_type", pa.utf8(), ["a"] * 20, 3, "a\0b"), "the character NUL"),
        (with_value("problem_type", pa.utf8(), ["a"] * 20, 3, "é" * 51), "more than 50 characters"),
        (with_value("cell_id", pa.int64(), [1] * 20, 3, None), "'cell_id' is null"),
    ],
)
async def test_a_value_that_cannot_be_stored_rejects_its_row_alone(database, columns, reason):
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write(the_batch(**columns))
    await sink.close()
    assert [(row.row, row.offset) for row in rejected] == [(3, 5)]
    assert reason in rejected[0].reason
    assert count(database) == 19


async def test_numbers_out_of_a_columns_range_are_rejected_on_every_database(database):
    events = [multi_event(0), multi_event(1), multi_event(2)]
    events[1]["lineage"]["axon_1"]["partition"] = 2**31
    events[2]["lineage"]["axon_1"]["offset"] = 2**70
    batch = [SourcedRecords("multi_events", events, "multi.events", 1, 10)]
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write(batch)
    await sink.close()
    assert [(row.offset, row.row) for row in rejected] == [(11, None), (12, None)]
    assert "out of its range" in rejected[0].reason
    assert "'source_offset'" in rejected[1].reason
    assert (count(database, "multi_events"), count(database, "multi_event_sources")) == (1, 2)


async def test_a_record_with_missing_or_wrong_fields_is_rejected_with_the_reason(database):
    broken = [
        alert(0),
        {"alert_id": "x"},
        alert(2) | {"timestamp": "yesterday"},
        alert(3) | {"message": None},
        alert(4),
    ]
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write([SourcedRecords("alerts", broken, "alerts", 0, 100)])
    await sink.close()
    assert [row.offset for row in rejected] == [101, 102, 103]
    assert "'timestamp' is missing" in rejected[0].reason
    assert "yesterday" in rejected[1].reason
    assert "'message' is null" in rejected[2].reason
    assert count(database, "alerts") == 2


async def test_a_frame_whose_fields_were_retyped_is_rejected_row_by_row(database):
    frame = Frame.from_columns(
        "problem_solving", "run-1", {"timestamp": [1, 2], "key": ["k", "k"], "cell_id": ["one", "two"]}
    )
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write([SourcedFrame(frame, "mono.problem_solving", 0, 0), *the_batch()])
    await sink.close()
    assert [row.row for row in rejected] == [0, 1]
    assert "'cell_id'" in rejected[0].reason
    assert count(database) == 20


async def test_an_over_long_run_id_is_rejected_and_others_are_stored(database):
    long = SourcedFrame(results("r" * 65, rows=2), "mono.problem_solving", 0, 1)
    sink = sink_on(database)
    await sink.open()
    rejected = await sink.write([long, *the_batch()])
    await sink.close()
    assert ["'simulation_id'" in row.reason for row in rejected] == [True, True]
    assert count(database) == 20


async def test_removed_parent_rows_are_created_again(database):
    columns = {"timestamp": np.arange(3), "key": ["r"] * 3, "step_number": np.arange(3), "agent_id": np.arange(3)}
    sink = sink_on(database)
    await sink.open()
    await sink.write([SourcedFrame(Frame.from_columns("agent_states", "run-1", columns), "mono.agent_states", 0, 0)])
    run(database, "DELETE FROM agent_states")
    run(database, "DELETE FROM agents")
    later = columns | {"step_number": np.arange(3) + 9}
    rejected = await sink.write(
        [SourcedFrame(Frame.from_columns("agent_states", "run-1", later), "mono.agent_states", 0, 1)]
    )
    await sink.close()
    assert rejected == []
    assert count(database, "agents") == 3


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("", "an empty database address"),
        ("oracle://host/db", "database 'oracle' is not supported"),
        ("http://example.org/db", "database 'http' is not supported"),
        ("sqlite:/x://y z", "invalid database address"),
        ("postgresql://", "has no host"),
        ("sqlite:///{folder}/absent/data.db", "absent of the database data.db does not exist"),
        ("{folder}", "is a folder"),
    ],
)
async def test_a_wrong_address_is_one_clear_error(tmp_path, address, wanted):
    with pytest.raises(SinkError, match=wanted):
        await sink_on(address.format(folder=tmp_path)).open()


async def test_a_file_that_is_not_a_database_is_one_clear_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and no database\n" * 100)
    with pytest.raises(SinkError, match=r"notes\.txt: file is not a database"):
        await sink_on(path).open()
    assert path.read_text().startswith("these are notes")


async def test_a_database_that_the_server_does_not_have_is_one_clear_error(postgres_address):
    with pytest.raises(SinkError, match='database "absent" does not exist'):
        await sink_on(postgres_address.rpartition("/")[0] + "/absent").open()


async def test_a_database_of_a_newer_version_is_not_changed(database):
    upgrade(database)
    run(database, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerDatabase, match=r"at revision 9999, .* upgrade astrocyte"):
        await sink_on(database).open()
    with pytest.raises(NewerDatabase):
        await SqlSink(database, now_us=lambda: 1, migrate=False).open()


async def test_an_older_database_is_an_error_where_its_upgrade_is_not_allowed(database):
    upgrade(database, "0001")
    with pytest.raises(OlderDatabase, match="run `astrocyte db upgrade`"):
        await SqlSink(database, now_us=lambda: 1, migrate=False).open()


async def test_a_sink_must_be_opened(tmp_path):
    with pytest.raises(SinkError, match="await open"):
        await sink_on(tmp_path / "data.db").write(the_batch())


@pytest.mark.parametrize("what", ["database", "folder", "replaced", "log"])
async def test_a_database_that_is_deleted_under_a_sink_ends_it_with_one_error(tmp_path, what):
    path = tmp_path / "data" / "a.db"
    path.parent.mkdir()
    sink = sink_on(f"sqlite:///{path}")
    await sink.open()
    await sink.write(the_batch())
    if what == "folder":
        shutil.rmtree(path.parent)
    elif what == "log":
        path.with_name("a.db-wal").unlink()
    else:
        path.unlink()
        if what == "replaced":
            path.write_bytes(b"")
    again = [SourcedFrame(results(rows=20, first_seq=20), "mono.problem_solving", 0, 6)]
    for _ in range(2):
        with pytest.raises(SinkError, match=r"a\.db(-wal)? was deleted or replaced .* Nothing of this batch"):
            await sink.write(again)
    await sink.close()
    if what != "log":
        assert not path.exists() or path.read_bytes() == b"", "no new database is begun without a word"


async def test_a_database_that_is_deleted_while_it_is_unavailable_is_not_begun_anew(tmp_path):
    path = tmp_path / "a.db"
    notices = RetryNotices(path.unlink)
    sink = sink_on(f"sqlite:///{path}", notices.retry())
    await sink.open()
    await sink.write(the_batch())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    again = [SourcedFrame(results(rows=20, first_seq=20), "mono.problem_solving", 0, 6)]
    with pytest.raises(SinkError, match="was deleted or replaced"):
        await sink.write(again)
    other.close()
    await sink.close()
    assert not path.exists()
    assert notices[0].attempt == 1


def test_a_commit_to_sqlite_is_on_disk_before_it_counts(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    store.connect()
    try:
        found = [store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    finally:
        store.disconnect()
    assert found == [2, "wal"]  # FULL: SQLite syncs its log with each commit


async def test_a_new_database_is_for_its_owner_only(tmp_path):
    path = tmp_path / "a.db"
    sink = sink_on(f"sqlite:///{path}")
    await sink.open()
    try:
        assert {each.stat().st_mode & 0o777 for each in tmp_path.glob("a.db*")} == {0o600}
    finally:
        await sink.close()


async def test_records_of_several_chunks_are_stored_and_refused_by_their_own_places(database):
    chunks = [
        [multi_event(0), multi_event(1)],
        [multi_event(2) | {"timestamp": "yesterday"}],
        [multi_event(3), multi_event(1) | {"status": "retracted"}],
    ]
    batch = [
        SourcedRecords("multi_events", records, "multi.events", part, 10 * part) for part, records in enumerate(chunks)
    ]
    batch.insert(1, SourcedRecords("alerts", [alert(0)], "alerts", 0, 5))
    sink = sink_on(database)
    await sink.open()
    refused = await sink.write(batch)
    await sink.close()
    assert [(row.topic, row.partition, row.offset) for row in refused] == [("multi.events", 1, 10)]
    assert count(database, "multi_events") == 3
    assert count(database, "alerts") == 1
    engine = engine_of(database)
    with engine.connect() as connection:
        status = connection.execute(
            text("SELECT status FROM multi_events WHERE event_id = :id"), {"id": multi_event(1)["event_id"]}
        ).scalar()
    assert status == "retracted"
