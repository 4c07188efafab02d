"""The time axis that figures share: alerts, planted anomalies and bottlenecks on it, and series thinned for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astrocyte.pipeline.analysis.evolution.history import History
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.text import clock

__all__ = ["TimeAxis", "log_axis", "thinned"]

_POINTS = 400


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Time since the begin of a run, with what happened at which time."""

    begin_us: int
    end_us: int
    alerts_us: tuple[int, ...] = ()
    planted_us: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, history: History, alerts_us: tuple[int, ...], planted_us: tuple[tuple[int, int], ...]) -> TimeAxis:
        """The axis of a run."""
        return cls(history.begin_us, history.end_us, alerts_us, planted_us)

    def place(self, times_us: Any) -> NDArray[np.float64]:
        """Times as places on the axis."""
        return clock(times_us, self.begin_us, self.end_us)[0]

    def label(self, axes: Any, palette: Palette, *, until_us: int | None = None, marks: bool = True) -> None:
        """Limits, label and grid of the axis, and marks of what happened: lines are alerts, bands what was planted."""
        begin, end = self.place([self.begin_us, self.end_us if until_us is None else until_us])
        axes.set_xlim(begin, end)
        axes.set_xlabel(f"time since the start, {clock([0], self.begin_us, self.end_us)[1]}")
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        if not marks:
            return
        least = (end - begin) * 0.004
        for start_us, stop_us in self.planted_us:
            start, stop = self.place([start_us, stop_us])
            axes.axvspan(start, max(stop, start + least), color=palette.gold, alpha=0.25, linewidth=0, zorder=0)
        for time in self.place(list(self.alerts_us)):
            axes.axvline(time, color=palette.red, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)


def log_axis(axes: Any) -> None:
    """A logarithmic vertical axis with numbers at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def thinned(n: int) -> NDArray[np.int64]:
    """Places of at most some hundred of n values, evenly spread, the first and the last among them."""
    return (
        np.unique(np.linspace(0, max(n - 1, 0), min(n, _POINTS)).round().astype(np.int64))
        if n
        else np.empty(0, np.int64)
    )
