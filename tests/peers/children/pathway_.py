"""Pathway: `windowby` with tumbling windows over a table in memory, as a batch run of the engine."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pathway as pw
from protocol import arguments, match_hash, records, serve

WITHIN_US = int(arguments()["within"])


def prepare(data: bytes) -> Any:
    rows = records(data)
    return pd.DataFrame(
        {"t": [row[0] for row in rows], "key": [row[1] for row in rows], "value": [row[3] for row in rows]}
    )


def run(state: object, events: Any) -> list[tuple[int, ...]]:
    pw.internals.parse_graph.G.clear()
    table = pw.debug.table_from_pandas(events)
    results = table.windowby(
        table.t, window=pw.temporal.tumbling(duration=WITHIN_US, origin=0), instance=table.key
    ).reduce(
        key=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        n=pw.reducers.count(),
        total=pw.reducers.sum(pw.this.value),
        top=pw.reducers.max(pw.this.value),
    )
    found: list[tuple[int, ...]] = []

    def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        found.append((row["key"], row["start"], row["n"], int(row["total"] * 1024), int(row["top"] * 1024)))

    pw.io.subscribe(results, on_change=take)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    return found


def read(found: list[tuple[int, ...]]) -> tuple[int, int]:
    return len(found), sum(map(match_hash, found))


if __name__ == "__main__":
    serve(prepare, run, read=read)
