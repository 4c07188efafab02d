"""What is asked of every engine: events from a seed, and arguments from which each child makes its query.

The event file is an array of 24-byte records: time in microseconds (int64), key and type (int32), value (float64),
little endian, in order of time, no two at one time. An event's id is its position. Values are multiples of 1/1024, so
that sums are exact in any order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype([("t", "<i8"), ("key", "<i4"), ("type", "<i4"), ("value", "<f8")])
START_US = 1_000_000
Events = NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """One row of the table for each engine. ``arguments`` name the kind of query, and its numbers, for the children."""

    name: str
    title: str
    make: Callable[[np.random.Generator, int], Events]
    events: int
    arguments: dict[str, int | str] = field(default_factory=dict)

    def file(self, folder: Path, seed: int) -> Path:
        """Its event file, written anew."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name.replace('/', '-')}-{seed}.bin"
        partial = path.with_suffix(f".{os.getpid()}")
        self.make(np.random.default_rng(seed), self.events).tofile(partial)
        return partial.rename(path)


def _domains(keys: int, types: int = 3, per_key: float = 0.5) -> Callable[[np.random.Generator, int], Events]:
    """Random keys and types; events a second for each key as in ``astrocyte bench engine``."""

    def make(random: np.random.Generator, count: int) -> Events:
        events = np.zeros(count, RECORD)
        gaps = random.exponential(1e6 / per_key / keys, count)
        events["t"] = START_US + np.cumsum(1 + gaps.astype(np.int64))
        events["key"] = random.integers(0, keys, count)
        events["type"] = random.integers(0, types, count)
        events["value"] = random.integers(0, 1024, count) / 1024
        return events

    return make


def _one_key(types: int) -> Callable[[np.random.Generator, int], Events]:
    """One event a microsecond, all of one key, of equally frequent types."""

    def make(random: np.random.Generator, count: int) -> Events:
        events = np.zeros(count, RECORD)
        events["t"] = START_US + np.arange(count)
        events["type"] = random.integers(0, types, count)
        return events

    return make


def _numbered(
    value: Callable[[NDArray[np.int64]], NDArray[np.int64]], rows_of_a_key: int = 0
) -> Callable[[np.random.Generator, int], Events]:
    """Row i is at microsecond i and has a value that follows from i, as those of DuckDB's benchmarks; no seed."""

    def make(random: np.random.Generator, count: int) -> Events:
        events = np.zeros(count, RECORD)
        index = np.arange(count)
        events["t"] = START_US + index
        events["key"] = index // rows_of_a_key if rows_of_a_key else 0
        events["value"] = value(index)
        return events

    return make


def _scattered(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """A hash of the row in place of DuckDB's, from 0 to 99."""
    h = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((h ^ (h >> np.uint64(29))) >> np.uint64(11)).astype(np.int64) % 100


def _by_keys(name: str, title: str, kind: str, within_us: int) -> list[Workload]:
    return [
        Workload(f"{name}/{text}", f"{title}, {text} keys", _domains(keys), count, {"kind": kind, "within": within_us})
        for keys, text, count in ((1_000, "1k", 200_000), (100_000, "100k", 600_000))
    ]


def _combinations(
    name: str, steps: int, window: int, events: int, *, noise: int = 6, is_open: bool = False
) -> Workload:
    last = ", of which the last never comes" if is_open else ""
    title = f"all combinations of {steps} steps in a window of {window:,} events of {steps + noise} types{last}"
    arguments: dict[str, int | str] = {"kind": "combinations", "within": window, "steps": steps, "open": int(is_open)}
    return Workload(name, title, _one_key(steps + noise - is_open), events, arguments)


def _adjacent(name: str, title: str, ranges: str, make: Callable[..., Events], *, keyed: bool = False) -> Workload:
    arguments: dict[str, int | str] = {"kind": "adjacent", "within": 1_000_000, "ranges": ranges, "keyed": int(keyed)}
    return Workload(f"W10/{name}", f"rows in a row: {title}", make, 500_000, arguments)


WORKLOADS: tuple[Workload, ...] = (
    *_by_keys("W1", "A and B in any order within 2 s, every pair", "pairs", 2_000_000),
    *_by_keys("W2", "A followed by B within 2 s", "followed", 2_000_000),
    *_by_keys("W3", "A, then one B or more, then C, with nothing between, within 10 s", "strict_loop", 10_000_000),
    *_by_keys("W3-relaxed", "the same with anything between, a match for each length", "relaxed_loop", 10_000_000),
    *_by_keys("W4", "A not followed by B within 1 s", "absence", 1_000_000),
    _combinations("W5", 3, 300, 2_000, noise=0),
    *(_combinations(f"W6/{steps}", steps, 100, 50_000) for steps in (3, 6, 9, 12)),
    *(
        _combinations(f"W6-open/{steps}-{window}", steps, window, 100_000, is_open=True)
        for steps, window in ((3, 100), (3, 1_000), (6, 100), (6, 400), (12, 10_000))
    ),
    *_by_keys("W7", "count, sum and maximum of tumbling windows of 10 s", "windows", 10_000_000),
    *(
        Workload(
            f"W8/{rules}",
            f"{rules:,} rules as W2, each with types of its own, 10 keys",
            _domains(10, 2 * rules, per_key=100),
            100_000,
            {"kind": "rules", "within": 2_000_000, "rules": rules},
        )
        for rules in (100, 1_000)
    ),
    _adjacent("scan", "(A B) of i % 5", "0:1,1:2", _numbered(lambda i: i % 5)),
    _adjacent("partitions", "the same, partitions of 100 rows", "0:1,1:2", _numbered(lambda i: i % 5, 100), keyed=True),
    _adjacent(
        "funnel", "(A B C) of i % 4, partitions of 10 rows", "0:1,1:2,2:3", _numbered(lambda i: i % 4, 10), keyed=True
    ),
    *(
        _adjacent(f"selectivity-{share}", f"(A B B), A is {share} %", f"0:{share},0:50,0:50", _numbered(_scattered))
        for share in (1, 25, 99)
    ),
)
