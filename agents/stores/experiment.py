"""Experiment databases: one database for all simulations of an experiment and their agents.

::

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
from astrocyte.agents.stores.analysis import Advantage, AgentProfile, Dominance, advantage, agent_profile, dominance
from astrocyte.agents.stores.logger import FlushFailed, SimulationLogger
from astrocyte.agents.stores.repositories import (
    ActionRepository,
    AgentRepository,
    CellRepository,
    DataRetriever,
    DnaRepository,
    ExperimentRecord,
    ExperimentRepository,
    KernelRepository,
    LearningRepository,
    LineageRepository,
    OutputRepository,
    PopulationRepository,
    SimilarKernel,
    SimulationRecord,
    StateRepository,
)
from astrocyte.schemas.tables import BASIN_SIZE
from astrocyte.schemas.times import utc_from_us

__all__ = ["ExperimentDatabase", "SimulationContext", "SimulationView", "wall_us"]

_BUSY_S = 10.0
_ENDED = ("completed", "failed")


def wall_us() -> int:
    """Microseconds since 1970 by the wall clock: the default clock for programs that use a database directly."""
    return time.time_ns() // 1000


class ExperimentDatabase:
    """One experiment's database: a path, an SQLAlchemy URL, or ``:memory:``.

    With ``in_memory`` a file's content is held in memory while open, and written back by `persist` and `close` (to a
    new file that replaces the old one, so that a crash leaves one of the two intact). ``now_us`` is the clock for
    timestamps and for the loggers' flushes. ``details`` are columns of ``experiments``, such as ``hypothesis``. Raises
    SinkError.

    The experiment's row is inserted by the first call that writes, or at once if there are ``details``. Without
    ``experiment_id`` the database is only read, and `experiments`, `simulations` and `open_simulation` cover all of it.
    """

    def __init__(
        self,
        address: str | Path,
        experiment_id: str | None = None,
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
                raise SinkError(f"in_memory needs an SQLite file, got {url.get_backend_name()}")
            self._file = None if sqlite_path(url) == ":memory:" else Path(sqlite_path(url))
            address = ":memory:"
        self._address = str(address)
        self._store = open_store(address, busy_s=_BUSY_S)
        try:
            self._load()
            prepare_store(self._store, self._address, migrate=True)
            if details:
                self._describe(details)
        except SinkError:
            raise
        except Exception as error:
            raise SinkError(self._store.fault_of(error).reason) from error
        self.engine = self._make_engine()
        self._closed = False
        atexit.register(self.close)

    def _describe(self, columns: Mapping[str, Any]) -> None:
        """Insert the row of this experiment, or update columns of it."""
        if self.experiment_id is None:
            raise SinkError("the database was opened without an experiment id and is read-only; pass experiment_id")
        known = self._store.query("SELECT 1 FROM experiments WHERE experiment_id = ?", (self.experiment_id,))
        made = {} if known else {"name": self.experiment_id, "status": "active", "creation_date": self._now()}
        record = {"experiment_id": self.experiment_id, "last_updated": self._now(), **made, **columns}
        self._put("experiments", record)

    def create_simulation_context(
        self,
        simulation_id: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        buffer_rows: int | None = None,
        resume: bool = False,
    ) -> SimulationContext:
        """The context of a new simulation or one that has not ended; its logger tags every row with ``simulation_id``.

        ``parameters`` become a column of ``simulations``, ``config`` the JSON of ``simulation_config``, which holds
        from the start. With ``resume`` an ended simulation is continued; to read one, use `open_simulation`. Raises
        SinkError for a simulation that has ended or belongs to another experiment.
        """
        known = self._own(simulation_id)
        ended = known is not None and (known.end_time is not None or known.status in _ENDED)
        if ended and known is not None and not resume:
            raise SinkError(
                f"simulation {simulation_id!r} has ended (status {known.status!r}, {known.end_time} UTC); "
                "use open_simulation() to read it, or resume=True to continue it"
            )
        if simulation_id in self._contexts and not ended:
            return self._contexts[simulation_id]
        record: dict[str, Any] = {
            "simulation_id": simulation_id,
            "experiment_id": self.experiment_id,
            "status": "running",
            "parameters": parameters,
            "simulation_db_path": self._address[:255],
        }
        if known is None or known.start_time is None:
            record["start_time"] = self._now()
        if config is not None:
            record["config"] = dict(config)
        self._describe({})
        if ended:
            with self._store.transaction():
                self._store.execute("UPDATE simulations SET end_time = NULL WHERE simulation_id = ?", (simulation_id,))
        self._put("simulations", record)
        options = {} if buffer_rows is None else {"buffer_rows": buffer_rows}
        logger = SimulationLogger(self._store, simulation_id, now_us=self.now_us, **options)
        context = SimulationContext(self, simulation_id, logger)
        self._contexts[simulation_id] = context
        return context

    def open_simulation(self, simulation_id: str) -> SimulationView:
        """A read-only view of a simulation, running or ended.

        Raises SinkError if it does not exist or belongs to another experiment.
        """
        if self._own(simulation_id) is None:
            known = [each.simulation_id for each in self.simulations()]
            of = "the database" if self.experiment_id is None else f"experiment {self.experiment_id!r}"
            raise SinkError(f"there is no simulation {simulation_id!r}; {of} has {_listed(known)}")
        return SimulationView(self, simulation_id)

    def experiments(self) -> list[ExperimentRecord]:
        """All experiments of the database, in order of their ids."""
        return self._lists.experiments()

    def simulations(self) -> list[SimulationRecord]:
        """Simulations of this experiment (of all, without an experiment id), in order of their ids.

        Raises SinkError if the experiment does not exist.
        """
        self._check_there()
        return self._lists.simulations(self.experiment_id)

    def update_simulation(self, simulation_id: str, **columns: Any) -> None:
        """Update columns of a simulation, such as ``results_summary``. Raises SinkError if it does not exist."""
        if self._own(simulation_id) is None:
            raise SinkError(f"there is no simulation {simulation_id!r}; create_simulation_context() creates one")
        self._put("simulations", {"simulation_id": simulation_id, **columns})

    def update_experiment(self, **columns: Any) -> None:
        """Update columns of this experiment, such as ``results_summary`` or ``status``."""
        self._describe(columns)

    @property
    def simulation_ids(self) -> list[str]:
        """Ids of `simulations`."""
        return [each.simulation_id for each in self.simulations()]

    @property
    def _lists(self) -> ExperimentRepository:
        return ExperimentRepository(self.engine)

    def _own(self, simulation_id: str) -> SimulationRecord | None:
        """The record of a simulation, or None. Raises SinkError if it belongs to another experiment."""
        known = self._lists.simulation(simulation_id)
        if known is not None and self.experiment_id not in (None, known.experiment_id):
            its = known.experiment_id
            raise SinkError(
                f"simulation {simulation_id!r} belongs to {'no experiment' if its is None else f'experiment {its!r}'}; "
                f"this database was opened for {self.experiment_id!r}; open it "
                f"{'without an experiment' if its is None else f'for {its!r}'}, or give the simulation another id"
            )
        return known

    def _check_there(self) -> None:
        known = [each.experiment_id for each in self.experiments()]
        if self.experiment_id is not None and self.experiment_id not in known:
            raise SinkError(f"there is no experiment {self.experiment_id!r} yet; the database has {_listed(known)}")

    @property
    def retriever(self) -> DataRetriever:
        """Population statistics across the simulations of this experiment. Raises SinkError if it does not exist."""
        self._check_there()
        return DataRetriever(self.engine, self.experiment_id)

    def find_similar_basins(self, query: Any, limit: int = 10) -> list[SimilarKernel]:
        """The kernels of all simulations whose basins are nearest to ``query`` (8 numbers), nearest first.

        See `KernelRepository.find_similar_basins`.
        """
        assert BASIN_SIZE == 8
        return KernelRepository(self.engine).find_similar_basins(query, limit)

    def flush(self) -> None:
        """Flush every context's logger. Raises FlushFailed."""
        for context in self._contexts.values():
            context.logger.flush()

    def persist(self, path: str | Path | None = None) -> Path:
        """Write an in-memory database to ``path`` (default: the file of the constructor), replacing it atomically."""
        target = Path(path) if path is not None else self._file
        store = self._store
        if target is None or not isinstance(store, SqliteStore) or store.connection is None:
            raise SinkError("persist() needs an in-memory SQLite database with a file; pass a path")
        self.flush()
        temporary = target.with_name(target.name + ".new")
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as copy:
            store.connection.backup(copy)
        temporary.replace(target)
        return target

    def close(self) -> None:
        """Flush, persist an in-memory database, and close. Raises FlushFailed and stays open if rows would be lost."""
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
        """Load the file's content into memory."""
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


class SimulationView:
    """Read-only repositories of one simulation."""

    def __init__(self, database: ExperimentDatabase, simulation_id: str) -> None:
        self.simulation_id = simulation_id
        self._database = database

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine of the database, for queries of your own."""
        return self._database.engine

    @property
    def cells(self) -> CellRepository:
        """Cells of this simulation, their genomes, problems and evolutionary events."""
        return CellRepository(self._database.engine, self.simulation_id)

    @property
    def dna(self) -> DnaRepository:
        """Snapshots, mutations and scores of this simulation."""
        return DnaRepository(self._database.engine, self.simulation_id)

    @property
    def outputs(self) -> OutputRepository:
        """Alerts, multi events and dead letters about this simulation."""
        return OutputRepository(self._database.engine, self.simulation_id)

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

    def profile(self, agent_id: str) -> AgentProfile | None:
        """All that is known of one agent, or None."""
        return agent_profile(self, agent_id)

    def dominance(self) -> Dominance:
        """Which type of agents dominated the population, for how long, and how often that changed."""
        return dominance(self)

    def advantage(self) -> list[Advantage]:
        """How long agents of each type live, survive, breed and earn, beside all other agents."""
        return advantage(self)


class SimulationContext(SimulationView):
    """A running simulation: its logger, and the repositories of a `SimulationView`.

    As a context manager it flushes at the end, also after an error, and sets the simulation's status to "completed" or
    "failed".
    """

    def __init__(self, database: ExperimentDatabase, simulation_id: str, logger: SimulationLogger) -> None:
        super().__init__(database, simulation_id)
        self.logger = logger

    def finish(self, status: str = "completed", results_summary: Mapping[str, Any] | None = None) -> None:
        """Flush, and store status and end time of the simulation. Raises FlushFailed."""
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
        # Report the error that ended the simulation; rows that were not flushed stay in the buffer for close().
        with suppress(FlushFailed):
            self.finish("failed")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more if names else "none"
