"""One run of a world, or the events that belong to none: its charts over event time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.page.aggregates.axis import BUCKETS, EMPTY, Axis
from astrocyte.pipeline.page.aggregates.grid import Grid, add, moved
from astrocyte.pipeline.page.content.charts import Chart, Line, Measure, charts_of_stream
from astrocyte.pipeline.page.content.rows import Rows
from astrocyte.pipeline.page.content.worlds import CHARTS, FORECASTS, NOT_DRAWN

__all__ = ["SEVERITIES", "Run", "is_drawn", "step", "took_findings"]

SEVERITIES: Final = ("critical", "warning", "info")
_ALERTS: Final = Measure("alerts", None, "severity", SEVERITIES)
_MATCHES: Final = Measure("multi.events")
_AHEAD_US: Final = 3_600_000_000
"""How far an event may be ahead of its Kafka time: one beyond has a wrong clock and would stretch the axis."""
_BEFORE_US: Final = 3_600_000_000
"""How far an event may lie before the first one."""
_MOST_STREAMS: Final = 12
"""Streams without charts of their own that are drawn."""
_FORECASTS_KEPT: Final = 8
_KNOWN: Final = {measure.stream for chart in CHARTS for measure in chart.measures}


def is_drawn(stream: str) -> bool:
    """Whether the page reads the rows of a stream."""
    return stream == FORECASTS or stream not in NOT_DRAWN


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """State of one run; `step` and `took_findings` make the next one. Its size does not depend on the events."""

    name: str
    axis: Axis = EMPTY
    begin_us: int | None = None
    """Time of the first event that came."""
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """By the name of the measure."""
    written_us: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    """By bucket: the newest time at which Kafka had an event of it; 0 without events."""
    own_charts: tuple[Chart, ...] = ()
    """Of streams without charts of their own."""
    streams: frozenset[str] = frozenset()
    outside: int = 0
    """Events whose time is too far from the others to be drawn."""
    forecasts: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    """Newest forecast by target and horizon."""

    @property
    def charts(self) -> list[Chart]:
        """The charts whose streams have been seen."""
        fixed = [chart for chart in CHARTS if all(measure.stream in self.streams for measure in chart.measures)]
        return [*fixed, *self.own_charts]

    def values(self, line: Line) -> NDArray[np.float64]:
        """Values of a line by bucket, up to the newest; NaN where there were no events."""
        grid = self.grids.get(line.measure.name)
        used = self.axis.used
        if grid is None:
            return np.full(used, np.nan)
        counts = grid.counts[line.group, :used]
        if line.how == "mean":
            return grid.means()[line.group, :used]
        if line.how == "count":
            return counts.astype(np.float64)
        if line.measure.field is None:
            return counts / (self.axis.width_us / 1e6)
        # Rows of sums come at even distances, which need not be those of the buckets: the mean, as often as they come.
        span_us = self.axis.newest_us - self.axis.oldest_us
        often = (int(counts.sum()) - 1) / (span_us / 1e6) if span_us else math.nan
        return grid.means()[line.group, :used] * often

    def classes(self, measure: Measure) -> NDArray[np.int64]:
        """Number of values by class and bucket, shape [classes, buckets in use]."""
        grid = self.grids.get(measure.name, Grid.of(measure.rows))
        return grid.counts[:, : self.axis.used]

    def findings(self) -> dict[str, NDArray[np.int64]]:
        """Alerts by severity, and multi events, by bucket."""
        used = self.axis.used
        alerts, matches = (self.grids.get(each.name, Grid.of(each.rows)) for each in (_ALERTS, _MATCHES))
        found = {name: alerts.counts[row, :used] for row, name in enumerate(SEVERITIES)}
        return {**found, "matches": matches.counts[0, :used]}


def step(run: Run, stream: str, rows: Rows) -> Run:
    """The run after more rows of one stream, in the order in which they came."""
    if stream == FORECASTS:
        return _with_forecasts(run, rows)
    if not is_drawn(stream):
        return run
    if stream not in run.streams:
        run = _with_stream(run, stream, rows)
    run, inside = _placed(run, rows.times_us, rows.written_us)
    if not inside.any():
        return run
    positions = run.axis.positions(rows.times_us[inside])
    written_us = run.written_us.copy()
    np.maximum.at(written_us, positions, rows.written_us[inside])
    grids = dict(run.grids)
    for measure in _measures(run, stream):
        groups = rows.groups(measure)
        values = None if measure.field is None or measure.classes is not None else rows.numbers(measure.field)
        grids[measure.name] = add(
            grids.get(measure.name, Grid.of(measure.rows)),
            positions,
            None if groups is None else groups[inside],
            None if values is None else values[inside],
        )
    return replace(run, grids=grids, written_us=written_us)


def took_findings(
    run: Run, times_us: NDArray[np.int64], written_us: NDArray[np.int64], severities: Sequence[str] | None
) -> Run:
    """The run after more alerts, with their severities, or after more multi events, which have none."""
    run, inside = _placed(run, times_us, written_us)
    if not inside.any():
        return run
    measure = _MATCHES if severities is None else _ALERTS
    groups = None if severities is None else np.array([_code(each) for each in severities], np.int64)[inside]
    grid = add(run.grids.get(measure.name, Grid.of(measure.rows)), run.axis.positions(times_us[inside]), groups, None)
    return replace(run, grids={**run.grids, measure.name: grid})


def _placed(run: Run, times_us: NDArray[np.int64], written_us: NDArray[np.int64]) -> tuple[Run, NDArray[np.bool_]]:
    """The run whose axis covers the times, and which of them are on it."""
    if not len(times_us):
        return run, np.zeros(0, bool)
    begin_us = int(times_us[0]) if run.begin_us is None else run.begin_us
    inside = (times_us >= begin_us - _BEFORE_US) & (times_us <= written_us + _AHEAD_US)
    kept = times_us[inside]
    run = replace(run, begin_us=begin_us, outside=run.outside + len(inside) - len(kept))
    return (_covering(run, int(kept.min()), int(kept.max())) if len(kept) else run), inside


def _code(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES) - 1


def _measures(run: Run, stream: str) -> list[Measure]:
    charts = (*CHARTS, *run.own_charts)
    return list(dict.fromkeys(measure for chart in charts for measure in chart.measures if measure.stream == stream))


def _with_stream(run: Run, stream: str, rows: Rows) -> Run:
    run = replace(run, streams=run.streams | {stream})
    own = {chart.measures[0].stream for chart in run.own_charts}
    if stream in _KNOWN or len(own) >= _MOST_STREAMS:
        return run
    return replace(run, own_charts=(*run.own_charts, *charts_of_stream(rows.frames[0])))


def _covering(run: Run, oldest_us: int, newest_us: int) -> Run:
    axis = run.axis.covering(oldest_us, newest_us)
    if run.axis.is_empty or (axis.width_us, axis.first) == (run.axis.width_us, run.axis.first):
        return replace(run, axis=axis)
    places = (
        np.arange(run.axis.first, run.axis.first + run.axis.used) * run.axis.width_us
    ) // axis.width_us - axis.first
    written_us = np.zeros(BUCKETS, np.int64)
    np.maximum.at(written_us, places, run.written_us[: run.axis.used])
    grids = {name: moved(grid, run.axis, axis) for name, grid in run.grids.items()}
    return replace(run, axis=axis, grids=grids, written_us=written_us)


def _with_forecasts(run: Run, rows: Rows) -> Run:
    """Keep the newest forecast of each target and horizon."""
    forecasts = dict(run.forecasts)
    for frame in rows.frames:
        for row in frame.rows():
            if row.get("median") is None:
                continue
            about = (str(row["target"]), int(row["horizon_us"]))
            shown = {name: row[name] for name in ("median", "low_95", "high_95", "low_50", "high_50")}
            forecasts[about] = {"at_us": int(row["timestamp"]) + about[1], "from_us": int(row["timestamp"]), **shown}
    kept = list(forecasts.items())[-_FORECASTS_KEPT:]
    return replace(run, forecasts=dict(kept))
