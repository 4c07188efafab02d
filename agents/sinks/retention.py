"""Retention: expired rows are deleted in small transactions; states are downsampled before they are deleted.

A row's age is computed from ``recorded_at``, the wall time at which it was first written, never from event time (which
may be any time in a simulation); a row without it is kept. Before states are deleted, each of their steps is aggregated
into ``simulation_steps``, unless the simulation wrote that step itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astrocyte.agents.sinks.audit.chain import PURGED, AuditEntry, purge_payload
from astrocyte.agents.sinks.audit.sink import append_to_store
from astrocyte.agents.sinks.base import SinkError
from astrocyte.agents.sinks.sql.engines import driver_errors
from astrocyte.agents.sinks.sql.migrate import check
from astrocyte.agents.sinks.sql.store import Store
from astrocyte.agents.sinks.sql.url import open_store
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings
from astrocyte.schemas.ids import hash_id

__all__ = ["DEFAULT_DAYS", "LEAST_DAYS", "Removed", "apply_retention", "downsample_states", "retention_days"]

DEFAULT_DAYS: Final[Mapping[str, float | None]] = {
    "agent_states": 30,
    "resource_states": 30,
    "agent_actions": None,
    "learning_experiences": None,
    "health_incidents": None,
    "problem_results": None,
    "evolutionary_events": None,
    "karma_scores": None,
    "multi_events": None,
    "alerts": None,
    "dead_letters": 90,
    "audit_log": None,
}
"""Days for which each table keeps its rows; None: for ever. Retention does not apply to tables not named here."""

LEAST_DAYS: Final[Mapping[str, float]] = {"audit_log": 90}
"""Shortest permitted retention in days; one day for tables not named here."""

_STEPPED: Final = ("agent_states", "resource_states")
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent_actions": ("action_id", "simulation_id"),
    "learning_experiences": ("experience_id", "simulation_id"),
    "health_incidents": ("incident_id", "simulation_id"),
    "problem_results": ("simulation_id", "id"),
    "evolutionary_events": ("simulation_id", "id"),
    "karma_scores": ("simulation_id", "id"),
    "multi_events": ("event_id",),
    "alerts": ("alert_id",),
    "dead_letters": ("letter_id",),
}
_DAY_US: Final = 86_400_000_000
_BUSY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Removed:
    """Number of rows that one transaction of retention deleted."""

    table: str
    rows: int


def retention_days(overrides: Mapping[str, float | None] | None = None) -> dict[str, float | None]:
    """Days of every table with ``overrides`` in place of the defaults. Raises InvalidSettings."""
    days = dict(DEFAULT_DAYS)
    for table, wanted in (overrides or {}).items():
        if table not in days:
            raise InvalidSettings(f"retention of table {table!r}; expected one of {', '.join(days)}")
        least = LEAST_DAYS.get(table, 1)
        if wanted is not None and not wanted >= least:
            raise InvalidSettings(f"retention of {table} is {wanted:g} days; expected at least {least:g}")
        days[table] = wanted
    return days


def apply_retention(
    address: str | Path,
    *,
    now_us: int,
    days: Mapping[str, float | None] | None = None,
    batch_rows: int = 5_000,
) -> Iterator[Removed]:
    """Delete expired rows, yielding after each transaction, so that the caller may pause or stop in between.

    ``now_us`` is the wall time. An interrupted call is continued by the next one. Raises InvalidSettings, SinkError.
    """
    wanted = retention_days(days)
    with driver_errors(address):
        check(address)
    store = open_store(address, busy_s=_BUSY_S)
    try:
        store.connect()
        for table, kept in wanted.items():
            if kept is None:
                continue
            before_us = now_us - round(kept * _DAY_US)
            if table in _STEPPED:
                yield from _remove_steps(store, table, before_us, batch_rows)
            elif table == "audit_log":
                yield from _purge_audit(store, before_us, now_us, batch_rows)
            else:
                yield from _remove_rows(store, table, before_us, batch_rows)
    except AstrocyteError:
        raise
    except Exception as error:
        raise SinkError(f"retention failed: {store.fault_of(error).reason}; run it again") from error
    finally:
        store.disconnect()


def downsample_states(store: Store, simulation_id: str, first_step: int, end_step: int) -> None:
    """Aggregate states from ``first_step`` up to ``end_step`` into ``simulation_steps``; existing values are kept."""
    place = (simulation_id, first_step, end_step)
    agents = {
        "total_agents": "count(*)",
        "average_agent_resources": "avg(resource_level)",
        "average_agent_health": "avg(current_health)",
        "average_agent_age": "CAST(avg(age) AS BIGINT)",
        "average_reward": "avg(total_reward)",
    }
    for table, columns in (("agent_states", agents), ("resource_states", {"total_resources": "sum(amount)"})):
        names = ", ".join(columns)
        sets = ", ".join(f"{name} = COALESCE(simulation_steps.{name}, excluded.{name})" for name in columns)
        store.execute(
            f"INSERT INTO simulation_steps (simulation_id, step_number, {names}) "  # noqa: S608 - our own names
            f"SELECT simulation_id, step_number, {', '.join(columns.values())} FROM {table} "
            "WHERE simulation_id = ? AND step_number >= ? AND step_number < ? GROUP BY simulation_id, step_number "
            f"ON CONFLICT (simulation_id, step_number) DO UPDATE SET {sets}",
            place,
        )


def _remove_steps(store: Store, table: str, before_us: int, batch_rows: int) -> Iterator[Removed]:
    """Delete step by step from the oldest, using the index on steps, up to the first step to keep."""
    for (simulation_id,) in store.query("SELECT simulation_id FROM simulations ORDER BY simulation_id"):
        step = -(2**62)
        while True:
            found = store.query(
                f"SELECT min(step_number) FROM {table} WHERE simulation_id = ? AND step_number > ?",  # noqa: S608
                (simulation_id, step),
            )
            step = found[0][0]
            if step is None:
                break
            at = (simulation_id, step)
            newest, dated = store.query(
                f"SELECT max(recorded_at), count(recorded_at) FROM {table} "  # noqa: S608
                "WHERE simulation_id = ? AND step_number = ?",
                at,
            )[0]
            if not dated:
                continue
            if newest >= before_us:
                break
            yield from _remove_step(store, table, at, batch_rows)


def _remove_step(store: Store, table: str, at: tuple[str, int], batch_rows: int) -> Iterator[Removed]:
    downsampled = False
    while True:
        with store.transaction():
            if not downsampled:
                downsample_states(store, *at, at[1] + 1)
                downsampled = True
            chosen = (
                f"(SELECT id FROM {table} WHERE simulation_id = ? AND step_number = ? "  # noqa: S608
                f"AND recorded_at IS NOT NULL LIMIT {batch_rows})"
            )
            if table == "agent_states":
                for column in ("state_before_id", "state_after_id"):
                    store.execute(
                        f"UPDATE agent_actions SET {column} = NULL WHERE simulation_id = ? AND {column} IN {chosen}",  # noqa: S608
                        (at[0], *at),
                    )
            rows = store.execute(f"DELETE FROM {table} WHERE simulation_id = ? AND id IN {chosen}", (at[0], *at))  # noqa: S608
        if rows:
            yield Removed(table, rows)
        if rows < batch_rows:
            return


def _remove_rows(store: Store, table: str, before_us: int, batch_rows: int) -> Iterator[Removed]:
    key = ", ".join(_KEYS[table])
    statement = (
        f"DELETE FROM {table} WHERE ({key}) IN "  # noqa: S608
        f"(SELECT {key} FROM {table} WHERE recorded_at < ? LIMIT {batch_rows})"
    )
    while True:
        with store.transaction():
            rows = store.execute(statement, (before_us,))
        if rows:
            yield Removed(table, rows)
        if rows < batch_rows:
            return


def _purge_audit(store: Store, before_us: int, now_us: int, batch_rows: int) -> Iterator[Removed]:
    """Delete from the start of the chain; each transaction appends an entry that records what it deleted."""
    while True:
        with store.transaction():
            store.lock("audit")
            kept = store.query(
                "SELECT min(entry) FROM audit_log WHERE recorded_at IS NULL OR recorded_at >= ?", (before_us,)
            )
            first = store.query("SELECT min(entry), max(entry) FROM audit_log")[0]
            if first[0] is None:
                return
            # At least one entry must remain, because the next entry needs its hash.
            end = min(kept[0][0] if kept[0][0] is not None else first[1], first[0] + batch_rows)
            if end <= first[0]:
                return
            last = _entry(store, end - 1)
            event = {
                "timestamp": now_us,
                "kind": PURGED,
                "subject": None,
                "simulation_id": None,
                "event_id": str(hash_id(PURGED, last.hash)),
                "payload": purge_payload(last.entry, last.hash),
            }
            append_to_store(store, [event], now_us)
            rows = store.execute("DELETE FROM audit_log WHERE entry < ?", (end,))
        yield Removed("audit_log", rows)


def _entry(store: Store, number: int) -> AuditEntry:
    columns = "entry, timestamp, kind, subject, simulation_id, event_id, payload, previous_hash, hash"
    return AuditEntry(*store.query(f"SELECT {columns} FROM audit_log WHERE entry = ?", (number,))[0])  # noqa: S608
