"""The command that serves the live page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from astrocyte.pipeline.cli.options import Broker, rule_names
from astrocyte.pipeline.console import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("page")(page_command)


def page_command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Folder of a demo, recorded log, SQLite file, or URL of a database; without it, the broker, live."
        ),
    ] = None,
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; 0 chooses a free one. Default: ASTROCYTE_PAGE_PORT.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address; beyond this machine only with ASTROCYTE_PAGE_TOKEN.")
    ] = None,
    rules: Annotated[
        list[Path] | None,
        typer.Option(
            help="Rule file that the workers run, or name of a shipped one; repeatable.", autocompletion=rule_names
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run of a database that holds several.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="T", help="How much of the past to read from the broker, such as 1h; all.")
    ] = None,
    broker: Broker = None,
    write: Annotated[bool, typer.Option("--write", help="Let the page publish rules to the workers.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show the worlds, the findings and the pipeline on a web page of this machine. Ctrl-C ends it."""
    from astrocyte.pipeline.page.server.run import PageOptions, run_page

    options = PageOptions(
        source=source, port=port, host=host, rules=tuple(rules or ()), run=run, since=since, broker=broker, write=write
    )

    def ready(address: str) -> None:
        say(f"page ready at {address} (Ctrl-C ends it)")
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    run_page(options, on_ready=ready)
    sys.stderr.flush()
    os._exit(0)  # threads that look up a lineage are not waited for
