"""Experiment -> simulation -> agent: one database for the many simulations of an experiment (seed 001).

db = ExperimentDatabase("experiment.db", "exp_001")
with db.create_simulation_context("sim_001") as context:
context.logger.log_agent("a1", 0, "control", (1.0, 2.0))
db.close()
"""

from __future__ import annotations

import atexit
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import Engine

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.connection import prepare_store
from astrocyte.agents.sinks.sql.engines import engine_of, engine_over
from astrocyte.agents.sinks.sql.records import stage_records
from astrocyte.agents.sinks.sql.sqlite import SqliteStore
from astrocyte.agents.sinks.sql.url import database_url, open_store, sqlite_path
from astrocyte.agents.stores.logger import FlushFailed, SimulationLogger
from astrocyte.agents.stores.repositories import (
    ActionRepository,
    AgentRepository,
    DataRetriever,
    KernelRepository,
    LearningRepository,
    LineageRepository,
    PopulationRepository,
    SimilarKernel,
    StateRepository,
)
from astrocyte.schemas.tables import BASIN_SIZE
from astrocyte.schemas.times import utc_from_us

__all__ = ["ExperimentDatabase", "SimulationContext", "wall_us"]

_BUSY_S = 10.0


def wall_us() -> int:
    """Microseconds since 1970 by the wall clock: the default of programs that use a database by themselves."""
    return time.time_ns() // 1000


class ExperimentDatabase:
    """One experiment's database: a path, an SQLAlchemy URL, or ``:memory:``.

    With ``in_memory`` a file's content is held in memory while open, and goes back to the file by `persist` and at
    `close` (each time to a new file that replaces the old one, so that a crash leaves one of both whole). ``now_us``
    is the clock of timestamps and of the loggers' flushes. ``details`` are columns of ``experiments``, such as
    ``hypothesis``. Raises SinkError.
    """

    def __init__(
        self,
        address: str | Path,
        experiment_id: str,
        *,
        in_memory: bool = False,
        now_us: Callable[[], int] = wall_us,
        **details: Any,
    ) -> None:
        self.experiment_id = experiment_id
        self.now_us = now_us
        self._file: Path | None = None
        self._contexts: dict[str, SimulationContext] = {}
        url = database_url(address)
        if in_memory:
            if url.get_backend_name() != "sqlite":
                raise SinkError(f"in-memory mode came for {url.get_backend_name()}; it is a mode of SQLite files")
            self._file = None if sqlite_path(url) == ":memory:" else Path(sqlite_path(url))
            address = ":memory:"
        self._address = str(address)
        self._store = open_store(address, busy_s=_BUSY_S)
        try:
            self._load()
            prepare_store(self._store, self._address, migrate=True)
            self._put("experiments", self._described(details))
        except SinkError:
            raise
        except Exception as error:
            raise SinkError(self._store.fault_of(error).reason) from error
        self.engine = self._make_engine()
        self._closed = False
        atexit.register(self.close)

    def _described(self, details: Mapping[str, Any]) -> dict[str, Any]:
        known = self._store.query("SELECT 1 FROM experiments WHERE experiment_id = ?", (self.experiment_id,))
        made = {} if known else {"name": self.experiment_id, "status": "active", "creation_date": self._now()}
        return {"experiment_id": self.experiment_id, "last_updated": self._now(), **made, **details}

    def create_simulation_context(
        self,
        simulation_id: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        buffer_rows: int | None = None,
    ) -> SimulationContext:
        """The context of a simulation, new or of before; its logger tags every row with ``simulation_id``.

        ``parameters`` become a column of ``simulations``, ``config`` the JSON of ``simulation_config``.
        """
        if simulation_id in self._contexts:
            return self._contexts[simulation_id]
        known = self._store.query("SELECT start_time FROM simulations WHERE simulation_id = ?", (simulation_id,))
        record: dict[str, Any] = {
            "simulation_id": simulation_id,
            "experiment_id": self.experiment_id,
            "status": "running",
            "parameters": parameters,
            "simulation_db_path": self._address[:255],
        }
        if not known:
            record["start_time"] = self._now()
        if config is not None:
            record |= {"config": dict(config), "timestamp": self.now_us()}
        self._put("simulations", record)
        options = {} if buffer_rows is None else {"buffer_rows": buffer_rows}
        logger = SimulationLogger(self._store, simulation_id, now_us=self.now_us, **options)
        context = SimulationContext(self, simulation_id, logger)
        self._contexts[simulation_id] = context
        return context

    def update_simulation(self, simulation_id: str, **columns: Any) -> None:
        """Set columns of a simulation, such as ``results_summary`` or ``status``."""
        self._put("simulations", {"simulation_id": simulation_id, **columns})

    def update_experiment(self, **columns: Any) -> None:
        """Set columns of this experiment, such as ``results_summary`` or ``status``."""
        self._put("experiments", {"experiment_id": self.experiment_id, "last_updated": self._now(), **columns})

    @property
    def simulation_ids(self) -> list[str]:
        """Simulations of this experiment, in order."""
        query = "SELECT simulation_id FROM simulations WHERE experiment_id = ? ORDER BY simulation_id"
        return [row[0] for row in self._store.query(query, (self.experiment_id,))]

    @property
    def retriever(self) -> DataRetriever:
        """Population statistics across the simulations of this experiment."""
        return DataRetriever(self.engine, self.experiment_id)

    def find_similar_basins(self, query: Any, limit: int = 10) -> list[SimilarKernel]:
        """The kernels of all simulations whose basins are nearest to ``query`` (8 numbers), nearest first."""
        assert BASIN_SIZE == 8
        return KernelRepository(self.engine).find_similar_basins(query, limit)

    def flush(self) -> None:
        """Flush every context's logger. Raises FlushFailed."""
        for context in self._contexts.values():
            context.logger.flush()

    def persist(self, path: str | Path | None = None) -> Path:
        """Write an in-memory database to ``path`` (by default the file it was opened for), replacing it whole."""
        target = Path(path) if path is not None else self._file
        store = self._store
        if target is None or not isinstance(store, SqliteStore) or store.connection is None:
            raise SinkError("persist() came for a database without a file; give it a path (SQLite in memory only)")
        self.flush()
        temporary = target.with_name(target.name + ".new")
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as copy:
            store.connection.backup(copy)
        temporary.replace(target)
        return target

    def close(self) -> None:
        """Flush, persist where the database is in memory, and close. Raises FlushFailed where rows would be lost."""
        if self._closed:
            return
        self.flush()
        if self._file is not None:
            self.persist()
        self._closed = True
        atexit.unregister(self.close)
        self.engine.dispose()
        self._store.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> None:
        """Bring the file's content into memory."""
        if self._file is None or not self._file.exists():
            return
        assert isinstance(self._store, SqliteStore)
        self._store.connect()
        assert self._store.connection is not None
        with closing(sqlite3.connect(self._file)) as source:
            source.backup(self._store.connection)

    def _make_engine(self) -> Engine:
        if self._address == ":memory:":
            assert isinstance(self._store, SqliteStore)
            assert self._store.connection is not None
            return engine_over(self._store.connection, transactions=False)
        return engine_of(self._address)

    def _put(self, kind: Any, record: Mapping[str, Any]) -> None:
        tables = stage_records(kind, [record], self.now_us())
        for rows in tables:
            if rows.bad:
                raise SinkError(f"{kind}: {next(iter(rows.bad.values()))}")
        with self._store.transaction():
            for rows in tables:
                self._store.upsert(rows)

    def _now(self) -> datetime:
        return utc_from_us(self.now_us()).replace(tzinfo=None)


class SimulationContext:
    """One simulation's view of the database: its logger and its repositories.

    As a context manager it flushes at the end, also when an error ends it, and sets the simulation's status to
    "completed" or "failed".
    """

    def __init__(self, database: ExperimentDatabase, simulation_id: str, logger: SimulationLogger) -> None:
        self.simulation_id = simulation_id
        self.logger = logger
        self._database = database

    @property
    def agents(self) -> AgentRepository:
        """Agents of this simulation."""
        return AgentRepository(self._database.engine, self.simulation_id)

    @property
    def actions(self) -> ActionRepository:
        """Actions of this simulation."""
        return ActionRepository(self._database.engine, self.simulation_id)

    @property
    def states(self) -> StateRepository:
        """States of this simulation's agents and resources."""
        return StateRepository(self._database.engine, self.simulation_id)

    @property
    def populations(self) -> PopulationRepository:
        """Steps of this simulation."""
        return PopulationRepository(self._database.engine, self.simulation_id)

    @property
    def learning(self) -> LearningRepository:
        """Learning experiences of this simulation."""
        return LearningRepository(self._database.engine, self.simulation_id)

    @property
    def kernels(self) -> KernelRepository:
        """Kernels and wars of this simulation."""
        return KernelRepository(self._database.engine, self.simulation_id)

    @property
    def lineages(self) -> LineageRepository:
        """Descent of this simulation's agents."""
        return LineageRepository(self._database.engine, self.simulation_id)

    def finish(self, status: str = "completed", results_summary: Mapping[str, Any] | None = None) -> None:
        """Flush, and note the end of the simulation. Raises FlushFailed."""
        self.logger.flush()
        moment = utc_from_us(self._database.now_us())
        self._database.update_simulation(
            self.simulation_id, status=status, end_time=moment.replace(tzinfo=None), results_summary=results_summary
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        # The error that ended the simulation is the one to report; the rows stay in the buffer for close().
        with suppress(FlushFailed):
            self.finish("failed")
