"""The command ``inspect``, implemented in `pipeline.analysis.inspect`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astrocyte.pipeline.analysis.inspect import LIMIT
from astrocyte.pipeline.cli.options import AsJson, broker_option
from astrocyte.pipeline.console import pipe_may_close, print_json, say
from astrocyte.schemas.errors import AstrocyteError, InvalidSettings

if TYPE_CHECKING:
    from astrocyte.pipeline.analysis.inspect.starting.starter import Starter

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("inspect")(inspect_command)


def inspect_command(
    *,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC|LOG|FILE",
            help="Topic, or pattern such as 'shop.*'; recorded log or output of kcat -J; JSON lines, CSV or Parquet; "
            "- is standard input.",
        ),
    ],
    broker: Annotated[
        str | None, broker_option("Kafka address; default: ASTROCYTE_BROKER. With it, the target is a topic.")
    ] = None,
    rules: Annotated[
        list[str] | None, typer.Option("--rules", help="Rule file to hold against what is found; repeatable.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", "-w", metavar="FILE", help="Write a rule file to begin with.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --write if it exists.")] = False,
    stream: Annotated[
        str | None,
        typer.Option("--stream", metavar="NAME", help="Stream of the events of a file; default: the file's name."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Read about N events: the newest of a topic, the first of a file.")
    ] = LIMIT,
    as_json: AsJson = False,
) -> None:
    """Show what a topic, log or file holds, whether rules fit it, and write a rule file to begin with.

    Events are read as a worker and `match` read them. Nothing is committed and no group is joined.
    """
    from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
    from astrocyte.pipeline.analysis.inspect.sample import standard_input
    from astrocyte.pipeline.analysis.inspect.text import render, render_fit
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.topology.rule_files import read_rule_files
    from astrocyte.pipeline.transport.client_log import limit_client_log

    if rules and write is not None:
        raise InvalidSettings("--rules checks rules and --write makes a file of new ones; give one of them")
    if write is not None:
        from astrocyte.pipeline.analysis.inspect.starting.starter import make_starter, refuse_to_replace, write_starter

        refuse_to_replace(write, overwrite=force)
    limit_client_log()
    settings = load_settings()
    ruleset = read_rule_files(rules) if rules else None
    with ExitStack() as stack:
        path = stack.enter_context(standard_input(limit)) if target == "-" else None
        request = Request(target, settings, broker=broker, ruleset=ruleset, stream=stream, limit=limit, path=path)
        sample = take_sample(request)
        found = inspect(request, sample)
        fitted = None
        if ruleset is not None:
            from astrocyte.pipeline.analysis.inspect.fit import fit

            fitted = fit(ruleset, sample, found, settings)
        starter: Starter | None = None
        unwritten: AstrocyteError | None = None
        if write is not None:
            try:
                starter = make_starter(request, sample, found, path=write)
                write_starter(starter, write, overwrite=force)
            except AstrocyteError as error:  # raised when the inspection, which says more, was shown
                starter, unwritten = None, error
    with pipe_may_close():
        if as_json:
            body: dict[str, Any] = {"name": found.name, "complete": found.complete}
            body |= {"reports": [report.as_json() for report in found.reports], "empty": found.empty}
            body |= {} if fitted is None else {"rules": fitted.as_json()}
            body |= {} if starter is None else {"written": write, "matches": starter.matches}
            print_json(body)
        else:
            sys.stdout.write(render(found))
            if fitted is not None:
                sys.stdout.write("\n" + render_fit(fitted, ", ".join(rules or ())))
        sys.stdout.flush()
    if unwritten is not None:
        raise unwritten
    if write is not None and starter is not None:
        _say_written(starter, write)
    if not any(report.reading.events for report in found.reports):
        raise typer.Exit(1)


def _say_written(starter: Starter, path: str) -> None:
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(starter.matches.items()))
    say(f"\n{path} is written; on the sample its rules match: {counts}. Next:")
    for command in starter.commands:
        say(f"  {command}")
