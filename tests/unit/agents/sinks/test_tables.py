"""Your own tables: what is refused, and what an SQL sink creates and writes."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from sqlalchemy import BigInteger, Column, Float, MetaData, String, Table

from astrocyte import Frame
from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.sql.targets import TABLES, register_table
from astrocyte.schemas.errors import InvalidSettings


@pytest.fixture
def table():
    made = Table(
        "test_humidity", MetaData(), Column("simulation_id", String(64), primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False), Column("timestamp", BigInteger),
        Column("key", String(40)), Column("value", Float),
    )  # fmt: skip
    register_table("test_humidity", made)
    yield made
    # Another test's database must not get this table too.
    TABLES._registered.pop("test_humidity")
    TABLES._loaded.pop("test_humidity", None)


async def test_an_own_table_is_made_and_a_batch_written_again_changes_nothing(table, tmp_path):
    columns = {"timestamp": np.array([1_000_000, 2_000_000]), "key": ["a", "b"], "value": [0.5, 0.25]}
    batch = [SourcedFrame(Frame.from_columns("test_humidity", "run-1", columns), "mono.test_humidity", 0, 3)]
    for _ in range(2):
        sink = SqlSink(f"sqlite:///{tmp_path / 'own.db'}", now_us=lambda: 1)
        await sink.open()
        assert await sink.write(batch) == []
        assert await sink.write(batch) == []
        await sink.close()
    with closing(sqlite3.connect(tmp_path / "own.db")) as connection:
        rows = connection.execute("SELECT * FROM test_humidity ORDER BY id").fetchall()
    assert rows == [("run-1", 0, 1_000_000, "a", 0.5), ("run-1", 1, 2_000_000, "b", 0.25)]


def test_a_table_without_a_primary_key_or_of_a_shipped_stream_is_refused():
    bare = Table("test_bare", MetaData(), Column("value", Float))
    with pytest.raises(InvalidSettings, match="'test_bare' has no primary key"):
        register_table("test_bare", bare)
    keyed = Table("test_keyed", MetaData(), Column("id", BigInteger, primary_key=True))
    with pytest.raises(InvalidSettings, match="there is a table 'agent_states' already"):
        register_table("agent_states", keyed)
