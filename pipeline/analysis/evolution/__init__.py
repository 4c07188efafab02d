"""Evolution of one run: selection, bottlenecks, trends, landscape, forecasts and dominance (docs/analysis.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from astrocyte.pipeline.analysis.evolution.bottlenecks import Bottleneck, Bottlenecks, detect_bottlenecks
from astrocyte.pipeline.analysis.evolution.dashboard import Dashboard, dashboard, family_tree
from astrocyte.pipeline.analysis.evolution.evolutionary_trends import EvolutionaryTrends, evolutionary_trends
from astrocyte.pipeline.analysis.evolution.forecasts import PopulationForecast, population_forecast
from astrocyte.pipeline.analysis.evolution.genome_types import (
    TypeAdvantage,
    TypeDominance,
    type_advantage,
    type_dominance,
)
from astrocyte.pipeline.analysis.evolution.history import History
from astrocyte.pipeline.analysis.evolution.landscape import FitnessLandscape, fitness_landscape
from astrocyte.pipeline.analysis.evolution.reading import read_history
from astrocyte.pipeline.analysis.evolution.records import NotEnoughData
from astrocyte.pipeline.analysis.evolution.selection_pressure import SelectionPressure, selection_pressure
from astrocyte.pipeline.analysis.phylogeny import Phylogeny

__all__ = [
    "Bottleneck",
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


@dataclass(frozen=True)
class RunAnalysis:
    """Questions about the evolution of one run, each answered from the same rows, which were read once.

    Windows are spans of event time such as ``"5m"``, or whole microseconds; they are counted back from the end of the
    run and are at most as long as it. Each answer is a frozen dataclass with tables for Arrow. Every method raises
    NotEnoughData where the run lacks the events that it needs, and InvalidSettings for a setting that makes no sense.
    """

    history: History

    def calculate_selection_pressure(self, time_window: str | int = "5m", *, level: float = 0.05) -> SelectionPressure:
        """Selection on each trait in the last window, and in those before it (statistic ``selection``)."""
        return selection_pressure(self.history, time_window, level=level)

    def detect_evolutionary_bottlenecks(
        self,
        *,
        depth: float = 0.5,
        diversity_depth: float = 0.2,
        level: float = 0.05,
        time_window: str | int = "1s",
        within: str | int | None = None,
    ) -> Bottlenecks:
        """Falls of population and diversity that chance does not explain, with what was lost and how they ended."""
        return detect_bottlenecks(
            self.history,
            depth=depth,
            diversity_depth=diversity_depth,
            level=level,
            time_window=time_window,
            within=within,
        )

    def analyze_evolutionary_trends(self, *, level: float = 0.05) -> EvolutionaryTrends:
        """Trends of traits and accuracy, what leads what, and effects of mutations (``trends``, ``mutations``)."""
        return evolutionary_trends(self.history, level=level)

    def predict_population_dynamics(
        self, *, horizon: str | int | None = None, time_window: str | int | None = None
    ) -> PopulationForecast:
        """What comes, how earlier forecasts fared, and what threatens the population (statistic ``forecast``)."""
        return population_forecast(self.history, horizon=horizon, time_window=time_window)

    def fitness_landscape(self, time_window: str | int = "5m") -> FitnessLandscape:
        """Individuals by their traits in two dimensions, and fitness as a surface over them."""
        return fitness_landscape(self.history, time_window)

    def dominance(self, time_window: str | int = "1s") -> TypeDominance:
        """Which type of genome dominates the population, by window and in all."""
        return type_dominance(self.history, time_window)

    def advantage(self) -> tuple[TypeAdvantage, ...]:
        """Fitness of each type of genome beside all others."""
        return type_advantage(self.history)

    def phylogeny(self, *, prune: bool = True) -> Phylogeny:
        """Who descends from whom at the end of the run."""
        found = family_tree(self.history, prune=prune)
        if found is None:
            raise NotEnoughData(f"run {self.history.run!r} has no births, or no one who lives")
        return found

    def generate_live_dashboard(self, time_window: str | int = "1s") -> Dashboard:
        """The tables of a dashboard of the run, as far as the source holds it now."""
        return dashboard(self.history, time_window)


def read_run(source: str | Path, *, run: str | None = None) -> RunAnalysis:
    """Read the events of one run, to ask about its evolution.

    ``source`` is a recorded log, a file of events (JSON lines, CSV or Parquet), the folder of a demo, an SQLite file or
    the URL of a database. A database is read as of now, in one transaction, also while a pipeline fills it: read it
    again for newer rows. ``run`` is needed where the source holds several. Raises NotEnoughData for a source without
    such events, InvalidSettings, InvalidLog and SinkError.
    """
    return RunAnalysis(read_history(source, run=run))
