"""What the sections of a report are about: a run, its time axis, and the windows over which it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from astrocyte.pipeline.analysis.evolution import Bottlenecks, RunAnalysis
from astrocyte.pipeline.analysis.evolution.history import GENOMES, History
from astrocyte.pipeline.analysis.report.sections.time_axis import TimeAxis

__all__ = ["Subject", "suggested_window_us"]

_OBSERVED = 300
"""Genomes that a window should have, so that half of them are a cohort worth a regression."""


@dataclass(frozen=True)
class Subject:
    """A run with the settings of its report."""

    run: RunAnalysis
    axis: TimeAxis
    window_us: int
    """Windows of selection, Price equation and landscape."""
    horizon: str | int | None = None

    @property
    def history(self) -> History:
        """The events."""
        return self.run.history

    @property
    def fine_us(self) -> int:
        """Windows of heat maps and lineages: 40 in the run, and none shorter than the time between genomes."""
        length_us = self.history.end_us - self.history.begin_us
        spacing_us = self.history.spacing_us(GENOMES) if len(self.history.times(GENOMES)) > 1 else 1
        return max(length_us // 40, spacing_us, 1)

    @cached_property
    def bottlenecks(self) -> Bottlenecks:
        """Falls of population and diversity, looked for once."""
        return self.run.detect_evolutionary_bottlenecks(time_window=self.fine_us)


def suggested_window_us(history: History) -> int:
    """A window for selection: 4 to 20 of them in the run, as far as each has some hundred genomes."""
    count = min(max(history.count(GENOMES) // _OBSERVED, 4), 20)
    return max((history.end_us - history.begin_us) // count, 1)
