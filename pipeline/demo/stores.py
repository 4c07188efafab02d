"""Counts of what a demo left in its stores."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from astrocyte.agents.sinks.sql.engines import engine_of

__all__ = ["DatabaseContent", "count_points", "read_database"]

_INTERNAL: Final = ("alembic_version", "sink_positions")


@dataclass(frozen=True, slots=True)
class DatabaseContent:
    """Rows of every table, one multi event as an example, the last alerts, and what the last statistics say."""

    rows: Mapping[str, int]
    example: str | None
    alerts: tuple[tuple[str, str], ...]
    """Severity and message, in time order."""
    statistics: tuple[str, ...] = ()
    """A line on the newest window of each statistic that is shown."""


def read_database(address: str) -> DatabaseContent:
    """Count the rows of the database at a SQLAlchemy URL; empty if it has no tables."""
    with engine_of(address).connect() as connection:
        names = [name for name in inspect(connection).get_table_names() if name not in _INTERNAL]
        rows = {name: int(connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one()) for name in names}  # noqa: S608
        example, alerts = None, []
        if "multi_events" in rows:
            example = connection.execute(text("SELECT event_id FROM multi_events ORDER BY event_id LIMIT 1")).scalar()
        if "alerts" in rows:
            newest = text("SELECT severity, message FROM alerts ORDER BY timestamp DESC LIMIT 3")
            alerts = [(str(severity), str(message)) for severity, message in connection.execute(newest)]
        lines = tuple(_statistics(connection)) if "window_results" in rows else ()
    return DatabaseContent(rows, None if example is None else str(example), tuple(reversed(alerts)), lines)


def _statistics(connection: Connection) -> Iterator[str]:
    """What the newest results of ``selection`` and ``forecast`` say."""
    signs = [
        f"{each['sign']} on {trait} ({each['beta']:.2f} ± {each['beta_se']:.2f})"
        for trait, each in _newest(connection, "selection").items()
        if each.get("sign") in ("positive", "negative")
    ]
    if signs or _newest(connection, "selection"):
        yield f"selection: {', '.join(signs) or 'on no trait at the level of 5 %'}"
    for key, each in _newest(connection, "forecast").items():
        target, _, horizon = key.partition("/")
        if target == "total_population" and each.get("median") is not None:
            yield (
                f"forecast: population in {int(horizon) / 1e6:g} s {each['median']:,.0f}, 95 % between "
                f"{each['low_95']:,.0f} and {each['high_95']:,.0f}; it dies out by then with probability "
                f"{each['limit_probability']:.3f}"
            )


def _newest(connection: Connection, name: str) -> dict[str, dict[str, Any]]:
    """Fields of the results of the last window of a statistic, by what each is about."""
    query = text(
        "SELECT event_key, field, value, text FROM window_results WHERE window_name = :name AND window_end = "
        "(SELECT max(window_end) FROM window_results WHERE window_name = :name) ORDER BY event_key"
    )
    found: dict[str, dict[str, Any]] = {}
    for key, field, value, words in connection.execute(query, {"name": name}):
        found.setdefault(str(key), {})[str(field)] = words if value is None else value
    return found


def count_points(folder: Path) -> int:
    """Points of line protocol in the compressed files of a folder."""
    count = 0
    for path in sorted(folder.glob("**/*.lp.gz")):
        with gzip.open(path) as lines:
            count += sum(1 for line in lines if line.strip() and not line.startswith(b"#"))
    return count
