"""``astrocyte analyze``: what evolution did in a run, as findings, and as a report of one page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from astrocyte.pipeline.cli.options import AsJson, rule_names
from astrocyte.pipeline.console import print_json, printable, say
from astrocyte.schemas.errors import InvalidSettings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("analyze")(analyze_command)


def analyze_command(
    *,
    source: Annotated[
        str,
        typer.Argument(help="Recorded log, file of events, folder of a demo, SQLite file, or URL of a database."),
    ],
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--report", "-o", metavar="FILE",
            help="FILE.html (one page that needs nothing else) or FILE.md (with PNG files beside it); repeatable.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run (simulation_id); needed where the source holds several.")] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="Rule file, or name of a shipped one: the alerts that it finds in a recorded log.",
            autocompletion=rule_names,
        ),
    ] = None,
    time_window: Annotated[
        str | None,
        typer.Option(metavar="T", help="Windows of selection, such as 2s; default: 4 to 20 windows in the run."),
    ] = None,
    horizon: Annotated[
        str | None, typer.Option(metavar="T", help="How far ahead to forecast; default: a twentieth of the run.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say what evolution did in a run of cells: population, selection, lineages, co-evolution, forecasts, alerts."""
    from astrocyte.pipeline.analysis.evolution import RunAnalysis, read_run
    from astrocyte.pipeline.analysis.evolution.alerts import with_alerts_of
    from astrocyte.pipeline.analysis.report import check_target, figures_folder, make_report, write_report

    for path in reports or []:
        check_target(path)
        taken = path if path.exists() or path.suffix.lower() == ".html" else figures_folder(path)
        if taken.exists() and not force:
            raise InvalidSettings(f"{taken} exists; name another file, or replace it with --force")
    found = read_run(source, run=run)
    if rules is not None:
        from astrocyte.pipeline.cli.options import event_time, read

        found = RunAnalysis(with_alerts_of(found.history, read(rules), source, **event_time(None)))
    command = _command(found.history.source, run=run, rules=rules, time_window=time_window, horizon=horizon)
    report = make_report(found, command, time_window=time_window, horizon=horizon)
    for path in reports or []:
        write_report(report, path)
    if as_json:
        print_json(_as_json(report, reports or []))
        return
    for section in report.sections:
        for line in section.findings:
            sys.stdout.write(printable(line) + "\n")
    for note in (*report.notes, *(f"{each.title}: {text}" for each in report.sections for text in each.missing)):
        say(note)
    for path in reports or []:
        say(f"report written to {path}")


def _command(source: str, **options: str | None) -> str:
    """The command that makes the report again; the names of its files have no influence on it."""
    given = [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in options.items() if value is not None]
    return " ".join(["astrocyte analyze", shlex.quote(source), *given, "--report report.html"])


def _as_json(report: Any, reports: list[Path]) -> dict[str, Any]:
    return {
        "about": dict(report.about),
        "command": report.command,
        "sections": [
            {
                "name": each.name,
                "findings": each.findings,
                "tables": [{"title": t.title, "head": t.head, "rows": t.rows} for t in each.tables],
                "made_by": each.made_by,
                "missing": each.missing,
            }
            for each in report.sections
        ],
        "notes": list(report.notes),
        "files": [str(path) for path in reports],
    }
