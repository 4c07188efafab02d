"""Windows and aggregates computed directly from lists of events; shares no code with the operator."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Event = dict[str, Any]
"""``timestamp``, ``key`` and fields; null is None."""


def extents(kind: str, times: Sequence[int], *, size: int, step: int = 0) -> list[tuple[int, int]]:
    """Every window [start, end) of one key that holds an event."""
    found: set[tuple[int, int]] = set()
    if kind in ("tumbling", "hopping"):
        for time in times:
            for number in range((time - size) // step - 1, time // step + 2):
                if number * step <= time < number * step + size:
                    found.add((number * step, number * step + size))
    elif kind == "sliding":
        found = {(time + 1 - size, time + 1) for time in times}
    else:
        ordered = sorted(times)
        start = last = ordered[0]
        for time in ordered[1:]:
            if time - last >= size:
                found.add((start, last + size))
                start = time
            last = time
        found.add((start, last + size))
    return sorted(found)


def entropy(weights: Sequence[float]) -> float:
    total = sum(weights)
    return -sum(weight / total * math.log(weight / total) for weight in weights if weight)


def binned(values: Sequence[float], bins: int) -> list[float]:
    low, high = min(values), max(values)
    counts = [0.0] * bins
    for value in values:
        place = int((value - low) / (high - low) * bins) if high > low else 0
        counts[min(place, bins - 1)] += 1
    return counts


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def slope(times: Sequence[int], values: Sequence[float]) -> float | None:
    seconds = [(time - times[0]) / 1e6 for time in times]
    if len(set(times)) < 2:
        return None
    return statistics.linear_regression(seconds, values).slope


def ewma(values: Sequence[float], alpha: float) -> float:
    current = values[0]
    for value in values[1:]:
        current = alpha * value + (1 - alpha) * current
    return current


AGGREGATES: dict[str, Callable[[list[Event]], Any]] = {
    "count()": len,
    "count(x)": lambda rows: len(_of(rows, "x")),
    "count_distinct(x)": lambda rows: len(set(_of(rows, "x"))),
    "count_distinct(name)": lambda rows: len(set(_of(rows, "name"))),
    "sum(x)": lambda rows: sum(_of(rows, "x")),
    "mean(x)": lambda rows: _some(statistics.fmean, _of(rows, "x")),
    "std(x)": lambda rows: statistics.stdev(_of(rows, "x")) if len(_of(rows, "x")) > 1 else None,
    "min(x)": lambda rows: _some(min, _of(rows, "x")),
    "max(x)": lambda rows: _some(max, _of(rows, "x")),
    "first(x)": lambda rows: _some(lambda values: values[0], _of(rows, "x")),
    "last(x)": lambda rows: _some(lambda values: values[-1], _of(rows, "x")),
    "first(name)": lambda rows: _some(lambda values: values[0], _of(rows, "name")),
    "last(name)": lambda rows: _some(lambda values: values[-1], _of(rows, "name")),
    "quantile(x, 0.9)": lambda rows: _some(lambda values: quantile(values, 0.9), _of(rows, "x")),
    "median(x)": lambda rows: _some(statistics.median, _of(rows, "x")),
    "entropy(name)": lambda rows: _some(lambda values: entropy(list(Counter(values).values())), _of(rows, "name")),
    "entropy(x, 4)": lambda rows: _some(lambda values: entropy(binned(values, 4)), _of(rows, "x")),
    "slope(x)": lambda rows: _some(
        lambda values: slope([row["timestamp"] for row in rows if row["x"] is not None], values), _of(rows, "x")
    ),
    "ewma(x, 0.25)": lambda rows: _some(lambda values: ewma(values, 0.25), _of(rows, "x")),
    "sum(x) / count()": lambda rows: sum(_of(rows, "x")) / len(rows),
}


def _of(rows: list[Event], field: str) -> list[Any]:
    return [row[field] for row in rows if row[field] is not None]


def _some(function: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    return function(values) if values else None


def results(
    events: Sequence[Event], kind: str, select: dict[str, str], *, size: int, step: int = 0
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Expected result of every window: (key, start, end) to the selected values. Events are in processing order."""
    expected = {}
    for key in {event["key"] for event in events}:
        own = sorted((event for event in events if event["key"] == key), key=lambda event: event["timestamp"])
        for start, end in extents(kind, [event["timestamp"] for event in own], size=size, step=step):
            rows = [event for event in own if start <= event["timestamp"] < end]
            expected[key, start, end] = {name: AGGREGATES[text](rows) for name, text in select.items()}
    return expected
