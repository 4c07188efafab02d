"""What is asked of every engine: events from a seed, and arguments from which each child makes its query.

The event file is an array of 24-byte records: time in microseconds (int64), key and type (int32), value (float64),
little endian, in order of time, no two at one time. An event's id is its position. Values are multiples of 1/1024, so
that sums are exact in any order.
"""

from __future__ import annotations

import hashlib
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
        """Its event file, written the first time."""
        mark = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
        path = folder / f"{self.name.replace('/', '-')}-{seed}-{mark}.bin"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            self.make(np.random.default_rng(seed), self.events).tofile(partial)
            partial.rename(path)
        return path


def _domains(keys: int, types: int = 3) -> Callable[[np.random.Generator, int], Events]:
    """Random keys and types; half an event a second for each key, as in ``astrocyte bench engine``."""

    def make(random: np.random.Generator, count: int) -> Events:
        events = np.zeros(count, RECORD)
        gaps = random.exponential(2e6 / keys, count)
        events["t"] = START_US + np.cumsum(1 + gaps.astype(np.int64))
        events["key"] = random.integers(0, keys, count)
        events["type"] = random.integers(0, types, count)
        events["value"] = random.integers(0, 1024, count) / 1024
        return events

    return make


def _by_keys(name: str, title: str, kind: str, within_us: int) -> list[Workload]:
    return [
        Workload(f"{name}/{text}", f"{title}, {text} keys", _domains(keys), count, {"kind": kind, "within": within_us})
        for keys, text, count in ((1_000, "1k", 200_000), (100_000, "100k", 600_000))
    ]


WORKLOADS: tuple[Workload, ...] = (
    *_by_keys("W1", "A and B in any order within 2 s, every pair", "pairs", 2_000_000),
    *_by_keys("W2", "A followed by B within 2 s", "followed", 2_000_000),
)
