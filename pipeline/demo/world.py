"""The simulated world of a demo: its size, and the state that is shown beside the counts, read from its frames."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from astrocyte.schemas.frames import Frame
from astrocyte.simulator.emission.emitter import FrameSink

__all__ = ["WorldSink", "idle_processors", "sparkline", "usual_world"]

_LARGE: Final[Mapping[str, Mapping[str, Any]]] = {"axons": {"domains": 12_288, "plant_hz": 0.002}}
"""Worlds that are larger than elsewhere, to be seen at work: 21,800 events/s take two thirds of two processors."""
_BUSY: Final[Mapping[str, Mapping[str, Any]]] = {"axons": {"domains": 4096, "plant_hz": 0.002}}
"""The same where the processors have other work, so that the demo keeps up with its world and ends in time."""
_WANTED: Final = 1.0
"""Processors without other work that a large world needs."""
_SAMPLES: Final = 10
_BETWEEN_S: Final = 0.02

_SHOWN: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "cells": ("population_metrics", {"population": "total_population", "accuracy": "avg_accuracy"}),
    "ecology": ("simulation_steps", {"agents": "total_agents", "resources": "total_resources"}),
}
"""By scenario: the stream that describes the whole world, and its columns by displayed name."""
_BARS: Final = "▁▂▃▄▅▆▇█"


def idle_processors() -> float:
    """Processors that this process may use, less those that other work uses now.

    Where the system does not say how many processes run, less those of the last minute: they count what has just ended.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return usable - _others_running()
    except OSError:
        return usable - os.getloadavg()[0]


def _others_running() -> float:
    """Other processes that have or want a processor, on average over a fifth of a second. Raises OSError."""
    counts = []
    for _ in range(_SAMPLES):
        lines = Path("/proc/stat").read_text().splitlines()
        counts.append(next((int(line.split()[1]) - 1 for line in lines if line.startswith("procs_running ")), 0))
        time.sleep(_BETWEEN_S)
    return sum(counts) / _SAMPLES


def usual_world(scenario: str, idle: float) -> tuple[Mapping[str, Any], str | None]:
    """Settings of the world of a demo whose size the user does not say, and a sentence on it where it is smaller.

    ``idle`` is the number of processors without other work.
    """
    if idle >= _WANTED or scenario not in _BUSY:
        return _LARGE.get(scenario, {}), None
    small = _BUSY[scenario]
    sizes = {name: (small[name], _LARGE[scenario][name]) for name in small if small[name] != _LARGE[scenario][name]}
    shown = ", ".join(f"{less:,} {name} (--size {usual} for the usual world)" for name, (less, usual) in sizes.items())
    return small, f"the processors have other work, so the world is smaller than usual: {shown}"


class WorldSink:
    """Passes frames on, counts their events, and keeps the values of the columns that `_SHOWN` names."""

    def __init__(self, sink: FrameSink, scenario: str, *, clock: Callable[[], float]) -> None:
        self._sink, self._clock = sink, clock
        self.events = 0
        self.first_s: float | None = None
        """Time of the first event by the clock."""
        self._stream, self._columns = _SHOWN.get(scenario, ("", {}))
        self._course: dict[str, list[float]] = {name: [] for name in self._columns}

    @property
    def course(self) -> dict[str, list[float]]:
        """Values so far of each quantity, in time order; empty for a scenario without any."""
        return {name: list(values) for name, values in self._course.items() if values}

    @property
    def now(self) -> dict[str, float]:
        """Newest value of each quantity."""
        return {name: values[-1] for name, values in self._course.items() if values}

    def write(self, frame: Frame) -> None:
        """Pass the frame on."""
        self.events += frame.num_rows
        if self.first_s is None and frame.num_rows:
            self.first_s = self._clock()
        if frame.stream == self._stream:
            for name, column in self._columns.items():
                self._course[name] += frame.column(column).drop_null().to_pylist()
        self._sink.write(frame)

    def flush(self) -> None:
        """Flush the wrapped sink."""
        self._sink.flush()

    def close(self) -> None:
        """Close the wrapped sink."""
        self._sink.close()


def sparkline(values: list[Any], width: int = 40) -> str:
    """Means of ``width`` equal parts of the values as bars, the lowest as the lowest bar."""
    parts = np.array_split(np.asarray(values, np.float64), min(width, len(values)))
    means = np.array([part.mean() for part in parts])
    low, high = means.min(), means.max()
    heights = np.zeros(len(means), int) if high == low else ((means - low) / (high - low) * 7.999).astype(int)
    return "".join(_BARS[height] for height in heights)
