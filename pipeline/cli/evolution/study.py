"""``astrocyte study``: many worlds, and a report that answers one question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from astrocyte.pipeline.cli.options import pairs, study_names
from astrocyte.pipeline.console import progress_bar, say
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

__all__ = ["register"]

_SUFFIXES = (".md", ".html")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("study")(study_command)


def study_command(
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A study; without one they are listed.", autocompletion=study_names)
    ] = "",
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
    if output is not None and output.suffix not in _SUFFIXES:
        raise InvalidSettings(f"-o {output}: expected a name that ends in {' or '.join(_SUFFIXES)}")
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
        output.write_text(html_page(report.heading, text) if output.suffix == ".html" else text, encoding="utf-8")
    except OSError as error:
        raise AstrocyteError(f"{output} cannot be written: {error.strerror}") from None
    if quick:
        say("quick version, which decides nothing:")
    say(f"{report.answer.splitlines()[0]}\nreport written to {output}")
