"""The data of a dashboard of one run: population, genomes, hardware, accuracy, lineages and alerts as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astrocyte.agents.insight import Diversity, Selection, Windows
from astrocyte.pipeline.analysis.evolution.history import EVENTS, GENOMES, METRICS, SOLVING, History
from astrocyte.pipeline.analysis.phylogeny import Phylogeny, phylogeny_of
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, InvalidLineage, Records
from astrocyte.schemas.topics import ALERTS, TRUTH

__all__ = [
    "Dashboard",
    "alerts_of",
    "dashboard",
    "family_tree",
    "genomes_of",
    "lineages_of",
    "planted_in",
    "population_of",
]

_CLASSES: Final = 24
_ALERTS: Final = ("timestamp", "rule", "severity", "message")
_PLANTED: Final = ("timestamp", "kind", "until")


@dataclass(frozen=True, slots=True, eq=False)
class Dashboard:
    """Tables of a dashboard, each without rows where the run has no such events. Times: microseconds since 1970."""

    population: pa.Table
    """The rows of ``population_metrics``, in order of time."""
    genomes: pa.Table
    """Heat map of traits: ``window_end``, ``trait``, ``low``, ``high``, ``individuals`` of each of 24 classes."""
    hardware: pa.Table
    """Use of the hardware: ``window_end``, ``attempts``, ``tpu_utilization``, ``processing_time`` (means)."""
    accuracy: pa.Table
    """``window_end``, ``problem_type``, ``attempts``, ``accuracy`` (mean) and ``accuracy_se``."""
    lineages: pa.Table
    """Results of the statistic ``diversity`` about lineages."""
    family_tree: pa.Table
    """Who lives and their ancestors, as a table of the ALife data standard."""
    alerts: pa.Table
    """``timestamp``, ``rule``, ``severity``, ``message``."""

    def tables(self) -> dict[str, pa.Table]:
        """All tables by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def dashboard(history: History, time_window: str | int = "1s") -> Dashboard:
    """The tables of a dashboard, by windows of ``time_window``. Raises NotEnoughData and InvalidSettings."""
    windows = history.windows(time_window)
    tree = family_tree(history)
    return Dashboard(
        population=population_of(history),
        genomes=genomes_of(history, time_window),
        hardware=_hardware(history, windows),
        accuracy=_accuracy(history, windows),
        lineages=lineages_of(history, time_window),
        family_tree=pa.table({}) if tree is None else tree.table(),
        alerts=alerts_of(history),
    )


def population_of(history: History) -> pa.Table:
    """The rows of ``population_metrics`` in order of time."""
    if not history.count(METRICS):
        return pa.table({"timestamp": pa.array([], pa.int64())})
    frame = history.frames[METRICS]
    names = [name for name in ("timestamp", *frame.fields) if name != "simulation_id"]
    return pa.table({name: frame.batch.column(name) for name in names}).sort_by("timestamp")


def lineages_of(history: History, time_window: str | int) -> pa.Table:
    """Results of the statistic ``diversity`` about lineages, by window; without rows where there are no births."""
    statistic = Diversity(windows=history.windows(time_window), traits=())
    table = history.results(statistic)
    return table.filter(pa.array([each == "lineage" for each in table.column("subject").to_pylist()], pa.bool_()))


def family_tree(history: History, *, prune: bool = True) -> Phylogeny | None:
    """Who descends from whom at the end of the run; None where there are no births or no one lives.

    Raises InvalidLineage for births that cannot be.
    """
    if not history.count(EVENTS):
        return None
    pedigree, records = PEDIGREES[EVENTS], Records()
    records.add_frame(pedigree, history.frames[EVENTS])
    try:
        found = phylogeny_of(records, pedigree, history.run, prune=prune)
    except InvalidLineage:
        if not len(records.column("born_id")) and not len(records.column("died_id")):
            return None
        raise
    return found if found.everyone.living.any() or not prune else None


def alerts_of(history: History) -> pa.Table:
    """Alerts in order of time: ``timestamp``, ``rule``, ``severity``, ``message``."""
    return _listed(history, ALERTS, _ALERTS)


def planted_in(history: History) -> pa.Table:
    """Anomalies that the simulator planted, if it says so: ``timestamp``, ``kind``, ``until`` (microseconds)."""
    return _listed(history, TRUTH, _PLANTED)


def _listed(history: History, stream: str, names: tuple[str, ...]) -> pa.Table:
    kinds = {name: pa.int64() if name in ("timestamp", "until") else pa.utf8() for name in names}
    if not history.count(stream):
        return pa.schema(list(kinds.items())).empty_table()
    frame = history.frames[stream]
    columns = {
        name: frame.column(name).cast(kind)
        if frame.has(name) or name == "timestamp"
        else pa.nulls(len(frame.batch), kind)
        for name, kind in kinds.items()
    }
    return pa.table(columns).sort_by([("timestamp", "ascending"), (names[1], "ascending")])


def _window_of(history: History, windows: Windows, stream: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ends of the windows, and the number of the window of each row of a stream (below 0 for rows before)."""
    count = (history.end_us - history.begin_us) // windows.size_us
    first = history.end_us - count * windows.size_us
    ends = first + windows.size_us * np.arange(1, count + 1)
    return ends, (history.frames[stream].timestamps() - first) // windows.size_us


def _means(
    values: NDArray[np.float64], group: NDArray[np.int64], count: int
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Number, mean and standard error of the finite values of each group, shapes [count]."""
    known = np.isfinite(values) & (group >= 0)
    values, group = values[known], group[known]
    n = np.bincount(group, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, values, count) / n
        spread = np.bincount(group, (values - mean[group]) ** 2, count)
        se = np.sqrt(spread / (n - 1) / n)
    return n, mean, np.where(n > 1, se, np.nan)


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def genomes_of(history: History, time_window: str | int) -> pa.Table:
    """Heat map of traits by window, see `Dashboard.genomes`; without rows where there are no genomes."""
    windows = history.windows(time_window)
    parts = [pa.schema([("window_end", pa.int64()), ("trait", pa.utf8()), ("low", pa.float64()),
                        ("high", pa.float64()), ("individuals", pa.int64())]).empty_table()]  # fmt: skip
    if not history.count(GENOMES):
        return parts[0]
    ends, window = _window_of(history, windows, GENOMES)
    for trait in Selection(windows=windows).traits:
        values = history.column(GENOMES, trait)
        known = np.isfinite(values) & (window >= 0)
        if not known.any() or np.ptp(values[known]) == 0:
            continue
        edges = np.linspace(values[known].min(), values[known].max(), _CLASSES + 1)
        place = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, _CLASSES - 1)
        counts = np.bincount(window[known] * _CLASSES + place, minlength=len(ends) * _CLASSES)
        parts.append(pa.table({
            "window_end": np.repeat(ends, _CLASSES), "trait": [trait] * len(counts),
            "low": np.tile(edges[:-1], len(ends)), "high": np.tile(edges[1:], len(ends)), "individuals": counts,
        }))  # fmt: skip
    return pa.concat_tables(parts)


def _hardware(history: History, windows: Windows) -> pa.Table:
    names = ("tpu_utilization", "processing_time")
    if not history.count(SOLVING):
        return pa.table({"window_end": pa.array([], pa.int64()), "attempts": pa.array([], pa.int64()),
                         **{name: pa.array([], pa.float64()) for name in names}})  # fmt: skip
    ends, window = _window_of(history, windows, SOLVING)
    found = {name: _means(history.column(SOLVING, name), window, len(ends)) for name in names}
    means = {name: _nullable(mean) for name, (_, mean, _) in found.items()}
    return pa.table({"window_end": ends, "attempts": found[names[0]][0], **means})


def _accuracy(history: History, windows: Windows) -> pa.Table:
    if not history.count(SOLVING):
        return pa.table({"window_end": pa.array([], pa.int64()), "problem_type": pa.array([], pa.utf8()),
                         "attempts": pa.array([], pa.int64()), "accuracy": pa.array([], pa.float64()),
                         "accuracy_se": pa.array([], pa.float64())})  # fmt: skip
    ends, window = _window_of(history, windows, SOLVING)
    of = history.frames[SOLVING].column("problem_type").cast(pa.utf8())
    parts = []
    for kind in sorted(each for each in of.unique().to_pylist() if each is not None):
        own = np.array([each == kind for each in of.to_pylist()])
        n, mean, se = _means(history.column(SOLVING, "accuracy"), np.where(own, window, -1), len(ends))
        parts.append(pa.table({
            "window_end": ends, "problem_type": [kind] * len(ends), "attempts": n, "accuracy": _nullable(mean),
            "accuracy_se": _nullable(se),
        }))  # fmt: skip
    return pa.concat_tables(parts).sort_by([("window_end", "ascending"), ("problem_type", "ascending")])
