"""Puts the sections of a report about a run together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from astrocyte.pipeline.analysis.evolution import NotEnoughData, RunAnalysis
from astrocyte.pipeline.analysis.evolution.dashboard import alerts_of, planted_in
from astrocyte.pipeline.analysis.phylogeny.records import InvalidLineage
from astrocyte.pipeline.analysis.report.content import Report, Section
from astrocyte.pipeline.analysis.report.sections.alerts import alerts_section
from astrocyte.pipeline.analysis.report.sections.coevolution import coevolution_section
from astrocyte.pipeline.analysis.report.sections.forecasts import forecasts_section
from astrocyte.pipeline.analysis.report.sections.landscape import landscape_section
from astrocyte.pipeline.analysis.report.sections.lineages import lineages_section
from astrocyte.pipeline.analysis.report.sections.population import population_section, traits_section
from astrocyte.pipeline.analysis.report.sections.selection import selection_section
from astrocyte.pipeline.analysis.report.sections.subject import Subject, suggested_window_us
from astrocyte.pipeline.analysis.report.sections.time_axis import TimeAxis
from astrocyte.pipeline.analysis.report.text import span
from astrocyte.schemas.times import iso_from_us

__all__ = ["make_report"]

_SECTIONS: Final[tuple[tuple[str, str, Callable[[Subject], Section]], ...]] = (
    ("population", "Population", population_section),
    ("traits", "Traits", traits_section),
    ("selection", "Selection", selection_section),
    ("landscape", "Fitness landscape", landscape_section),
    ("lineages", "Phylogeny and lineages", lineages_section),
    ("coevolution", "Trends and co-evolution", coevolution_section),
    ("forecasts", "Forecasts and their past skill", forecasts_section),
    ("alerts", "Alerts and early warnings", alerts_section),
)


def make_report(
    run: RunAnalysis, command: str, *, time_window: str | int | None = None, horizon: str | int | None = None
) -> Report:
    """The report about a run, as text, tables and figures that are still to be drawn.

    ``command`` is the one that makes it, to be printed in it. ``time_window`` is that of selection (by default some
    windows with enough genomes), ``horizon`` that of forecasts. A part for which the run has too little says so in
    place of figures. Raises NotEnoughData for a run of one instant, and InvalidSettings.
    """
    history = run.history
    history.require()
    window_us = suggested_window_us(history) if time_window is None else history.window_us(time_window)
    if horizon is not None:
        history.window_us(horizon)
    alerts, planted = alerts_of(history), planted_in(history)
    axis = TimeAxis(
        history.begin_us,
        history.end_us,
        tuple(alerts.column("timestamp").to_pylist()),
        tuple((row["timestamp"], row["until"] or row["timestamp"]) for row in planted.to_pylist()),
    )
    subject = Subject(run, axis, window_us, horizon)
    sections = []
    for name, title, make in _SECTIONS:
        try:
            sections.append(make(subject))
        except (NotEnoughData, InvalidLineage) as error:
            sections.append(Section(name, title, missing=[str(error)]))
    about = [
        ("source", history.source),
        ("run", history.run or "(unnamed)"),
        ("event time", f"{iso_from_us(history.begin_us)} to {iso_from_us(history.end_us - 1)}"),
        ("length", span(history.length_us)),
        ("events", ", ".join(f"{name} {frame.num_rows:,}" for name, frame in history.frames.items())),
        ("windows of selection", span(window_us)),
        ("version", f"astrocyte {version('astrocyte')}"),
    ]  # fmt: skip
    return Report(f"Evolution of run {history.run or '(unnamed)'}", about, command, sections, history.notes)
