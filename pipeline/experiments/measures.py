"""Measures: one number from all events of one stream of a run, such as the mean of a field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astrocyte.schemas.catalog import CATALOG
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.schemas.frames import Frame

__all__ = ["Measure", "Measured", "parse_measure", "stream_measures"]

_TEXT: Final = re.compile(r"(\w+)\(([\w.-]+?)(?:\.(\w+))?\)", re.ASCII)
_FUNCTIONS: Final = ("count", "first", "last", "max", "mean", "min", "std", "sum")


@dataclass(frozen=True, slots=True)
class Measure:
    """``function`` of ``field`` over the events of ``stream``; ``count`` needs no field."""

    name: str
    function: str
    stream: str
    field: str | None


def parse_measure(name: str, text: str) -> Measure:
    """A measure from text: ``mean(stream.field)``, or ``count(stream)``. Raises InvalidSettings."""
    found = _TEXT.fullmatch(text.replace(" ", ""))
    if found is None or found[1] not in _FUNCTIONS:
        raise InvalidSettings(
            f"measure {name!r} is {text!r}; expected FUNCTION(STREAM.FIELD) with one of {', '.join(_FUNCTIONS)}"
        )
    function, stream, field = found.groups()
    if field is not None and CATALOG.find(f"{stream}.{field}") is not None:
        stream, field = f"{stream}.{field}", None
    if (field is None) != (function == "count"):
        wanted = "count(STREAM)" if function == "count" else f"{function}(STREAM.FIELD)"
        raise InvalidSettings(f"measure {name!r} is {text!r}; expected {wanted}")
    event_type = CATALOG.find(stream)
    if event_type is not None and field is not None:
        kind = event_type.fields.get(field)
        if kind is None:
            known = ", ".join(event_type.fields)
            raise InvalidSettings(f"measure {name!r}: stream {stream!r} has no field {field!r}; it has {known}")
        if kind not in ("int32", "int64", "float32", "float64", "bool"):
            raise InvalidSettings(
                f"measure {name!r}: field {field!r} of stream {stream!r} is {kind}; expected a number"
            )
    return Measure(name, function, stream, field)


def stream_measures(streams: Iterable[str], whole: Iterable[str]) -> list[Measure]:
    """What a run is measured by if nothing else is asked for, each number in the unit that the catalog gives its field.

    ``events.STREAM`` for each of ``streams``. ``whole`` are those with rows about the whole world: ``last.FIELD`` for
    each number of their last row. Without such streams, ``mean.STREAM.FIELD`` for each number of the others. Numbers
    without a unit, such as ids, and instants are left out; so are streams whose fields the catalog does not define.
    """
    streams, whole = tuple(streams), tuple(whole)
    measures = [Measure(f"events.{stream}", "count", stream, None) for stream in streams]
    for stream in whole or streams:
        function, name = ("last", "last") if whole else ("mean", f"mean.{stream}")
        measures += [Measure(f"{name}.{field}", function, stream, field) for field in _quantities(stream)]
    return measures


def _quantities(stream: str) -> list[str]:
    event_type = CATALOG.find(stream)
    about = {} if event_type is None else event_type.about
    return [name for name, each in about.items() if each.is_quantity]


class Measured:
    """Accumulates the measures of a run, frame by frame: memory does not grow with the run."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._measures = measures
        self._totals = {(each.stream, each.field): _Totals() for each in measures}
        self._by_stream: dict[str, list[str | None]] = {}
        for stream, field in self._totals:
            self._by_stream.setdefault(stream, []).append(field)

    def add(self, frame: Frame) -> None:
        """The events of a frame."""
        for field in self._by_stream.get(frame.stream, ()):
            totals = self._totals[frame.stream, field]
            if field is None:
                totals.count += frame.num_rows
            elif frame.has(field):
                totals.add(_numbers(frame.column(field)))

    def results(self) -> dict[str, float | int | None]:
        """Value by name; None where there was no event."""
        return {each.name: self._totals[each.stream, each.field].result(each.function) for each in self._measures}


class _Totals:
    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = 0.0
        self.least: float | None = None
        self.greatest: float | None = None
        self.first: float | None = None
        self.last: float | None = None

    def add(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        if not len(values):
            return
        # Means and squares of two sets of values are combined without their sums (Chan, Golub and LeVeque 1979).
        count, mean = len(values), float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total, apart = self.count + count, mean - self.mean
        self.squares += squares + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total
        least, greatest = float(values.min()), float(values.max())
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)
        self.first = float(values[0]) if self.first is None else self.first
        self.last = float(values[-1])

    def result(self, function: str) -> float | int | None:
        if function == "count":
            return self.count
        if not self.count:
            return None
        results: Mapping[str, float | None] = {
            "mean": self.mean,
            "sum": self.mean * self.count,
            "std": math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else None,
            "min": self.least,
            "max": self.greatest,
            "first": self.first,
            "last": self.last,
        }
        return results[function]


def _numbers(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = pc.cast(column, pa.float64(), safe=False).drop_null().to_numpy(zero_copy_only=False)
    return np.asarray(values[np.isfinite(values)], np.float64)
