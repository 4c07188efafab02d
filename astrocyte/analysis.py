"""Questions about the evolution of one run, in a log or a database, with typed answers (docs/analysis.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astrocyte._lazy import lazy

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.evolution import (
        Bottlenecks,
        Dashboard,
        EvolutionaryTrends,
        FitnessLandscape,
        History,
        NotEnoughData,
        PopulationForecast,
        RunAnalysis,
        SelectionPressure,
        TypeAdvantage,
        TypeDominance,
        read_run,
    )

__all__ = [
    "Bottlenecks",
    "Dashboard",
    "EvolutionaryTrends",
    "FitnessLandscape",
    "History",
    "NotEnoughData",
    "PopulationForecast",
    "RunAnalysis",
    "SelectionPressure",
    "TypeAdvantage",
    "TypeDominance",
    "read_run",
]

_HOME = dict.fromkeys(__all__, "pipeline.analysis.evolution")


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOME, name, globals())


def __dir__() -> list[str]:
    return sorted(__all__)
