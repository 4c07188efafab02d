"""Births, lives and deaths in SQL are those of the simulator, although the role ``sql`` is killed and restarted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from datetime import UTC
from itertools import chain, zip_longest
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import select

from astrocyte.agents.sinks.sql.engines import engine_of
from astrocyte.agents.stores.repositories import AgentRepository, CellRepository, KernelRepository
from astrocyte.pipeline.roles.health import group_lag
from astrocyte.pipeline.settings import load_settings
from astrocyte.scenario import configure, load_scenario
from astrocyte.schemas.tables import Base
from astrocyte.simulator.emission.assembly import Assembler
from astrocyte.simulator.event_spec import PLACE_BITS
from astrocyte.simulator.runtime.world import World
from tests.support.logs import frame_messages, produce
from tests.support.role_worker import Worker, stopping
from tests.support.small_worlds import SMALL_WORLDS
from tests.support.waiting import wait_until

PARTITIONS = 2
SLICES = 3
FRAME_TICKS = 2
LIVES = {
    "cells": ("evolutionary_events", "cell_id", {"birth"}, {"death"}),
    "ecology": ("agents", "agent_id", {"born"}, {"died"}),
    "kernels": ("kernel_geometry", "kernel_id", {"spawned", "bred", "merged"}, {"retired"}),
}
"""Stream of births and deaths, the id in it, and their types."""


def simulated(name):
    """The run ``name`` of that scenario: its events, and its messages in the order in which they are sent."""
    ticks, settings = SMALL_WORLDS[name]
    scenario = load_scenario(name)
    config = configure(scenario.Config, settings)
    world, assembler = World(scenario, config, 5), Assembler(scenario, config, name, frame_ticks=FRAME_TICKS)
    params = scenario.params(config)
    (before,) = world.host_states()
    frames = [frame for done in world.run(ticks, lambda _: params) for frame in assembler.add(done)]
    offsets: dict[tuple[str, int], int] = {}
    rows = defaultdict(list)
    for frame in frames:
        rows[frame.stream] += frame.rows()
    stream, identity, births, deaths = LIVES[name]
    (state,) = world.host_states()
    return SimpleNamespace(
        name=name, ticks=ticks, config=config, rows=rows, before=before, state=state,
        born={row[identity]: row["timestamp"] for row in rows[stream] if row["type"] in births},
        died={row[identity]: row["timestamp"] for row in rows[stream] if row["type"] in deaths},
        messages=[message for frame in frames for message in frame_messages(frame, PARTITIONS, offsets)],
    )  # fmt: skip


def stored_rows(path):
    """Rows of all tables; none while there is no database."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)


@pytest.fixture(scope="module")
def worlds(shared_embedded, tmp_path_factory):
    """The worlds as one database has them: their messages came in slices, and in each the role was killed at work."""
    runs = {name: simulated(name) for name in LIVES}
    mixed = zip_longest(*(run.messages for run in runs.values()))
    messages = [each for each in chain.from_iterable(mixed) if each is not None]
    folder, address = tmp_path_factory.mktemp("births"), shared_embedded.address
    path = folder / "worlds.db"
    settings = load_settings(
        broker=address, group="births", roles=("sql",), rules=tuple(LIVES), partitions=PARTITIONS,
        sql_url=f"sqlite:///{path}",
    )  # fmt: skip
    size = -(-len(messages) // SLICES)
    first, *rest = (messages[at : at + size] for at in range(0, len(messages), size))
    asyncio.run(produce(address, first, partitions=PARTITIONS))
    worker = Worker(settings, "sql", folder / "sql.log", {})
    with stopping([worker]):
        for later in [*rest, []]:
            before = stored_rows(path)
            wait_until(lambda before=before: stored_rows(path) > before, 120, "rows of the slice")
            worker.kill()
            asyncio.run(produce(address, later, partitions=PARTITIONS))
            worker.start()
        wait_until(lambda: asyncio.run(group_lag(address, "births-sql")) == 0, 120, "the rest of the rows")
        assert worker.starts == SLICES + 1
    for run in runs.values():
        run.engine = engine_of(f"sqlite:///{path}")
    yield runs
    for run in runs.values():
        run.engine.dispose()


@pytest.fixture(params=LIVES)
def world(request, worlds):
    return worlds[request.param]


def table(world, name):
    """The run's rows of a table."""
    columns = Base.metadata.tables[name]
    with world.engine.connect() as connection:
        query = select(columns).where(columns.c.simulation_id == world.name)
        return [dict(row) for row in connection.execute(query).mappings()]


def tick_of(world, time_us):
    return (time_us - world.config.epoch_us) // world.config.tick_us


def time_us(world, tick):
    return world.config.epoch_us + tick * world.config.tick_us


def at_us(value):
    return round(value.replace(tzinfo=UTC).timestamp() * 1e6)


def living(world, at, founders=()):
    """Ids that were born at or before a time and had not died by then, by the events."""
    born = {*founders, *(each for each, birth_us in world.born.items() if birth_us <= at)}
    return born - {each for each, death_us in world.died.items() if death_us <= at}


def test_births_and_deaths_in_sql_are_those_of_the_events_and_agree_with_ids_and_ages(world):
    assert len(world.born) > 20
    assert len(world.died) > 20
    if world.name == "ecology":
        rows = {int(row["agent_id"]): row for row in table(world, "agents")}
        assert {each: row["birth_time"] for each, row in rows.items()} == {
            each: tick_of(world, at) for each, at in world.born.items()
        }
        assert {each: row["death_time"] for each, row in rows.items() if row["death_time"] is not None} == {
            each: tick_of(world, at) for each, at in world.died.items()
        }
    elif world.name == "kernels":
        rows = {row["kernel_id"]: row for row in table(world, "kernel_geometry")}
        assert {each: at_us(row["spawned_at"]) for each, row in rows.items()} == {
            str(each): at for each, at in world.born.items()
        }
        assert {each for each, row in rows.items() if row["status"] == "retired"} == set(map(str, world.died))
    else:
        events = CellRepository(world.engine, world.name).events
        assert Counter((each.cell_id, each.timestamp) for each in events("birth")) == Counter(world.born.items())
        assert Counter((each.cell_id, each.timestamp) for each in events("death")) == Counter(world.died.items())
        cells = table(world, "cells")
        assert {row["cell_id"]: row["died_at"] for row in cells if row["died_at"] is not None} == world.died
        aged = [row for row in cells if row["age_ticks"] is not None]
        assert len(aged) > 20
        for row in aged:
            born = tick_of(world, row["timestamp"]) - row["age_ticks"]
            assert born == (row["cell_id"] >> PLACE_BITS) - 1
            assert row["cell_id"] < 1 << PLACE_BITS or born == tick_of(world, world.born[row["cell_id"]])


def test_agents_alive_at_a_step_are_those_that_the_simulator_counted(worlds):
    world = worlds["ecology"]
    agents = AgentRepository(world.engine, world.name)
    steps = world.rows["simulation_steps"]
    assert len(steps) == world.ticks
    for step in steps:
        found = Counter(int(agent.agent_id) for agent in agents.alive_at(step["step_number"]))
        assert found == Counter(living(world, time_us(world, step["step_number"])))
        assert found.total() == step["total_agents"]
    alive = world.state["agents"]["alive"]
    assert sum(1 for _ in agents.alive_at(world.ticks)) == alive.sum()


def test_cells_alive_at_a_tick_are_those_that_the_simulator_counted(worlds):
    world = worlds["cells"]
    founders = np.flatnonzero(world.before["cells"]["alive"]).tolist()  # no event tells of them
    cells = CellRepository(world.engine, world.name)
    born = dict.fromkeys(founders, -1) | {each.cell_id: each.timestamp for each in cells.events("birth")}
    died = {each.cell_id: each.timestamp for each in cells.events("death")}
    rows = list(cells.population())
    assert len(rows) == len(world.rows["population_metrics"]) > 10
    for row in rows:
        found = {
            each
            for each, at in born.items()
            if at <= row.timestamp and died.get(each, row.timestamp + 1) > row.timestamp
        }
        assert found == living(world, row.timestamp, founders)
        assert len(found) == row.total_population
    assert len(living(world, time_us(world, world.ticks), founders)) == world.state["cells"]["alive"].sum()


def test_kernels_alive_at_a_tick_are_those_that_the_simulator_has(worlds):
    world = worlds["kernels"]
    kernels = KernelRepository(world.engine, world.name)
    alive = np.flatnonzero(world.state["alive"])
    ids = {(int(world.state["birth_tick"][place]) << PLACE_BITS) | int(place) for place in alive}
    assert living(world, time_us(world, world.ticks)) == ids
    retired = {
        row["kernel_id"]: row["timestamp"] for row in table(world, "kernel_history") if row["status"] == "retired"
    }
    spawned = {row["kernel_id"]: at_us(row["spawned_at"]) for row in table(world, "kernel_geometry")}
    for tick in range(0, world.ticks + 1, 10):
        at = time_us(world, tick)
        found = {each for each, birth in spawned.items() if birth <= at and retired.get(each, at + 1) > at}
        assert found == {str(each) for each in living(world, at)}
    for number in ids:
        states = list(kernels.history(str(number)))
        assert states[0].timestamp == spawned[str(number)]
        assert kernels.get(str(number)).spawned_at.replace(tzinfo=UTC).timestamp() * 1e6 == states[0].timestamp
