"""Counts of what a demo left in its stores."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from astrocyte.agents.sinks.sql.engines import engine_of

__all__ = ["DatabaseContent", "count_points", "read_database"]

_INTERNAL: Final = ("alembic_version", "sink_positions")
_FAR: Final = 100
"""A forecast of more times the present count is not printed in digits."""


@dataclass(frozen=True, slots=True)
class DatabaseContent:
    """Rows of every table, one multi event as an example, the last alerts, and what the last statistics say."""

    rows: Mapping[str, int]
    example: str | None
    alerts: tuple[tuple[str, str], ...]
    """Severity and message, in time order."""
    statistics: tuple[str, ...] = ()
    """A line on each statistic that is shown: selection over all windows, the newest forecast."""


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
    """What the results of ``selection`` in all windows, and the newest of ``forecast``, say."""
    windows = _results(connection, "selection")
    if windows:
        found = Counter(
            (trait, each["sign"])
            for results in windows.values()
            for trait, each in results.items()
            if each.get("sign") in ("positive", "negative")
        )
        total = len(windows)
        signs = [f"{sign} on {trait} in {count}" for (trait, sign), count in sorted(found.items())]
        first_s, last_s = (ends[0] / 1e6 for ends in (min(windows), max(windows)))
        newest = [
            f"{each['sign']} on {trait} ({each['beta']:.2f} ± {each['beta_se']:.2f})"
            for trait, each in windows[max(windows)].items()
            if each.get("sign") in ("positive", "negative")
        ]
        length_s = (max(windows)[1] - max(windows)[0]) / 1e6
        yield (
            f"selection in {total} window{'s' if total != 1 else ''} of {length_s:g} s: "
            f"{', '.join(signs) or 'on no trait'}, each at the level of 5 %; in the last, from "
            f"{last_s - first_s:g} s after the first began: {', '.join(newest) or 'on no trait'}"
        )
    forecasts = _results(connection, "forecast")
    for key, each in forecasts[max(forecasts)].items() if forecasts else ():
        target, _, horizon = key.partition("/")
        if target == "total_population" and each.get("median") is not None:
            yield (
                f"forecast: population in {int(horizon) / 1e6:g} s {_times(each['median'], each['value'])}, 95 % "
                f"between {_times(each['low_95'], each['value'])} and {_times(each['high_95'], each['value'])}; it "
                f"dies out by then with probability {each['limit_probability']:.3f}"
            )


def _times(value: float, now: float) -> str:
    """A predicted count, as a multiple of that of now where it is so far off that its digits say nothing."""
    if now > 0 and value > _FAR * now:
        return f"more than {_FAR} times as many as now"
    return f"{value:,.0f}"


def _results(connection: Connection, name: str) -> dict[tuple[int, int], dict[str, dict[str, Any]]]:
    """Fields of the results of a statistic, by window (start and end, microseconds) and by what each is about."""
    query = text(
        "SELECT window_start, window_end, event_key, field, value, text FROM window_results "
        "WHERE window_name = :name ORDER BY window_end, event_key"
    )
    found: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for start, end, key, field, value, words in connection.execute(query, {"name": name}):
        of = found.setdefault((int(start), int(end)), {}).setdefault(str(key), {})
        of[str(field)] = words if value is None else value
    return found


def count_points(folder: Path) -> int:
    """Points of line protocol in the compressed files of a folder."""
    count = 0
    for path in sorted(folder.glob("**/*.lp.gz")):
        with gzip.open(path) as lines:
            count += sum(1 for line in lines if line.strip() and not line.startswith(b"#"))
    return count
