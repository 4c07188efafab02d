"""Queries of InfluxDB from one description, in both of its languages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from panels import Panel

Language = Literal["flux", "influxql"]

_PLACE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Series:
    """One value for each interval of the chart and each set of the tags that ``legend`` names.

    ``how`` aggregates ``field`` of the points of ``measurement``; ``where`` are values of tags that they must have.
    """

    measurement: str
    field: str
    how: Literal["mean", "sum", "count", "min", "max"] = "mean"
    legend: str = "{simulation_id}"
    where: dict[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags by which the points are grouped."""
        return tuple(_PLACE.findall(self.legend))

    def flux(self) -> str:
        """The query in Flux; Grafana sets what begins with ``v.``."""
        chosen = {"_measurement": self.measurement, "_field": self.field} | self.where
        conditions = " and ".join(f'r.{key} == "{value}"' for key, value in chosen.items())
        name = " + ".join(_flux_parts(self.legend))
        return "\n  |> ".join(
            (
                "from(bucket: v.defaultBucket)",
                "range(start: v.timeRangeStart, stop: v.timeRangeStop)",
                f"filter(fn: (r) => {conditions})",
                f"group(columns: [{_quoted(self.tags)}])",
                f'aggregateWindow(every: v.windowPeriod, fn: {self.how}, createEmpty: false, timeSrc: "_start")',
                f"map(fn: (r) => ({{_time: r._time, _value: r._value, series: {name}}}))",
                'group(columns: ["series"])',
            )
        )

    def influxql(self) -> str:
        """The query in InfluxQL; Grafana sets what begins with a dollar."""
        conditions = " AND ".join(("$timeFilter", *(f"\"{key}\" = '{value}'" for key, value in self.where.items())))
        groups = ", ".join(("time($__interval)", *(f'"{tag}"' for tag in self.tags)))
        return (
            f'SELECT {self.how}("{self.field}") FROM "{self.measurement}" '
            f"WHERE {conditions} GROUP BY {groups} fill(none)"
        )

    def target(self, language: Language) -> dict[str, Any]:
        """The query as Grafana keeps it."""
        if language == "flux":
            return {"query": self.flux()}
        alias = _PLACE.sub(r"$tag_\1", self.legend)
        return {"query": self.influxql(), "rawQuery": True, "resultFormat": "time_series", "alias": alias}


@dataclass(frozen=True)
class Newest:
    """The newest points of a measurement as a table: their time, ``tags``, and one field."""

    measurement: str
    field: str
    tags: tuple[str, ...]
    most: int = 20

    def flux(self) -> str:
        """The query in Flux."""
        return "\n  |> ".join(
            (
                "from(bucket: v.defaultBucket)",
                "range(start: v.timeRangeStart, stop: v.timeRangeStop)",
                f'filter(fn: (r) => r._measurement == "{self.measurement}" and r._field == "{self.field}")',
                "group()",
                'sort(columns: ["_time"], desc: true)',
                f"limit(n: {self.most})",
                f"keep(columns: [{_quoted(('_time', *self.tags, '_value'))}])",
                f'rename(columns: {{_value: "{self.field}"}})',
            )
        )

    def influxql(self) -> str:
        """The query in InfluxQL."""
        names = _quoted((*self.tags, self.field))
        return f'SELECT {names} FROM "{self.measurement}" WHERE $timeFilter ORDER BY time DESC LIMIT {self.most}'

    def target(self, language: Language) -> dict[str, Any]:
        """The query as Grafana keeps it."""
        if language == "flux":
            return {"query": self.flux()}
        return {"query": self.influxql(), "rawQuery": True, "resultFormat": "table"}


@dataclass(frozen=True)
class Chart:
    """A panel, in whichever language its board speaks; ``options`` are those of `Panel`."""

    title: str
    queries: tuple[Series | Newest, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def panel(self, language: Language) -> Panel:
        """The panel with its queries in one language."""
        options = dict(self.options)
        if language == "flux" and options.get("kind", "timeseries") == "timeseries":
            # The series of Flux would be named by its column of values and all labels.
            options["legend"] = "${__field.labels.series}"
        return Panel(self.title, tuple(query.target(language) for query in self.queries), **options)


def chart(title: str, *queries: Series | Newest, **options: Any) -> Chart:
    """A chart of one or several queries."""
    return Chart(title, queries, options)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _flux_parts(legend: str) -> list[str]:
    """Parts of a sum of strings in Flux that gives the legend."""
    parts = []
    for at, part in enumerate(_PLACE.split(legend)):
        if part:
            parts.append(f"r.{part}" if at % 2 else f'"{part}"')
    return parts
