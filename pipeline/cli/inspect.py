"""The command ``inspect``, implemented in `pipeline.analysis.inspect`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from astrocyte.pipeline.cli.options import AsJson
from astrocyte.pipeline.console import pipe_may_close, print_json

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
            help="Topic or pattern such as 'shop.*'; recorded log or output of kcat -J; JSON lines, CSV, Parquet; -.",
        ),
    ],
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker", "-b", "--bootstrap-server", metavar="HOST:PORT", help="Kafka; default: ASTROCYTE_BROKER."
        ),
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="Stream of the events of a file; default: its name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of events to read of each topic, or of the file.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Show what a topic, log or file holds and how it is read."""
    from astrocyte.pipeline.analysis.inspect.run import Request, inspect, take_sample
    from astrocyte.pipeline.analysis.inspect.text import render
    from astrocyte.pipeline.cli.options import broker_address
    from astrocyte.pipeline.settings import load_settings

    broker_address(broker)
    request = Request(target, load_settings(), broker=broker, stream=stream, limit=limit)
    sample = take_sample(request)
    found = inspect(request, sample)
    with pipe_may_close():
        if as_json:
            print_json({"reports": [report.as_json() for report in found.reports]})
        else:
            sys.stdout.write(render(found))
