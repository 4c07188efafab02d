"""Comparison of the runs of an experiment: for each combination of settings, each result over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import orjson

__all__ = ["Comparison", "ComparisonRow", "RunResult", "Spread", "compare"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run and what came out of it. ``results`` of a run that failed are empty, and ``error`` says why."""

    simulation_id: str
    varied: Mapping[str, Any]
    seed: int
    status: str
    results: Mapping[str, Any]
    error: str | None = None
    skipped: bool = False
    """Completed by an earlier call, and not run again."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One result over the seeds: number of values, mean, standard deviation (None for one value), extremes."""

    count: int
    mean: float
    std: float | None
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One combination of settings."""

    settings: Mapping[str, Any]
    runs: int
    failed: int
    results: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows in the order of the results that are compared; ``str`` of it is a table."""

    rows: tuple[ComparisonRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        settings = list(dict.fromkeys(name for row in self.rows for name in row.settings))
        results = list(dict.fromkeys(name for row in self.rows for name in row.results))
        lines = [[*settings, "runs", *results]]
        for row in self.rows:
            runs = f"{row.runs} ({row.failed} failed)" if row.failed else str(row.runs)
            cells = [_text(row.settings.get(name, "")) for name in settings] + [runs]
            lines.append(cells + [_spread(row.results.get(name)) for name in results])
        widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
        rows = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join(rows)


def compare(results: Sequence[RunResult], names: Sequence[str] | None = None) -> Comparison:
    """Mean and spread of each numeric result (of those with the given names) for each combination of settings."""
    groups: dict[bytes, list[RunResult]] = {}
    for result in results:
        key = orjson.dumps(dict(result.varied), option=orjson.OPT_SORT_KEYS)
        groups.setdefault(key, []).append(result)
    rows = []
    for group in groups.values():
        done = [result for result in group if result.status == "completed"]
        wanted = names or list(dict.fromkeys(name for result in done for name in result.results))
        spreads = {}
        for name in wanted:
            values = [float(value) for result in done if _is_number(value := result.results.get(name))]
            if values:
                spreads[name] = _spread_of(values)
        failed = sum(result.status == "failed" for result in group)
        rows.append(ComparisonRow(dict(group[0].varied), len(group), failed, spreads))
    return Comparison(tuple(rows))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spread_of(values: Sequence[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), std, min(values), max(values))


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.5g}" if spread.std is None else f"{spread.mean:.5g} ± {spread.std:.2g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
