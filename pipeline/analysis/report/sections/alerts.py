"""Alerts, planted anomalies and early warnings on the time axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from astrocyte.agents.insight import EarlyWarning
from astrocyte.pipeline.analysis.evolution.dashboard import alerts_of, planted_in
from astrocyte.pipeline.analysis.evolution.history import METRICS
from astrocyte.pipeline.analysis.report.content import Figure, Section, Table
from astrocyte.pipeline.analysis.report.palette import Palette
from astrocyte.pipeline.analysis.report.sections.subject import Subject
from astrocyte.pipeline.analysis.report.sections.time_axis import log_axis
from astrocyte.pipeline.analysis.report.text import as_python, joined, number, span, trait_name

__all__ = ["alerts_section"]

_SHOWN = 50


def alerts_section(subject: Subject) -> Section:
    """Alerts by rule over time, and early warnings by window."""
    section = Section("alerts", "Alerts and early warnings")
    alerts, planted = alerts_of(subject.history), planted_in(subject.history)
    if alerts.num_rows or planted.num_rows:
        section.figures.append(Figure(
            "alerts", "Alerts by rule",
            "Each mark is an alert, coloured by severity: red critical, orange warning, blue others. Bands: planted "
            "anomalies.", partial(_timeline, subject, alerts, planted),
        ))  # fmt: skip
    if alerts.num_rows:
        rules = Counter(alerts.column("rule").to_pylist())
        counted = joined([f"{name} {count}" for name, count in sorted(rules.items())])
        section.findings.append(f"{alerts.num_rows:,} {'alert' if alerts.num_rows == 1 else 'alerts'}: {counted}.")
        section.tables.append(_alerts(subject, alerts))
    elif subject.history.rules is not None:
        section.findings.append(_none_of(subject.history.rules))
    else:
        section.text.append(
            "The source holds no alerts. A database has those of the rules of its workers; for a recorded log "
            "they are found by --rules."
        )
    if planted.num_rows:
        section.tables.append(_planted(subject, planted))
    _add_warnings(subject, section)
    return section


def _none_of(rules: Sequence[str]) -> str:
    """That rules ran over the log and raised nothing."""
    if not rules:
        return "No alert: the rules that were given are none that raise one."
    if len(rules) == 1:
        return f"No alert: the rule {rules[0]} ran over the log and raised none."
    return f"No alert: the rules {joined(rules)} ran over the log and raised none."


def _alerts(subject: Subject, alerts: pa.Table) -> Table:
    rows = alerts.to_pylist()
    times = subject.axis.place([row["timestamp"] for row in rows])
    more = f" (the first {_SHOWN} of {len(rows):,})" if len(rows) > _SHOWN else ""
    return Table(f"Alerts{more}", ("rule", "severity", "at", "message"), [
        (row["rule"] or "", row["severity"] or "", number(float(time), 4), row["message"] or "")
        for row, time in zip(rows[:_SHOWN], times[:_SHOWN].tolist(), strict=True)
    ], left=4)  # fmt: skip


def _planted(subject: Subject, planted: pa.Table) -> Table:
    rows = planted.to_pylist()
    return Table("Planted anomalies", ("kind", "from", "until"), [
        (row["kind"] or "", *(number(float(each), 4) for each in subject.axis.place(
            [row["timestamp"], row["timestamp"] if row["until"] is None else row["until"]])))
        for row in rows[:_SHOWN]
    ])  # fmt: skip


def _timeline(subject: Subject, alerts: pa.Table, planted: pa.Table, axes: Any, palette: Palette) -> None:
    names = sorted({name or "" for name in alerts.column("rule").to_pylist()}, reverse=True)
    colours = {"critical": palette.red, "warning": palette.orange}
    for row in alerts.to_pylist():
        at = subject.axis.place([row["timestamp"]])
        axes.plot(
            at, [names.index(row["rule"] or "")], "D", markersize=5, color=colours.get(row["severity"], palette.blue)
        )
    end = subject.axis.place([subject.axis.end_us])[0]
    for row in planted.to_pylist():
        start, stop = subject.axis.place([row["timestamp"], row["until"] or row["timestamp"]])
        axes.axvspan(start, max(stop, start + 0.004 * end), color=palette.gold, alpha=0.3, linewidth=0)
        axes.annotate(trait_name(row["kind"] or ""), (start, 1.0), xycoords=("data", "axes fraction"), va="bottom",
                      fontsize=8, color=palette.gold)  # fmt: skip
    axes.set_yticks(range(len(names)), [trait_name(name) for name in names])
    axes.set_ylim(-0.6, max(len(names), 1) - 0.4)
    subject.axis.label(axes, palette, marks=False)


def _add_warnings(subject: Subject, section: Section) -> None:
    """Early warnings in windows of a quarter of the run, a twentieth apart."""
    history = subject.history
    if not history.count(METRICS):
        return
    length_us = history.end_us - history.begin_us
    least = EarlyWarning(windows=history.windows(1)).min_samples
    snapshots = history.times(METRICS)
    if len(snapshots) < least:
        section.missing.append(f"early warnings: they need {least} snapshots, and the run has {len(snapshots)}")
        return
    size_us = min(max(length_us // 4, least * history.spacing_us(METRICS)), length_us)
    statistic = EarlyWarning(windows=history.windows(size_us, max(length_us // 20, 1)))
    rows = [row for row in history.results(statistic).to_pylist() if row["p"] is not None]
    if not rows:
        section.missing.append("early warnings: the snapshots do not vary")
        return
    section.figures.append(Figure(
        "early_warnings", "Early warnings",
        f"p that variance and autocorrelation rise together by chance, in the {span(size_us)} before; below the line "
        f"({statistic.level:g}) a warning.", partial(_warnings, subject, rows, statistic.level),
    ))  # fmt: skip
    warned = [row for row in rows if row["warning"]]
    windows = len({row["window_end"] for row in rows})
    expected = statistic.level * len(rows)
    section.findings.append(
        f"Early warnings came in {len(warned)} of {len(rows)} tests ({windows} overlapping windows), where chance "
        f"alone gives {number(expected, 2)}."
    )
    section.made_by.append(as_python(statistic))


def _warnings(subject: Subject, rows: list[dict[str, Any]], level: float, axes: Any, palette: Palette) -> None:
    names = list(dict.fromkeys(row["indicator"] for row in rows))
    for name, colour in zip(names, palette.series, strict=False):
        own = [row for row in rows if row["indicator"] == name]
        at = subject.axis.place([row["window_end"] for row in own])
        axes.plot(at, [row["p"] for row in own], "-o", markersize=3, color=colour, label=trait_name(name))
    axes.axhline(level, color=palette.red, linewidth=0.9)
    log_axis(axes)
    axes.set_ylabel("p")
    axes.set_ylim(top=1.05)
    axes.legend(loc="best")
    subject.axis.label(axes, palette)
