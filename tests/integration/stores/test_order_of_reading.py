"""Tables do not depend on the order in which events are read: partitions have none among each other."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from astrocyte.agents.sinks.base import SourcedFrame
from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.scenario import MemorySink, simulate
from astrocyte.schemas.tables import Base
from astrocyte.schemas.topics import mono_topic
from tests.support.small_worlds import SMALL_WORLDS

PLANTS = {"ecology": [{"kind": "sweep", "at_tick": 20, "strength": 0.8}]}
UNCOMPARED = {"recorded_at", "creation_date", "last_updated"}


def events_of(scenario):
    ticks, settings = SMALL_WORLDS[scenario]
    plants = [*settings.get("plants", []), *PLANTS.get(scenario, [])]
    sink = MemorySink()
    simulate(scenario, settings | ({"plants": plants} if plants else {}), seed=1, ticks=ticks, sink=sink)
    return sink.frames


def comparable(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


async def tables_of(url, batches):
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    for batch in batches:
        assert await sink.write(batch) == []
    await sink.close()
    found = {}
    with engine_of(url).connect() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.c if column.name not in UNCOMPARED]
            rows = connection.execute(select(*columns).order_by(*table.primary_key)).mappings()
            found[table.name] = [{name: comparable(value) for name, value in row.items()} for row in rows]
    return found


@pytest.mark.parametrize("scenario", sorted(SMALL_WORLDS))
async def test_tables_are_equal_in_whatever_order_and_batches_events_are_read(scenario, tmp_path):
    frames = events_of(scenario)
    batch = [SourcedFrame(frame, mono_topic(frame.stream), 0, number) for number, frame in enumerate(frames)]
    together = await tables_of(f"sqlite:///{tmp_path / 'together.db'}", [batch])
    backwards = await tables_of(f"sqlite:///{tmp_path / 'backwards.db'}", [[each] for each in reversed(batch)])
    assert sum(map(len, together.values())) > 100
    for table, rows in together.items():
        different = [(one, two) for one, two in zip(rows, backwards[table], strict=True) if one != two]
        assert not different, (table, len(different), different[0])
