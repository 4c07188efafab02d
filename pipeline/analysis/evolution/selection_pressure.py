"""Selection pressure: which traits are selected in the last windows of a run, how strongly, and how surely."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from astrocyte.agents.insight import Selection
from astrocyte.pipeline.analysis.evolution.history import EVENTS, GENOMES, SOLVING, History
from astrocyte.pipeline.analysis.evolution.records import records_of, table_of

__all__ = ["SelectionPressure", "TraitSelection", "selection_pressure"]

_PERFORMANCE = ("accuracy", "tpu_utilization")


@dataclass(frozen=True, slots=True)
class TraitSelection:
    """Selection on one trait in one window; fields as in the stream ``selection`` (docs/insight.md)."""

    trait: str
    window_start: int
    window_end: int
    individuals: int
    mean: float | None
    sd: float | None
    differential: float | None
    differential_se: float | None
    beta: float | None
    beta_se: float | None
    beta_p: float | None
    gamma: float | None
    gamma_se: float | None
    gamma_p: float | None
    coefficient: float | None
    coefficient_se: float | None
    sign: str
    curvature: str


@dataclass(frozen=True, slots=True)
class SelectionPressure:
    """Selection on every trait in the last window, and in all windows before it."""

    time_window_us: int
    """Size of the windows: as asked for, at most the length of the run."""
    level: float
    traits: tuple[TraitSelection, ...]
    """The last window."""
    windows: tuple[TraitSelection, ...]
    """All windows in order of time, the last one included."""

    def of(self, trait: str) -> TraitSelection:
        """Selection on a trait in the last window. Raises KeyError."""
        return {each.trait: each for each in self.traits}[trait]

    @property
    def positive(self) -> tuple[str, ...]:
        """Traits under selection for larger values at the level, in the last window."""
        return tuple(each.trait for each in self.traits if each.sign == "positive")

    @property
    def negative(self) -> tuple[str, ...]:
        """Traits under selection for smaller values at the level, in the last window."""
        return tuple(each.trait for each in self.traits if each.sign == "negative")

    def table(self) -> pa.Table:
        """All windows, a row for each trait and window."""
        return table_of(TraitSelection, self.windows)


def selection_pressure(
    history: History, time_window: str | int = "5m", *, performance: bool = False, level: float = 0.05
) -> SelectionPressure:
    """Selection on the traits of genomes (with ``performance``: on accuracy and use of the hardware) by window.

    The cohort of a window are the individuals observed in its first half, each followed for half a window. Raises
    NotEnoughData and InvalidSettings.
    """
    statistic = selection_statistic(history, time_window, performance=performance, level=level)
    found = records_of(TraitSelection, history.results(statistic))
    last = tuple(each for each in found if each.window_end == found[-1].window_end)
    return SelectionPressure(statistic.windows.size_us, level, last, found)


def selection_statistic(
    history: History, time_window: str | int, *, performance: bool = False, level: float = 0.05
) -> Selection:
    """The statistic of `selection_pressure`. Raises NotEnoughData and InvalidSettings."""
    history.require(SOLVING if performance else GENOMES, EVENTS)
    windows = history.windows(time_window)
    if performance:
        return Selection(windows=windows, stream=SOLVING, traits=_PERFORMANCE, level=level)
    return Selection(windows=windows, level=level)
