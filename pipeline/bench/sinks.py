"""SQL sinks: agent_states in batches of frames, compared with the bare driver on the same tables in the same run."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from astrocyte.agents.sinks.base import Sourced, SourcedFrame
from astrocyte.agents.sinks.sql.migrate import upgrade
from astrocyte.agents.sinks.sql.postgres import PostgresStore
from astrocyte.agents.sinks.sql.sink import SqlSink
from astrocyte.agents.sinks.sql.sqlite import SqliteStore
from astrocyte.agents.sinks.sql.url import database_url
from astrocyte.agents.stores.experiment import ExperimentDatabase
from astrocyte.pipeline.bench.servers.postgres import PostgresUnavailable, postgres_server
from astrocyte.schemas.frames import Frame

__all__ = ["run"]

_RUN: Final = "ecology-7"
_FRAME_ROWS: Final = 5_000
_COLUMNS: Final = (
    "simulation_id, id, step_number, agent_id, position_x, position_y, position_z, resource_level, current_health, "
    "is_defending, total_reward, age, recorded_at"
)


def _batches(rows: int, agents: int, batch_rows: int) -> list[list[Sourced]]:
    """Batches of frames with the states of ``agents`` agents, in order of steps."""
    random = np.random.default_rng(7)
    frames: list[Sourced] = []
    for start in range(0, rows, _FRAME_ROWS):
        index = np.arange(start, min(start + _FRAME_ROWS, rows))
        count = len(index)
        measures = random.random((6, count)).astype(np.float32)
        columns = {
            "timestamp": 1_735_689_600_000_000 + index,
            "key": pa.DictionaryArray.from_arrays(
                pa.array((index % 64).astype(np.int32)), [f"r{n}" for n in range(64)]
            ),
            "type": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), ["state"]),
            "step_number": index // agents,
            "agent_id": index % agents,
            "position_x": measures[0],
            "position_y": measures[1],
            "position_z": measures[2],
            "resource_level": measures[3],
            "current_health": measures[4],
            "is_defending": measures[5] > 0.9,
            "total_reward": measures[5],
            "age": (index // agents).astype(np.int32),
        }
        frame = Frame.from_columns("agent_states", _RUN, columns, first_seq=start)
        frames.append(SourcedFrame(frame, "mono.agent_states", 0, start // _FRAME_ROWS))
    step = max(1, batch_rows // _FRAME_ROWS)
    return [frames[at : at + step] for at in range(0, len(frames), step)]


def _bare_rows(batch: Sequence[Sourced]) -> list[tuple[Any, ...]]:
    """The same rows as a program would pass them to a driver, prepared outside the measurement."""
    rows: list[tuple[Any, ...]] = []
    for item in batch:
        assert isinstance(item, SourcedFrame)
        for row in item.frame.rows():
            values = [row[name.strip()] for name in _COLUMNS.split(",")[4:-1]]
            agent = str(row["agent_id"])
            rows.append((_RUN, f"{agent}-{row['step_number']}", row["step_number"], agent, *values, 1))
    return rows


async def _race(url: str, load: _Load, bare: Callable[[Sequence[tuple[Any, ...]]], None]) -> tuple[float, float, float]:
    """Seconds of the sink for all batches, of the bare driver for the same, and of the sink for all batches again.

    Sink and driver alternate batch by batch, so that other load on the machine affects both alike.
    """
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    sink_s = bare_s = again_s = 0.0
    for batch, rows in zip(load.batches, load.bare, strict=True):
        began = time.perf_counter()
        rejected = await sink.write(batch)
        sink_s += time.perf_counter() - began
        assert not rejected, rejected[0]
        began = time.perf_counter()
        await sink.in_thread(lambda rows=rows: bare(rows))  # type: ignore[misc]
        bare_s += time.perf_counter() - began
    for batch in load.batches:
        began = time.perf_counter()
        await sink.write(batch)
        again_s += time.perf_counter() - began
    await sink.close()
    return sink_s, bare_s, again_s


def _sqlite(folder: Path, load: _Load) -> tuple[float, float, float]:
    """Compared with the sink: one executemany per batch into a separate file with the same schema and settings."""
    path = str(folder / "bare.db")
    upgrade(path)
    store = SqliteStore(path)
    store.connect()
    connection = store.connection
    assert isinstance(connection, sqlite3.Connection)
    connection.execute("INSERT INTO simulations (simulation_id) VALUES (?)", (_RUN,))
    agents = [(_RUN, str(agent)) for agent in range(load.agents)]
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO agents (simulation_id, agent_id) VALUES (?, ?)", agents)
    connection.execute("COMMIT")
    statement = f"INSERT INTO agent_states ({_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS.split(',')))})"  # noqa: S608

    def bare(rows: Sequence[tuple[Any, ...]]) -> None:
        connection.execute("BEGIN")
        connection.executemany(statement, rows)
        connection.execute("COMMIT")

    seconds = asyncio.run(_race(str(folder / "sink.db"), load, bare))
    store.disconnect()
    return seconds


def _postgres(url: str, load: _Load) -> tuple[float, float, float]:
    """Compared with the sink: psycopg's COPY of Python rows into a table with the same columns and indexes."""
    upgrade(url)
    store = PostgresStore(database_url(url))
    store.connect()
    connection = store.connection
    with connection.transaction():
        connection.execute("CREATE TABLE bare_states (LIKE agent_states INCLUDING ALL)")
        connection.execute("ALTER TABLE bare_states ADD FOREIGN KEY (agent_id, simulation_id) REFERENCES agents")
        connection.execute("INSERT INTO simulations (simulation_id) VALUES (%s)", (_RUN,))
        connection.execute(
            "INSERT INTO agents (simulation_id, agent_id) SELECT %s, generate_series(0, %s)", (_RUN, load.agents)
        )

    def bare(rows: Sequence[tuple[Any, ...]]) -> None:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy(f"COPY bare_states ({_COLUMNS}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    seconds = asyncio.run(_race(url, load, bare))
    store.disconnect()
    return seconds


@dataclass(frozen=True, slots=True)
class _Load:
    """The rows of one benchmark, in the forms for the sink and for a bare driver."""

    rows: int
    agents: int
    batch_rows: int
    batches: list[list[Sourced]]
    bare: list[list[tuple[Any, ...]]]

    @classmethod
    def make(cls, rows: int, agents: int, batch_rows: int) -> _Load:
        batches = _batches(rows, agents, batch_rows)
        return cls(rows, agents, batch_rows, batches, [_bare_rows(batch) for batch in batches])

    def figures(self, name: str, bare: str, seconds: tuple[float, float, float]) -> Iterator[dict[str, Any]]:
        sink_s, bare_s, again_s = seconds
        shared = {"events": self.rows, "table": "agent_states", "agents": self.agents, "batch_rows": self.batch_rows}
        yield {
            "bench": f"sinks/{name}",
            **shared,
            "seconds": sink_s,
            "events_per_s": self.rows / sink_s,
            "bare": bare,
            "bare_events_per_s": self.rows / bare_s,
            "ratio_to_bare": bare_s / sink_s,
        }
        yield {"bench": f"sinks/{name}_again", **shared, "seconds": again_s, "events_per_s": self.rows / again_s}


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Rows per second into each database, first and repeated (every row exists), and with the bare driver."""
    load = _Load.make(100_000, 5_000, 50_000) if quick else _Load.make(1_000_000, 20_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        yield from load.figures("sqlite", "sqlite3 executemany", _sqlite(Path(folder), load))
    given = os.environ.get("ASTROCYTE_BENCH_POSTGRES")
    try:
        with nullcontext(given) if given else _own_server() as url:
            yield from load.figures("postgresql", "psycopg copy of rows", _postgres(url, load))
    except PostgresUnavailable as error:
        yield {"bench": "sinks/postgresql", "skipped": str(error)}
    yield from _queries(200_000 if quick else 10_000_000)


@contextmanager
def _own_server() -> Iterator[str]:
    with postgres_server() as server:
        yield server.url


def _queries(rows: int) -> Iterator[dict[str, Any]]:
    """The repositories' queries on a database of ``rows`` agent_states, a thousand steps of each agent."""
    steps = 1_000
    agents = rows // steps
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "states.db"
        _generate(path, agents, steps)
        with ExperimentDatabase(path) as database:
            run = database.open_simulation(_RUN)
            middle, agent = steps // 2, str(agents // 2)
            for name, query in (
                ("history", lambda: len(list(run.states.history(agent)))),
                ("latest", lambda: run.states.latest(agent)),
                ("at_step", lambda: len(list(run.states.at_step(middle)))),
                ("means_of_10_steps", lambda: run.states.means(middle, middle + 10)),
                ("arrow_first_batch", lambda: next(iter(run.states.arrow(0, steps))).num_rows),
                ("alive_at", lambda: len(list(run.agents.alive_at(middle)))),
                ("population_statistics", lambda: database.retriever.population_statistics().num_rows),
            ):
                began = time.perf_counter()
                query()
                yield {"bench": f"sinks/query_{name}", "rows": rows, "seconds": time.perf_counter() - began}


def _generate(path: Path, agents: int, steps: int) -> None:
    """Create a database like that of a run of ``agents`` over ``steps``, inside SQLite."""
    upgrade(path)
    store = SqliteStore(path, enforces=False)
    store.connect()
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {0} - 1)"
    with store.transaction():
        store.execute("INSERT INTO simulations (simulation_id, experiment_id) VALUES (?, NULL)", (_RUN,))
        store.execute(
            "INSERT INTO agents (simulation_id, agent_id, birth_time, agent_type) "  # noqa: S608 - our own numbers
            f"{numbers.format(agents)} SELECT '{_RUN}', i, 0, 'system' FROM n"
        )
        store.execute(
            "INSERT INTO simulation_steps (simulation_id, step_number, total_agents) "  # noqa: S608
            f"{numbers.format(steps)} SELECT '{_RUN}', i, {agents} FROM n"
        )
        indexes = store.query(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'agent_states' AND sql LIKE '%INDEX%'"
        )
        for name, _ in indexes:
            store.execute(f"DROP INDEX {name}")
        # In primary key order, agent after agent: the same file, ten times faster.
        store.execute(
            f"INSERT INTO agent_states ({_COLUMNS}) {numbers.format(steps)} "  # noqa: S608
            f"SELECT '{_RUN}', agent_id || '-' || i, i, agent_id, 0.5, 0.5, 0.0, 1.0, 1.0, 0, 0.1, i, 1 "
            "FROM (SELECT agent_id FROM agents ORDER BY agent_id) CROSS JOIN n"
        )
        for _, sql in indexes:
            store.execute(sql)
    store.disconnect()
