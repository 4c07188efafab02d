"""The ecology's streams in SQL: every table has rows, and every reference is valid, in any order of topics."""

import pytest
from sqlalchemy import text

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.topics import mono_topic
from tests.support.small_worlds import SMALL_WORLDS

TABLES = ("agents", "agent_states", "resource_states", "simulation_steps", "agent_actions", "learning_experiences",
          "health_incidents", "simulations")  # fmt: skip


@pytest.fixture(scope="module")
def frames():
    sink = MemorySink()
    ticks, settings = SMALL_WORLDS["ecology"]
    simulate("ecology", settings, seed=1, ticks=ticks // 2, sink=sink)
    return [frame for frame in sink.frames if frame.num_rows]


@pytest.mark.parametrize("order", ["as produced", "backwards"])
async def test_all_tables_have_rows_and_no_reference_is_broken(frames, tmp_path, order):
    url = f"sqlite:///{tmp_path / 'ecology.db'}"
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    for number, frame in enumerate(frames if order == "as produced" else reversed(frames)):
        assert await sink.write([SourcedFrame(frame, mono_topic(frame.stream), 0, number)]) == []
    await sink.close()
    with engine_of(url).connect() as connection:
        counts = {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in TABLES}
        assert min(counts.values()) > 0, counts
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        joined = (
            "SELECT count(*), sum(b.step_number = a.step_number - 1), sum(c.step_number = a.step_number),"
            " sum(b.age IS NULL OR c.age IS NULL) FROM agent_actions a JOIN agent_states b ON b.id = a.state_before_id"
            " JOIN agent_states c ON c.id = a.state_after_id"
        )
        total = counts["agent_actions"]
        assert tuple(connection.execute(text(joined)).one()) == (total, total, total, 0)
