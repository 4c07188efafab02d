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
from astrocyte.pipeline.page.content.charts import MOST_NAMES, Chart, Line, Measure, charts_of_stream
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
_OTHERS: Final = "others"
_FORECASTS_KEPT: Final = 8
_RATE_US: Final = 1_000_000
"""Rates are over at least this time, and over at least two buckets, of which the newest is not full."""
_NO_TIME: Final = np.iinfo(np.int64).min
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
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the name of a measure of JSON fields: the names inside that have come, in that order."""
    written_us: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    """By bucket: the newest time at which Kafka had an event of it; 0 without events."""
    lasts_us: NDArray[np.int64] = field(default_factory=lambda: np.full(BUCKETS, _NO_TIME))
    """By bucket: the time of its last event or finding. At that instant all figures are known, and between it and the
    next event."""
    own_charts: tuple[Chart, ...] = ()
    """Of streams without charts of their own."""
    spans_us: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By stream: the times of its first and its last event that is drawn."""
    streams: frozenset[str] = frozenset()
    outside: int = 0
    """Events whose time is too far from the others to be drawn."""
    forecasts: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    """Newest forecast by target and horizon."""

    @property
    def charts(self) -> list[Chart]:
        """The charts whose streams have been seen."""
        fixed = [chart for chart in CHARTS if all(measure.stream in self.streams for measure in chart.measures)]
        return [*(chart.named(self.names) for chart in fixed), *self.own_charts]

    def values(self, line: Line) -> NDArray[np.float64]:
        """Values of a line by bucket, up to the newest; NaN where there were no events."""
        grid = self.grids.get(line.measure.name)
        used = self.axis.used
        if grid is None:
            return np.full(used, np.nan)
        counts = grid.counts[line.group, :used]
        if line.how == "last":
            return np.full(used, np.nan) if grid.spread is None else grid.spread.lasts[line.group, :used]
        if line.how == "mean":
            return grid.means()[line.group, :used]
        if line.how == "count":
            return counts.astype(np.float64)
        oldest_us, newest_us = self.spans_us[line.measure.stream]
        if line.measure.field is None:
            return self._rates(counts, newest_us)
        # Rows of sums come at even distances, which need not be those of the buckets: the mean, as often as they come.
        often = (int(counts.sum()) - 1) / ((newest_us - oldest_us) / 1e6) if newest_us > oldest_us else math.nan
        return grid.means()[line.group, :used] * often

    def _rates(self, counts: NDArray[np.int64], newest_us: int) -> NDArray[np.float64]:
        """Events in a second of a stream by bucket, over the time up to its end, or up to the newest event in it."""
        axis = self.axis
        window = max(-(-_RATE_US // axis.width_us), 2)
        sums = np.cumsum(counts)
        sums[window:] -= sums[:-window].copy()
        ends_us = axis.start_us + (np.arange(axis.used) + 1) * axis.width_us
        begins_us = np.maximum(ends_us - window * axis.width_us, axis.oldest_us)
        ends_us = np.minimum(ends_us, axis.newest_us)
        ends_us[axis.positions(np.array([newest_us]))] = newest_us
        return sums / (np.maximum(ends_us - begins_us, _RATE_US) / 1e6)

    def band(self, line: Line) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest value by bucket, up to the newest; NaN where there were no events."""
        grid = self.grids.get(line.measure.name)
        used = self.axis.used
        if grid is None or grid.spread is None:
            return np.full(used, np.nan), np.full(used, np.nan)
        return grid.spread.lows[line.group, :used], grid.spread.highs[line.group, :used]

    def firsts(self) -> dict[str, float]:
        """By name of a line of last values, the one at the oldest time of the run, where it has one."""
        found = {}
        for line in {line for chart in self.charts for line in chart.lines if line.how == "last"}:
            grid = self.grids.get(line.measure.name)
            spread = None if grid is None else grid.spread
            if spread is not None and spread.firsts_us[line.group] == self.axis.oldest_us:
                found[line.name] = float(spread.firsts[line.group])
        return dict(sorted(found.items()))

    def classes(self, measure: Measure) -> NDArray[np.int64]:
        """Number of values by class and bucket, shape [classes, buckets in use]."""
        grid = self.grids.get(measure.name, Grid.of(measure.rows))
        return grid.counts[:, : self.axis.used]

    def instants(self) -> NDArray[np.int64]:
        """By bucket, up to the newest: microseconds from the start of the axis to its last event; -1 without events."""
        lasts_us = self.lasts_us[: self.axis.used]
        return np.where(lasts_us == _NO_TIME, -1, lasts_us - self.axis.start_us)

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
    times_us = rows.times_us[inside]
    positions = run.axis.positions(times_us)
    written_us = run.written_us.copy()
    np.maximum.at(written_us, positions, rows.written_us[inside])
    oldest_us, newest_us = run.spans_us.get(stream, (int(times_us[0]), int(times_us[0])))
    span_us = min(oldest_us, int(times_us.min())), max(newest_us, int(times_us.max()))
    lines = (line for chart in (*CHARTS, *run.own_charts) for line in chart.lines)
    spread = {line.measure for line in lines if line.band or line.how == "last"}
    grids, names = dict(run.grids), dict(run.names)
    for measure in _measures(run, stream):
        grid = grids.get(measure.name, Grid.of(measure.rows))
        if measure.inside is not None and measure.by is not None:
            numbers: NDArray[np.float64] | None = None
            if measure.inside == "numbers":
                at, strings, numbers = rows.numbers_inside(measure.by)
            else:
                at, strings = rows.strings_inside(measure.by)
            names[measure.name] = _with_names(names.get(measure.name, ()), strings)
            kept = inside[at]
            grids[measure.name] = add(
                grid,
                positions[(np.cumsum(inside) - 1)[at[kept]]],
                _places_of(strings, names[measure.name])[kept],
                None if numbers is None else numbers[kept],
            )
            continue
        groups = rows.groups(measure)
        values = None if measure.field is None or measure.classes is not None else rows.numbers(measure.field)
        grids[measure.name] = add(
            grid,
            positions,
            None if groups is None else groups[inside],
            None if values is None else values[inside],
            times_us if measure in spread else None,
        )
    spans_us = {**run.spans_us, stream: span_us}
    return replace(run, grids=grids, names=names, written_us=written_us, spans_us=spans_us)


def _with_names(known: tuple[str, ...], strings: Sequence[str]) -> tuple[str, ...]:
    new = [text for text in dict.fromkeys(strings) if text not in known]
    if len(known) + len(new) < MOST_NAMES or not new:
        return (*known, *new)
    return (*(*known, *new)[: MOST_NAMES - 1], _OTHERS)


def _places_of(strings: Sequence[str], names: tuple[str, ...]) -> NDArray[np.int64]:
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(text, MOST_NAMES - 1) for text in strings], np.int64)


def took_findings(
    run: Run,
    times_us: NDArray[np.int64],
    written_us: NDArray[np.int64],
    severities: Sequence[str] | None,
    numbers: NDArray[np.int64],
) -> Run:
    """The run after more alerts, with their severities, or after more multi events, which have none.

    ``numbers`` are 1 of those that are new, and -1 of those that are taken back.
    """
    run, inside = _placed(run, times_us, written_us)
    if not inside.any():
        return run
    measure = _MATCHES if severities is None else _ALERTS
    groups = np.zeros(len(times_us), np.int64) if severities is None else np.array([_code(each) for each in severities])
    grid = run.grids.get(measure.name, Grid.of(measure.rows))
    new, gone = inside & (numbers > 0), inside & (numbers < 0)
    grid = add(grid, run.axis.positions(times_us[new]), groups[new], None)
    if gone.any():
        taken = add(Grid.of(measure.rows), run.axis.positions(times_us[gone]), groups[gone], None)
        grid = replace(grid, counts=np.maximum(grid.counts - taken.counts, 0))
    return replace(run, grids={**run.grids, measure.name: grid})


def _placed(run: Run, times_us: NDArray[np.int64], written_us: NDArray[np.int64]) -> tuple[Run, NDArray[np.bool_]]:
    """The run whose axis covers the times, and which of them are on it."""
    if not len(times_us):
        return run, np.zeros(0, bool)
    begin_us = int(times_us[0]) if run.begin_us is None else run.begin_us
    inside = (times_us >= begin_us - _BEFORE_US) & (times_us <= written_us + _AHEAD_US)
    kept = times_us[inside]
    run = replace(run, begin_us=begin_us, outside=run.outside + len(inside) - len(kept))
    if not len(kept):
        return run, inside
    run = _covering(run, int(kept.min()), int(kept.max()))
    lasts_us = run.lasts_us.copy()
    np.maximum.at(lasts_us, run.axis.positions(kept), kept)
    return replace(run, lasts_us=lasts_us), inside


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
    places = run.axis.places(axis)
    written_us, lasts_us = np.zeros(BUCKETS, np.int64), np.full(BUCKETS, _NO_TIME)
    np.maximum.at(written_us, places, run.written_us[: run.axis.used])
    np.maximum.at(lasts_us, places, run.lasts_us[: run.axis.used])
    grids = {name: moved(grid, run.axis, axis) for name, grid in run.grids.items()}
    return replace(run, axis=axis, grids=grids, written_us=written_us, lasts_us=lasts_us)


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
