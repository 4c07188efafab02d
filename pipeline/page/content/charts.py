"""What a chart is made of, and the charts of a stream of which nothing is known but its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import pyarrow as pa

from astrocyte.pipeline.page.aggregates.grid import Classes
from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.frames import Frame

__all__ = ["MOST_NAMES", "Chart", "Line", "Measure", "charts_of_stream"]

How = Literal["last", "mean", "rate", "count"]
"""Last value of a bucket, of rows that each tell of the whole world; mean of its values; events in a second, or sums
that rows carry, in a second; number of events."""
MOST_NAMES: Final = 16
"""Names inside a JSON field that are drawn; the last row is that of all further ones."""
_MOST_LINES: Final = 6
_MOST_FIELDS: Final = 4
"""Fields of a stream of the user's own that are drawn."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is collected of a stream: the values of a field, or without one the events, by group or class of values.

    ``groups`` are the values of the text field ``by``; an event with another one is not counted. With ``begins`` they
    are beginnings of them. With ``inside`` the field ``by`` holds JSON: lists, of which each string counts, or objects,
    of which the numbers are collected by their names; the groups are the names in the order in which they came.
    """

    stream: str
    field: str | None = None
    by: str | None = None
    groups: tuple[str, ...] = ()
    classes: Classes | None = None
    begins: bool = False
    inside: Literal["strings", "numbers"] | None = None

    @property
    def name(self) -> str:
        """Name among all measures."""
        parts = (self.stream, self.field or "events", self.by or "", "classes" if self.classes is not None else "")
        return ":".join(parts).rstrip(":")

    @property
    def rows(self) -> int:
        """Number of groups or classes."""
        if self.inside is not None:
            return MOST_NAMES
        return self.classes.number if self.classes is not None else max(len(self.groups), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: a group of a measure, and what is computed of it."""

    label: str
    measure: Measure
    how: How
    group: int = 0
    band: bool = False
    """Whether the lowest and the highest value of each bucket are drawn."""

    @property
    def name(self) -> str:
        """Name among all lines."""
        return f"{self.measure.name}/{self.group}/{self.how}"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: lines over time, their shares, a heat map of the classes, or a path of one line over another."""

    title: str
    unit: str
    kind: Literal["lines", "shares", "heat", "path"]
    lines: tuple[Line, ...] = ()
    classes: tuple[Measure, ...] = ()
    """Measures of a heat map, one of which is shown at a time."""
    note: str = ""
    forecast: str = ""
    """Field of which forecasts are drawn beside the lines."""
    inside: Measure | None = None
    """Of a chart with a line or a row of a heat map for each name inside a JSON field."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Everything that it is drawn from."""
        inside = () if self.inside is None else (self.inside,)
        return tuple(dict.fromkeys((*(line.measure for line in self.lines), *self.classes, *inside)))

    def named(self, names: Mapping[str, tuple[str, ...]]) -> Chart:
        """The chart with the names inside its JSON field that have come, by the name of the measure."""
        if self.inside is None:
            return self
        measure = replace(self.inside, groups=names.get(self.inside.name, ()))
        if self.kind == "heat":
            return replace(self, classes=(measure,))
        shown = measure.groups[:_MOST_LINES]
        return replace(self, lines=tuple(Line(name, measure, "mean", row) for row, name in enumerate(shown)))

    def as_json(self) -> dict[str, Any]:
        """The chart without its values."""
        return {
            "title": self.title,
            "unit": self.unit,
            "kind": self.kind,
            "note": self.note,
            "forecast": self.forecast,
            "lines": [
                {
                    "label": line.label,
                    "data": line.name,
                    "how": line.how,
                    "stream": line.measure.stream,
                    "band": line.band,
                }
                for line in self.lines
            ],
            "classes": [
                {
                    "label": each.field or each.by,
                    "data": each.name,
                    "stream": each.stream,
                    "rows": each.rows,
                    "names": [] if each.inside is None else list(each.groups),
                    "bounds": [] if each.classes is None else each.classes.bounds(),
                    "ratio": each.classes is not None and each.classes.by_ratio,
                }
                for each in self.classes
            ],
        }


def charts_of_stream(frame: Frame) -> tuple[Chart, ...]:
    """Events in a second, and the mean of each of the first numbers, of a stream that has no charts of its own.

    Numbers whose mean says nothing are left out: ids, codes and points in time, as the catalog defines them, and by
    their names what it does not know. Such a stream may tell of many things at once, of which the last row is one:
    hence means, with their bands.
    """
    stream = frame.stream
    kinds: Mapping[str, Any] = {name: frame.batch.schema.field(name).type for name in frame.fields}
    numbers = [
        name
        for name, kind in kinds.items()
        if (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and _has_mean(stream, name)
    ]
    rate = Chart(stream, "events/s", "lines", (Line("events", Measure(stream), "rate"),))
    return (
        rate,
        *(
            Chart(f"{stream}: {name}", "", "lines", (Line(f"mean {name}", Measure(stream, name), "mean", band=True),))
            for name in numbers[:_MOST_FIELDS]
        ),
    )


def _has_mean(stream: str, name: str) -> bool:
    event_type = CATALOG.find(stream)
    about = None if event_type is None else event_type.about.get(name)
    if about is not None:
        return about.is_quantity
    return name.lower() != "id" and not name.lower().endswith(("_id", "_ids"))
