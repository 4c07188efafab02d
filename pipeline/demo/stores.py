"""Counts of what a demo left in its stores."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import inspect, text

from astrocyte.agents.sinks.sql.engines import engine_of

__all__ = ["DatabaseContent", "count_points", "read_database"]

_INTERNAL: Final = ("alembic_version", "sink_positions")


@dataclass(frozen=True, slots=True)
class DatabaseContent:
    """Rows of every table, one multi event as an example, and the last alerts."""

    rows: Mapping[str, int]
    example: str | None
    alerts: tuple[tuple[str, str], ...]
    """Severity and message, in time order."""


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
    return DatabaseContent(rows, None if example is None else str(example), tuple(reversed(alerts)))


def count_points(folder: Path) -> int:
    """Points of line protocol in the compressed files of a folder."""
    count = 0
    for path in sorted(folder.glob("**/*.lp.gz")):
        with gzip.open(path) as lines:
            count += sum(1 for line in lines if line.strip() and not line.startswith(b"#"))
    return count
