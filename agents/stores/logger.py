"""The logger of one simulation: rows are buffered in memory and written in batches, one transaction per flush."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.rows import find_problems, from_mappings, parent_rows
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.agents.sinks.sql.targets import LOGGED
from astrocyte.schemas.errors import InvalidEvent, TransientError
from astrocyte.schemas.ids import hash_id
from astrocyte.schemas.tables import resource_state_id
from astrocyte.schemas.times import utc_from_us

__all__ = ["BUFFER_ROWS", "FLUSH_INTERVAL_US", "FlushFailed", "SimulationLogger"]

logger = logging.getLogger(__name__)

BUFFER_ROWS: Final = 1_000
FLUSH_INTERVAL_US: Final = 30_000_000
_COUNTED: Final = {
    "agent_actions": "action_id",
    "learning_experiences": "experience_id",
    "health_incidents": "incident_id",
    "kernel_history": "id",
    "war_history": "war_id",
}

_TELLING: Final = {
    "kernel_history": ("recorded_at", "timestamp", "kernel_id"),
    "war_history": ("timestamp", "attacker_id", "defender_id"),
}
"""Columns by which a row is recognised as the same one as another with its id."""
_OF_AGENTS: Final = ("recorded_at", "agent_id", "step_number")

Position = tuple[float, float]


class FlushFailed(TransientError):
    """A flush was rolled back; all its rows are still in the buffer, for the next flush."""


class SimulationLogger:
    """Logs rows of one simulation; every row is tagged with its ``simulation_id``.

    The buffer is flushed when it holds ``buffer_rows`` rows, when its oldest row is ``flush_interval_us`` old (checked
    at each log call and by `flush_if_due`), and when the context or the database closes. A flush is one transaction. A
    row that the database can never accept is written to ``dead_letters`` with the reason, in the same transaction.
    """

    def __init__(
        self,
        store: Store,
        simulation_id: str,
        *,
        now_us: Callable[[], int],
        buffer_rows: int = BUFFER_ROWS,
        flush_interval_us: int = FLUSH_INTERVAL_US,
    ) -> None:
        self.simulation_id = simulation_id
        self.refused = 0
        """Rows written to ``dead_letters``."""
        self._store = store
        self._now_us = now_us
        self._buffer_rows = buffer_rows
        self._flush_interval_us = flush_interval_us
        self._buffers: dict[str, list[dict[str, Any]]] = {name: [] for name in LOGGED}
        self._waiting = 0
        self._oldest_us: int | None = None
        self._next_ids = {table: self._greatest_id(table) + 1 for table in _COUNTED}
        self._stored_ids = {table: following - 1 for table, following in self._next_ids.items()}
        """Greatest id of each table that is known to be in the database."""

    @property
    def waiting(self) -> int:
        """Rows in the buffer."""
        return self._waiting

    def log_agent(
        self,
        agent_id: str | int,
        birth_time: int,
        agent_type: str,
        position: Position | None = None,
        **columns: Any,
    ) -> None:
        """Log the birth of an agent; ``columns`` are further columns of the table, such as ``generation``."""
        row = {"agent_id": str(agent_id), "birth_time": birth_time, "agent_type": agent_type, **_placed(position)}
        self.log("agents", row | columns)

    def log_agents_batch(self, agents: Sequence[Mapping[str, Any]]) -> None:
        """Log several agents, each given by the arguments of `log_agent`."""
        for agent in agents:
            self.log_agent(**agent)

    def log_agent_death(self, agent_id: str | int, death_time: int) -> None:
        """Log the death of an agent, whether or not its birth was logged."""
        self.log("agents", {"agent_id": str(agent_id), "death_time": death_time})

    def log_agent_state(self, step_number: int, agent_id: str | int, **columns: Any) -> None:
        """Log the state of one agent at one step."""
        row = {"id": f"{agent_id}-{step_number}", "step_number": step_number, "agent_id": str(agent_id)}
        self.log("agent_states", row | columns)

    def log_resource(self, step_number: int, resource_id: int, amount: float, position: Position | None = None) -> None:
        """Log the amount of one resource at one step."""
        row = {"id": resource_state_id(step_number, resource_id), "step_number": step_number}
        self.log("resource_states", row | {"resource_id": resource_id, "amount": amount, **_placed(position)})

    def log_step(
        self,
        step_number: int,
        agent_states: Sequence[Mapping[str, Any]] = (),
        resource_states: Sequence[Mapping[str, Any]] = (),
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a step: states of agents and resources, and the aggregates (columns of ``simulation_steps``)."""
        for state in agent_states:
            self.log_agent_state(step_number, **state)
        for resource in resource_states:
            self.log_resource(step_number, **resource)
        self.log("simulation_steps", {"step_number": step_number} | dict(metrics or {}))

    def log_agent_action(
        self,
        step_number: int,
        agent_id: str | int,
        action_type: str,
        action_target_id: str | int | None = None,
        *,
        details: Any = None,
        **columns: Any,
    ) -> int:
        """Log one action; ``details`` is stored as JSON. Returns its id."""
        row = {
            "step_number": step_number,
            "agent_id": str(agent_id),
            "action_type": action_type,
            "action_target_id": None if action_target_id is None else str(action_target_id),
            "details": _document(details),
        }
        return self._log_counted("agent_actions", row | columns)

    def log_learning_experience(
        self, step_number: int, agent_id: str | int, module_type: str, module_id: str, **columns: Any
    ) -> int:
        """Log one learning experience of an agent. Returns its id."""
        row = {"step_number": step_number, "agent_id": str(agent_id), "module_type": module_type}
        return self._log_counted("learning_experiences", row | {"module_id": module_id, **columns})

    def log_health_incident(
        self,
        step_number: int,
        agent_id: str | int,
        health_before: float,
        health_after: float,
        cause: str,
        *,
        details: Any = None,
    ) -> int:
        """Log a change of an agent's health; ``details`` is stored as JSON. Returns the incident's id."""
        row = {
            "step_number": step_number,
            "agent_id": str(agent_id),
            "health_before": health_before,
            "health_after": health_after,
            "cause": cause,
            "details": _document(details),
        }
        return self._log_counted("health_incidents", row)

    def log_kernel(
        self, kernel_id: str | int, status: str = "spawned", *, timestamp: int | None = None, **columns: Any
    ) -> int:
        """Log a kernel after one of its events, such as ``updated`` or ``retired``. Returns the number of the event.

        ``columns`` are columns of ``kernel_geometry``; those that are not given keep their values there, and are null
        in this event's row of ``kernel_history``. ``timestamp`` is in microseconds since 1970, now by default.
        """
        at_us = self._now_us() if timestamp is None else timestamp
        row = {"kernel_id": str(kernel_id), "timestamp": at_us, "status": status, **columns}
        born = {"spawned_at": utc_from_us(at_us).replace(tzinfo=None)} if status == "spawned" else {}
        self.log("kernel_geometry", born | row)
        held = LOGGED["kernel_history"].table.c
        return self._log_counted("kernel_history", {name: value for name, value in row.items() if name in held})

    def log_war(
        self, attacker_id: str | int, defender_id: str | int, *, timestamp: int | None = None, **columns: Any
    ) -> int:
        """Log a war between two kernels, with ``winner_id``, ``rounds`` and so on. Returns its id."""
        row = {
            "timestamp": self._now_us() if timestamp is None else timestamp,
            "attacker_id": str(attacker_id),
            "defender_id": str(defender_id),
            **columns,
        }
        if row.get("winner_id") is not None:
            row["winner_id"] = str(row["winner_id"])
        return self._log_counted("war_history", row)

    def log(self, table: str, row: Mapping[str, Any]) -> None:
        """Buffer one row of any logged table. Raises InvalidEvent for an unknown table or column."""
        target = LOGGED.get(table)
        if target is None:
            raise InvalidEvent(f"a row for table {table!r}; expected one of {', '.join(LOGGED)}")
        unknown = [name for name in row if name not in target.table.c]
        if unknown:
            columns = ", ".join(target.table.c.keys())
            raise InvalidEvent(f"table {table} has no column {unknown[0]!r}; it has {columns}")
        now = self._now_us()
        self._buffers[table].append({**row, "simulation_id": self.simulation_id, "recorded_at": now})
        self._waiting += 1
        if self._oldest_us is None:
            self._oldest_us = now
        if self._waiting >= self._buffer_rows or now - self._oldest_us >= self._flush_interval_us:
            self.flush()

    def flush_if_due(self) -> None:
        """Flush if the oldest row is ``flush_interval_us`` old; for programs that log rarely."""
        if self._oldest_us is not None and self._now_us() - self._oldest_us >= self._flush_interval_us:
            self.flush()

    def flush(self) -> None:
        """Write all buffered rows in one transaction. Raises FlushFailed, and then nothing was written."""
        if not self._waiting:
            return
        store = self._store
        letters = []
        try:
            store.connect()
            with store.transaction():
                self._avoid_taken_ids()
                for rows in [from_mappings(LOGGED[table], rows) for table, rows in self._buffers.items() if rows]:
                    find_problems(rows)
                    good = rows.without(rows.bad)
                    letters += [self._letter(rows.target.table.name, unit, rows.bad[unit]) for unit in sorted(rows.bad)]
                    for parents in parent_rows(good):
                        store.upsert(parents)
                    store.upsert(good)
                store.upsert(from_mappings(LOGGED["dead_letters"], letters))
        except Exception as error:
            fault = store.fault_of(error)
            raise FlushFailed(
                f"{self._waiting} rows of simulation {self.simulation_id!r} could not be written and stay in the "
                f"buffer: {fault.reason}"
            ) from error
        self.refused += len(letters)
        for buffer in self._buffers.values():
            buffer.clear()
        self._stored_ids = {table: following - 1 for table, following in self._next_ids.items()}
        self._waiting = 0
        self._oldest_us = None

    flush_all_buffers = flush

    def _log_counted(self, table: str, row: dict[str, Any]) -> int:
        number = self._next_ids[table]
        self.log(table, {_COUNTED[table]: number, **row})
        self._next_ids[table] = number + 1
        return number

    def _avoid_taken_ids(self) -> None:
        """Give rows other ids where another process that logs to this simulation has taken theirs meanwhile.

        They would replace the rows of that one.
        """
        counted = {table: rows for table, rows in self._buffers.items() if rows and table in _COUNTED}
        if counted:
            self._store.lock("logger")
        for table, rows in counted.items():
            greatest, column = self._greatest_id(table), _COUNTED[table]
            shift = greatest - self._stored_ids[table]
            if shift <= 0 or self._is_stored(table, rows[0]):
                continue
            logger.warning(
                "simulation %s: another process logs to it, too, and has taken the ids from %s on of %s; %s rows of "
                "this one get ids from %s on. Give each process a simulation of its own",
                self.simulation_id, rows[0][column], table, len(rows), rows[0][column] + shift,
            )  # fmt: skip
            for row in rows:
                row[column] += shift
            self._next_ids[table] += shift
            self._stored_ids[table] = greatest

    def _is_stored(self, table: str, row: Mapping[str, Any]) -> bool:
        """Whether a row was written by a flush whose end is not known: the connection was lost at that moment."""
        columns = _TELLING.get(table, _OF_AGENTS)
        found = self._store.query(
            f"SELECT {', '.join(columns)} FROM {table} WHERE simulation_id = ? AND {_COUNTED[table]} = ?",  # noqa: S608
            (self.simulation_id, row[_COUNTED[table]]),
        )
        return found == [tuple(row[name] for name in columns)]

    def _greatest_id(self, table: str) -> int:
        column = _COUNTED[table]
        query = f"SELECT coalesce(max({column}), 0) FROM {table} WHERE simulation_id = ?"  # noqa: S608 - our own names
        rows = self._store.query(query, (self.simulation_id,))
        if not rows:
            raise SinkError(f"table {table} cannot be read: the query for the greatest {column} returned no row")
        return int(rows[0][0])

    def _letter(self, table: str, row: int, reason: str) -> dict[str, Any]:
        content = json.dumps(self._buffers[table][row], default=repr, sort_keys=True)
        return {
            "letter_id": str(hash_id("logger", self.simulation_id, table, content)),
            "simulation_id": self.simulation_id,
            "stage": "sql",
            "reason": reason.replace("\0", "\\0"),
            "source_topic": f"logger.{table}",
            "source_partition": 0,
            "source_offset": 0,
            "source_row": row,
            "payload": content.encode(),
            "recorded_at": self._now_us(),
        }


def _placed(position: Position | None) -> dict[str, float]:
    return {} if position is None else {"position_x": position[0], "position_y": position[1]}


def _document(details: Any) -> str | None:
    if details is None or isinstance(details, str):
        return details
    return json.dumps(details, default=repr)
