"""Commands over many runs: experiments (run, ls, compare), and studies."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrocyte.pipeline.cli.options import AsJson, pairs, simulated, sql_address, stored_address
from astrocyte.pipeline.console import pipe_may_close, print_json, progress_bar, say
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

if TYPE_CHECKING:
    from astrocyte.agents.stores.experiment import ExperimentDatabase
    from astrocyte.pipeline.experiments.comparison import RunResult

__all__ = ["register"]

_REPORTS = (".md", ".html")

Database = Annotated[
    str | None, typer.Option("--db", metavar="URL", help="SQLAlchemy URL or SQLite file; default: ASTROCYTE_SQL_URL.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    group = typer.Typer(help="Experiments: sweeps over settings and seeds, and their results.", no_args_is_help=True)
    group.command("run")(run_command)
    group.command("ls")(list_command)
    group.command("compare")(compare_command)
    app.add_typer(group, name="experiment")
    app.command("study")(study_command)


def _opened(database: str | None, experiment: str | None = None) -> ExperimentDatabase:
    """A database for reading."""
    from astrocyte.agents.stores.experiment import ExperimentDatabase

    return ExperimentDatabase(stored_address(database, option="--db"), experiment)


def run_command(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep: scenario, settings, seeds.")],
    *,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep: every combination of settings with every seed. Runs that are completed are not repeated.

    Exit status 1 if a run failed.
    """
    from astrocyte.pipeline.experiments.comparison import compare
    from astrocyte.pipeline.experiments.runner import ExperimentRunner
    from astrocyte.pipeline.experiments.sweep import load_sweep
    from astrocyte.pipeline.simulation.compilations import keep_compilations
    from astrocyte.pipeline.stopping import ends_on_signal

    loaded = load_sweep(sweep)
    if loaded.scenario is not None:
        simulated(loaded.scenario)
    keep_compilations()
    runner = ExperimentRunner(sql_address(database), loaded)

    def report(done: int, total: int, result: RunResult) -> None:
        settings = ", ".join(f"{name}={value}" for name, value in {**result.varied, "seed": result.seed}.items())
        outcome = "was completed before" if result.skipped else result.error or "completed"
        say(f"{done}/{total} {result.simulation_id} ({settings}): {outcome}")

    with ends_on_signal() as stop:
        stop.finish("astrocyte: stopping after this run; press Ctrl-C again to exit at once")
        results = runner.run(progress=report, stop=stop.is_set)
    comparison = compare(results)
    if as_json:
        print_json({"runs": [asdict(each) for each in results], "comparison": comparison.as_dict()["rows"]})
    else:
        sys.stdout.write(f"{comparison}\n")
    failed = [each for each in results if each.status == "failed"]
    if failed:
        raise AstrocyteError(f"{len(failed)} of {len(results)} runs failed, the first with: {failed[0].error}")


def list_command(
    experiment: Annotated[str | None, typer.Argument(help="Experiment whose simulations are listed.")] = None,
    *,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """List the experiments of the database, or the simulations of one."""
    with _opened(database, experiment) as opened:
        rows = [asdict(each) for each in (opened.simulations() if experiment else opened.experiments())]
    if as_json:
        listed = [{name: _plain(value) for name, value in row.items()} for row in rows]
        print_json({"simulations" if experiment else "experiments": listed})
        return
    if experiment:
        columns = ("simulation_id", "status", "start_time", "end_time")
    else:
        columns = ("experiment_id", "status", "simulations", "creation_date")
    with pipe_may_close():
        for line in _table(columns, ([_plain(row[name]) for name in columns] for row in rows)):
            sys.stdout.write(line + "\n")


def compare_command(
    experiment: Annotated[str, typer.Argument(help="Experiment whose runs are compared.")],
    *,
    result: Annotated[
        list[str] | None, typer.Option("--result", help="Result to show; repeatable. Default: all.")
    ] = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compare the runs of an experiment: mean and standard deviation of each result over the seeds."""
    from astrocyte.pipeline.experiments.comparison import compare
    from astrocyte.pipeline.experiments.runner import results_of

    with _opened(database, experiment) as opened:
        opened.simulations()  # an experiment that is not there is an error
        found = results_of(opened)
    known = {name for each in found for name in each.results}
    for name in result or ():
        if name not in known:
            raise InvalidSettings(f"no run has a result {name!r}; there are {', '.join(sorted(known)) or 'none'}")
    comparison = compare(found, result)
    if as_json:
        print_json({"comparison": comparison.as_dict()["rows"]})
    else:
        sys.stdout.write(f"{comparison}\n")


def _plain(value: Any) -> Any:
    return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "isoformat") else value


def _table(columns: Iterable[str], rows: Iterable[list[Any]]) -> list[str]:
    lines = [list(columns), *([str("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def study_command(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A study; without one they are listed.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="FILE.md or FILE.html; default: Markdown on stdout."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=3, max=10_000, help="Worlds of each setting; default: as the study needs.")
    ] = None,
    first_seed: Annotated[int, typer.Option("--seed", min=0, help="With --seeds: the first one.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A small version, which decides nothing.")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the scenario; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Run a study: many simulated worlds, and a report with numbers and intervals. The same arguments give the same."""
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.simulation.compilations import keep_compilations
    from astrocyte.pipeline.studies.report import html_page, markdown
    from astrocyte.pipeline.studies.study import STUDIES, StudyRun, run_study, study_command

    load_settings()  # imports the plugins, which may register studies
    if not name:
        sys.stdout.write("".join(f"{each}\n" for each in STUDIES.names()))
        return
    if first_seed and seeds is None:
        raise InvalidSettings("--seed is the first of --seeds; give both")
    if output is not None and output.suffix not in _REPORTS:
        raise InvalidSettings(f"-o {output}: expected a name that ends in {' or '.join(_REPORTS)}")
    if output is not None and output.exists() and not force:
        raise InvalidSettings(f"{output} exists; name another file, or replace it with --force")
    keep_compilations()
    phase = [""]
    with progress_bar(f"study {name}:", lambda: phase[0]) as move:

        def moved(what: str, done: int, total: int) -> None:
            phase[0] = what
            move(done, total)

        run = StudyRun(
            name, seeds=tuple(range(first_seed, first_seed + seeds)) if seeds else (), quick=quick,
            settings=pairs(setting or ()), progress=moved,
        )  # fmt: skip
        report = run_study(run)
    text = markdown(report, study_command(run))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(html_page(report.title, text) if output.suffix == ".html" else text, encoding="utf-8")
    except OSError as error:
        raise AstrocyteError(f"{output} cannot be written: {error.strerror}") from None
    say(f"{report.answer.splitlines()[0]}\nreport written to {output}")
