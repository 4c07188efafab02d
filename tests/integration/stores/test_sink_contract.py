import sqlalchemy as sa
from sqlalchemy import func, select

from astrocyte.agents.sinks.file import FileSink, read_lines
from astrocyte.agents.sinks.memory import MemorySink
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.testing import SinkUnderTest, check_sink
from astrocyte.schemas.tables import Base

TABLE_OF = {"problem_solving": "problem_results", "multi_events": "multi_events", "alerts": "alerts"}


def counts(url: str) -> dict[str, int]:
    engine = engine_of(url)
    with engine.connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(Base.metadata.tables[table]))
            for name, table in TABLE_OF.items()
        }


async def test_sql_sink_keeps_the_contract(database):
    async def count():
        return counts(database)

    await check_sink(lambda: SinkUnderTest(SqlSink(database, now_us=lambda: 1), count), unknown=True)
    engine = engine_of(database)
    with engine.connect() as connection:
        positions = dict(
            connection.execute(
                sa.text("SELECT topic || '/' || partition_number, next_offset FROM sink_positions ORDER BY 1")
            ).all()
        )
    assert positions == {
        "alerts/0": 23,
        "mono.problem_solving/0": 7,
        "mono.problem_solving/1": 10,
        "mono.unlisted/0": 4,
        "multi.events/0": 26,
    }


async def test_memory_sink_keeps_the_contract():
    sink = MemorySink()

    async def count():
        stored = {**sink.events, **sink.records}
        return {name: len(rows) for name, rows in stored.items()}

    await check_sink(lambda: SinkUnderTest(sink, count), unknown=True)


async def test_file_sink_keeps_the_contract_over_rotations(tmp_path):
    async def count():
        found: dict[str, int] = {}
        for line in read_lines(tmp_path):
            found[line["stream"]] = found.get(line["stream"], 0) + 1
        return found

    await check_sink(lambda: SinkUnderTest(FileSink(tmp_path, rotate_bytes=500), count), unknown=True)
    assert len(list(tmp_path.glob("*.zst"))) > 2
