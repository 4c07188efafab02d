"""SQL sinks: agent_states in batches of frames, beside the bare driver on the same tables in the same run."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from agents.sinks.base import Sourced, SourcedFrame
from agents.sinks.migrate import upgrade
from agents.sinks.sql import SqlSink
from agents.sinks.sql_sqlite import SqliteStore
from pipeline.bench.postgres_server import PostgresUnavailable, postgres_server
from schemas.frames import Frame

__all__ = ["run"]

_RUN: Final = "ecology-7"
_FRAME_ROWS: Final = 5_000
_COLUMNS: Final = (
    "simulation_id, id, step_number, agent_id, position_x, position_y, position_z, resource_level, current_health, "
    "is_defending, total_reward, age, recorded_at"
)


def _batches(rows: int, agents: int, batch_rows: int) -> list[list[Sourced]]:
    """Batches of frames with the states of ``agents`` agents, step after step."""
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
    """The same rows as a program would hand them to a driver, made before the clock runs."""
    rows: list[tuple[Any, ...]] = []
    for item in batch:
        assert isinstance(item, SourcedFrame)
        for row in item.frame.rows():
            values = [row[name.strip()] for name in _COLUMNS.split(",")[4:-1]]
            agent = str(row["agent_id"])
            rows.append((_RUN, f"{agent}-{row['step_number']}", row["step_number"], agent, *values, 1))
    return rows


async def _sink_seconds(url: str, batches: Sequence[Sequence[Sourced]]) -> list[float]:
    """Seconds of two passes over the batches: the first fills the table, the second finds every row there."""
    sink = SqlSink(url, now_us=lambda: 1)
    await sink.open()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        for batch in batches:
            rejected = await sink.write(batch)
            assert not rejected, rejected[0]
        seconds.append(time.perf_counter() - began)
    await sink.close()
    return seconds


def _bare_sqlite(path: str, batches: Sequence[Sequence[tuple[Any, ...]]], agents: int) -> float:
    upgrade(path)
    store = SqliteStore(path)
    store.connect()
    connection = store.connection
    assert isinstance(connection, sqlite3.Connection)
    began = time.perf_counter()
    connection.execute("BEGIN")
    connection.execute("INSERT INTO simulations (simulation_id) VALUES (?)", (_RUN,))
    connection.executemany(
        "INSERT INTO agents (simulation_id, agent_id) VALUES (?, ?)", [(_RUN, str(agent)) for agent in range(agents)]
    )
    connection.execute("COMMIT")
    places = ", ".join("?" * len(_COLUMNS.split(",")))
    for rows in batches:
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO agent_states ({_COLUMNS}) VALUES ({places})", rows)  # noqa: S608 - our own
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    store.disconnect()
    return seconds


def _bare_postgres(url: str, batches: Sequence[Sequence[tuple[Any, ...]]], agents: int) -> float:
    from agents.sinks.sql_postgres import PostgresStore
    from agents.sinks.sql_url import database_url

    store = PostgresStore(database_url(url))
    store.connect()
    connection = store.connection
    began = time.perf_counter()
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM agent_states; DELETE FROM agents; DELETE FROM simulations")
        cursor.execute("INSERT INTO simulations (simulation_id) VALUES (%s)", (_RUN,))
        cursor.execute("INSERT INTO agents (simulation_id, agent_id) SELECT %s, generate_series(0, %s)", (_RUN, agents))
    for rows in batches:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy(f"COPY agent_states ({_COLUMNS}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
    seconds = time.perf_counter() - began
    store.disconnect()
    return seconds


@dataclass(frozen=True, slots=True)
class _Load:
    """The rows of one benchmark, as the sink and as a bare driver take them."""

    rows: int
    agents: int
    batch_rows: int
    batches: list[list[Sourced]]
    bare: list[list[tuple[Any, ...]]]

    @classmethod
    def make(cls, rows: int, agents: int, batch_rows: int) -> _Load:
        batches = _batches(rows, agents, batch_rows)
        return cls(rows, agents, batch_rows, batches, [_bare_rows(batch) for batch in batches])

    def figures(self, name: str, passes: Sequence[float], bare_s: float, bare: str) -> Iterator[dict[str, Any]]:
        first_s, again_s = passes
        shared = {"events": self.rows, "table": "agent_states", "agents": self.agents, "batch_rows": self.batch_rows}
        yield {
            "bench": f"sinks/{name}",
            **shared,
            "seconds": first_s,
            "events_per_s": self.rows / first_s,
            "bare": bare,
            "bare_events_per_s": self.rows / bare_s,
            "ratio_to_bare": bare_s / first_s,
        }
        yield {"bench": f"sinks/{name}_again", **shared, "seconds": again_s, "events_per_s": self.rows / again_s}


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """Rows a second into each database, first and again (every row is there), and the bare driver's."""
    load = _Load.make(100_000, 5_000, 50_000) if quick else _Load.make(1_000_000, 20_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        bare_s = _bare_sqlite(str(Path(folder) / "bare.db"), load.bare, load.agents)
        passes = asyncio.run(_sink_seconds(str(Path(folder) / "sink.db"), load.batches))
    yield from load.figures("sqlite", passes, bare_s, "sqlite3 executemany")
    given = os.environ.get("ASTROCYTE_BENCH_POSTGRES")
    if given:
        yield from _postgres(given, load)
        return
    try:
        with postgres_server() as server:
            yield from _postgres(server.url, load)
    except PostgresUnavailable as error:
        yield {"bench": "sinks/postgresql", "skipped": str(error)}


def _postgres(url: str, load: _Load) -> Iterator[dict[str, Any]]:
    """Figures of an empty database on a PostgreSQL with pgvector."""
    passes = asyncio.run(_sink_seconds(url, load.batches))
    bare_s = _bare_postgres(url, load.bare, load.agents)
    yield from load.figures("postgresql", passes, bare_s, "psycopg copy of rows")
